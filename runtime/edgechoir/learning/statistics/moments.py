"""Mean and variance of each column, from values moved and scaled into [-1, 1] first.

    z = (x - c) / h,   mean = c + h E[z],   variance = h^2 (E[z^2] - E[z]^2)

c and h follow from the range that a round of `bins.spread_of` found, so that the fixed point of the
sum keeps its precision whatever the unit: an error of about h / 2^30 for each device. A value that
is missing counts for nothing, column by column.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.types import Floats, Reals

PARTS: Final = 4
"""Coordinates for a column: present, z, z^2, outside [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Of each column [f]. `present` and `outside` are shares of the rows; `error` bounds that of
    the mean by the fixed point alone."""

    mean: Reals
    variance: Reals
    present: Reals
    outside: Reals

    @property
    def deviation(self) -> Reals:
        """Standard deviation [f]."""
        return np.sqrt(self.variance)


def moments_of(x: Reals, center: Reals, half: Reals) -> Reals:
    """A device's part [f, PARTS]: means over its rows x [n, f]."""
    z = (x.astype(np.float64) - center) / half
    present = ~np.isnan(z)
    outside = np.abs(np.where(present, z, 0.0)) > 1
    z = np.clip(np.where(present, z, 0.0), -1, 1)
    part: Reals = np.stack([present, z, z * z, outside], 2).mean(0)
    return part


def read_moments(part: Reals, center: Reals, half: Reals) -> Moments:
    """The moments of all rows, from the mean [f, PARTS] of the parts.

    Raises BadUpdate for a column without any value.
    """
    present, z, squares, outside = part.astype(np.float64).T
    if not (present > 0).all():
        lacking = [int(j) for j in np.flatnonzero(present <= 0)[:8]]
        raise BadUpdate(f"no device has a value of the columns {lacking}")
    z, squares = z / present, squares / present
    # The fixed point may leave a constant column a little below zero.
    variance = half**2 * np.maximum(squares - z * z, 0.0)
    return Moments(center + half * z, variance, np.minimum(present, 1.0), outside)


def standard(moments: Moments) -> tuple[Floats, Floats]:
    """(mean [f], 1 / deviation [f]) in float32; a column that hardly varies is only moved."""
    flat = moments.deviation <= 1e-6 * np.maximum(np.abs(moments.mean), 1e-30)
    scale = np.where(flat, 1.0, 1.0 / np.where(flat, 1.0, moments.deviation))
    return moments.mean.astype(np.float32), scale.astype(np.float32)
