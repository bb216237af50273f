"""Histograms whose bins need not be known beforehand, and the quantiles that come of them.

A first round counts values by magnitude: one bin for each power of four on either side of zero,
which covers all of float32, so no range has to be declared and no minimum of any single device is
ever asked for. What follows puts its bins inside the part that is not empty. A value that is
missing (NaN) has a bin of its own.
"""

from typing import Final

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.types import Reals, Whole

LOWEST: Final = -40
"""|x| below 2^LOWEST counts as zero."""
HIGHEST: Final = 128
STEP: Final = 2
MAGNITUDES: Final = (HIGHEST - LOWEST) // STEP
SPREAD: Final = 2 * MAGNITUDES + 1
"""Bins of the first round, without the one for missing values."""
SLACK: Final = 1e-5
"""A quantile on the border of two bins is in the lower one, whatever the rounding of the masses."""
LARGEST: Final = float(np.finfo(np.float32).max)


def spread_of(x: Reals) -> Reals:
    """Share of the rows x [n, f] in each bin [f, SPREAD + 1]; the last is for missing values."""
    with np.errstate(divide="ignore"):
        exponent = np.floor(np.log2(np.abs(x, dtype=np.float64)))
    size = np.clip((np.nan_to_num(exponent, neginf=LOWEST - 1) - LOWEST) // STEP + 1, 0, MAGNITUDES)
    at = MAGNITUDES + np.where(np.isnan(x), 0, np.sign(np.nan_to_num(x))) * size
    return shares(np.where(np.isnan(x), SPREAD, at).astype(np.int64), SPREAD + 1)


def spread_borders(columns: int) -> Reals:
    """The borders [columns, SPREAD + 1] of those bins, in float64."""
    positive = 2.0 ** np.arange(LOWEST, HIGHEST + 1, STEP, dtype=np.float64)
    positive[-1] = LARGEST
    borders = np.concatenate([-positive[::-1], positive])
    return np.array([borders] * columns, np.float64)


def range_of(spread: Reals) -> tuple[Reals, Reals]:
    """What surely encloses every value: (low [f], high [f]) from shares [f, SPREAD + 1].

    A coordinate that nobody added to is exactly zero in the sum, so no bin is called empty that is
    not. Raises BadUpdate for a feature without any value.
    """
    seen = spread[:, :SPREAD] > 0
    if not seen.any(1).all():
        lacking = [int(j) for j in np.flatnonzero(~seen.any(1))[:8]]
        raise BadUpdate(f"no device has a value of the columns {lacking}")
    edges = spread_borders(1)[0]
    low = edges[:-1][np.argmax(seen, 1)]
    high = edges[1:][SPREAD - 1 - np.argmax(seen[:, ::-1], 1)]
    return low, high


def shares(at: Whole, bins: int) -> Reals:
    """Share of rows [n, f] in each of so many bins: [f, bins]."""
    n, f = at.shape
    flat = (at + bins * np.arange(f)).ravel()
    counts = np.bincount(flat, minlength=bins * f).reshape(f, bins)
    share: Reals = (counts / n).astype(np.float32)
    return share


def place(x: Reals, edges: Reals) -> Whole:
    """The bin [n, f] of each value x [n, f] between inner edges [f, b - 1]; b for a missing one.

    A value on an edge belongs to the bin above it.
    """
    columns = [np.searchsorted(edges[j], x[:, j], "right") for j in range(x.shape[1])]
    at = np.stack(columns, 1) if columns else np.zeros(x.shape, np.int64)
    return np.where(np.isnan(x), edges.shape[1] + 1, at)


def histogram_of(x: Reals, edges: Reals) -> Reals:
    """Share of the rows x [n, f] in each of b bins and, last, missing: [f, b + 1]."""
    return shares(place(x, edges), edges.shape[1] + 2)


def linear_edges(low: Reals, high: Reals, bins: int) -> Reals:
    """Inner edges [f, bins - 1] of equal bins between low [f] and high [f]."""
    parts = np.arange(1, bins) / bins
    return (low[:, None] * (1 - parts) + high[:, None] * parts).astype(np.float32)


def quantiles_of(borders: Reals, mass: Reals, at: Reals) -> Reals:
    """Quantiles [f, q] at `at` [q] in (0, 1); `mass` [f, b] is between `borders` [f, b + 1].

    Within a bin the values are taken as evenly spread, so each is off by a bin's width at most.
    """
    out = np.empty((len(mass), len(at)))
    for j, row in enumerate(mass):
        held = _holding(row, at)
        inside = np.maximum(row.astype(np.float64), 0.0)
        sums = np.cumsum(inside)
        # A mass of zero is held only where there is none at all.
        part = (at * sums[-1] - (sums - inside)[held]) / np.maximum(inside[held], 1e-30)
        out[j] = borders[j][held] + np.clip(part, 0, 1) * np.diff(borders[j])[held]
    return out


def widths_of(borders: Reals, mass: Reals, at: Reals) -> Reals:
    """How far off each of `quantiles_of` may be at most: the width [f, q] of its bin."""
    out = np.empty((len(mass), len(at)))
    for j, row in enumerate(mass):
        out[j] = np.diff(borders[j])[_holding(row, at)]
    return out


def _holding(row: Reals, at: Reals) -> Whole:
    """The bins [q] of one column in which its quantiles lie."""
    sums = np.cumsum(np.maximum(row, 0.0))
    held: Whole = np.minimum(np.searchsorted(sums, at * sums[-1] - SLACK), len(row) - 1)
    return held


def narrowed(borders: Reals, mass: Reals, at: Reals, inside: int) -> Reals:
    """Inner edges [f, q * (inside + 1)] that cut each bin of `widths_of` into `inside` parts."""
    out = np.empty((len(mass), len(at) * (inside + 1)))
    for j, row in enumerate(mass):
        held = _holding(row, at)
        cuts = np.linspace(borders[j][held], borders[j][held + 1], inside + 1)
        out[j] = np.sort(cuts.ravel())
    return out.astype(np.float32)


def refined(borders: Reals, mass: Reals, bins: int) -> Reals:
    """Inner edges [f, bins - 1] that share out the mass [f, b] between `borders` [f, b + 1] evenly.

    A bin that held much is cut into many.
    """
    return quantiles_of(borders, mass, np.arange(1, bins) / bins).astype(np.float32)


def spaced(borders: Reals, mass: Reals, bins: int) -> Reals:
    """Inner edges [f, bins - 1], half of them as dense as the values are by `mass` [f, b], half as
    dense as the cube root of that density.

    The second is where a quantiser of so many levels loses least (Panter and Dite 1951, Proc. IRE
    39(1)): by mass alone a long tail would stay in one piece. The first cuts between two values
    that many rows have, however near they are.
    """
    widths = np.maximum(np.diff(borders, axis=1), 1e-30)
    share = np.maximum(mass.astype(np.float64), 0.0)
    root = np.cbrt(share) * np.cbrt(widths) ** 2
    return refined(borders, share / _whole(share) + root / _whole(root), bins)


def _whole(parts: Reals) -> Reals:
    whole: Reals = np.maximum(parts.sum(1, keepdims=True), 1e-300)
    return whole


def bordered(low: Reals, edges: Reals, high: Reals) -> Reals:
    """Inner edges [f, b - 1] with the two ends of the range [f]: [f, b + 1]."""
    return np.concatenate([low[:, None], edges, high[:, None]], 1).astype(np.float64)
