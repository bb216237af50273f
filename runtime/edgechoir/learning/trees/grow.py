"""How a forest grows: what a device adds up for the nodes of one level, and which splits follow.

Second-order boosting (Chen and Guestrin 2016, KDD, equations 6 and 7): with G and H the sums of
gradients and hessians of the loss over the rows of a node,

    value = -rate G / (H + l2),   gain = GL^2 / (HL + l2) + GR^2 / (HR + l2) - G^2 / (H + l2)

The sums are taken by bins of every column, which is all that a split needs to be found.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.learning.statistics import bins
from edgechoir.learning.trees.forest import NEVER, Forest, Layout, at_level, scores_of
from edgechoir.types import Floats, Reals, Whole

SUMS: Final = 3
"""Of a bin: gradient, hessian, rows."""
LEAST_HESSIAN: Final = 1e-3
LEAST_GAIN: Final = 1e-6


@dataclass(frozen=True, slots=True)
class Terms:
    """How trees grow; `bins` of a column, `min_rows` of a leaf."""

    rate: float = 0.1
    l2: float = 1.0
    min_rows: float = 20.0
    bins: int = 64


def coordinates(layout: Layout, level: int, count: int) -> int:
    """Of a device's part: one, and SUMS for each score, node, column and bin."""
    return int(1 + SUMS * layout.scores * 2**level * layout.columns * count)


def gradients(layout: Layout, scores: Reals, y: Reals, reach: Reals) -> tuple[Reals, Reals]:
    """First and second derivatives [n, scores] of the loss; `reach` [scores] is the unit of the
    first, which then lies in [-1, 1]."""
    if not layout.classifies:
        return np.clip((scores - y.reshape(scores.shape)) / reach, -1, 1), np.ones_like(scores)
    if layout.scores == 1:
        p: Reals = 1 / (1 + np.exp(np.clip(0.0 - scores, -60, 60)))
        return p - y[:, None], p * (1 - p)
    z = np.exp(scores - scores.max(1, keepdims=True))
    p = z / z.sum(1, keepdims=True)
    return p - (y[:, None] == np.arange(layout.scores)), p * (1 - p)


def part_of(
    layout: Layout,
    w: Floats,
    x: Floats,
    y: Reals,
    edges: Reals,
    reach: Reals,
    step: int,
    level: int,
) -> Floats:
    """A device's part, a mean over its rows x [n, f], y [n] or [n, k], for one level of the trees
    of one step; `edges` [f, bins - 1]. Its first coordinate is 1, by which the sum is read."""
    n, f = x.shape
    at = bins.place(x, edges)
    at[np.isnan(x)] = 0  # as the forest has it: to the left
    g, h = gradients(layout, scores_of(layout, w, x), y, reach)
    forest, count, width = layout.split(w), edges.shape[1] + 1, 2**level
    out = np.empty((layout.scores, SUMS, f, width * count))
    for s in range(layout.scores):
        node = at_level(forest, step * layout.scores + s, x, level)
        for j in range(f):
            where = node * count + at[:, j]
            for k, weights in enumerate((g[:, s], h[:, s], None)):
                out[s, k, j] = np.bincount(where, weights, width * count)
    part: Floats = np.concatenate([[1.0], out.ravel() / n]).astype(np.float32)
    return part


def grown(
    layout: Layout,
    terms: Terms,
    w: Floats,
    mean: Floats,
    rows: int,
    edges: Reals,
    reach: Reals,
    step: int,
    level: int,
) -> Floats:
    """The vector [d] after one level more, from the mean [1 + ...] of all parts over `rows`.

    Raises BadUpdate for a mean that is none.
    """
    if not mean[0] > 0:
        raise BadUpdate("a sum of histograms over no row")
    f, count, width = layout.columns, edges.shape[1] + 1, 2**level
    sums = mean[1:].astype(np.float64) * (rows / float(mean[0]))
    sums = sums.reshape(layout.scores, SUMS, f, width, count)
    sums[:, 0] *= reach[:, None, None, None]
    w = w.copy()
    forest = layout.split(w)
    for s in range(layout.scores):
        t = step * layout.scores + s
        for node in range(width):
            chosen = best(sums[s, :, :, node], terms)
            _set(layout, terms, forest, t, level, node, chosen, sums[s, :, 0, node].sum(1), edges)
    return w


@dataclass(frozen=True, slots=True)
class Split:
    """Of a column, in front of edge `edge`; sums [SUMS] on both sides."""

    column: int
    edge: int
    left: Reals
    right: Reals


def best(sums: Reals, terms: Terms) -> Split | None:
    """The best split by sums [SUMS, f, bins] of a node; none where none gains."""
    left: Reals = np.cumsum(sums.astype(np.float64), 2)[:, :, :-1]
    right: Reals = sums.sum(2)[:, :, None] - left

    def worth(part: Reals) -> Reals:
        value: Reals = part[0] ** 2 / np.maximum(part[1] + terms.l2, LEAST_HESSIAN)
        return value

    gain = worth(left) + worth(right) - worth(left + right)
    # Half a row of slack: the fixed point may leave a count a little short.
    few = np.minimum(left[2], right[2]) < terms.min_rows - 0.5
    flat = np.minimum(left[1], right[1]) < LEAST_HESSIAN
    gain = np.where(few | flat, -np.inf, gain)
    column, edge = (int(i) for i in np.unravel_index(int(gain.argmax()), gain.shape))
    if not gain[column, edge] > LEAST_GAIN:
        return None
    return Split(column, edge, left[:, column, edge], right[:, column, edge])


def _set(
    layout: Layout,
    terms: Terms,
    forest: Forest,
    t: int,
    level: int,
    node: int,
    chosen: Split | None,
    whole: Reals,
    edges: Reals,
) -> None:
    i = 2**level - 1 + node
    if chosen is None:
        forest.features[t, i], forest.thresholds[t, i] = 0, NEVER
    else:
        forest.features[t, i] = chosen.column
        # A value on the edge is above it: the threshold is the number before.
        edge = np.float32(edges[chosen.column, chosen.edge])
        forest.thresholds[t, i] = np.nextafter(edge, np.float32(-np.inf))
    if level == layout.depth - 1:
        left, right = (whole, None) if chosen is None else (chosen.left, chosen.right)
        forest.leaves[t, 2 * node] = _value(left, terms)
        forest.leaves[t, 2 * node + 1] = 0.0 if right is None else _value(right, terms)


def _value(sums: Reals, terms: Terms) -> float:
    return float(-terms.rate * sums[0] / max(sums[1] + terms.l2, LEAST_HESSIAN))


def measured(layout: Layout, w: Floats, x: Floats, y: Reals) -> tuple[int, float]:
    """(right answers, summed loss) over rows; squared errors are halved by no factor."""
    out = layout.sees(w, x)
    if not layout.classifies:
        return 0, float(((out - y.reshape(out.shape)) ** 2).mean(1).sum())
    label: Whole = y.astype(np.int64)
    z = out - out.max(1, keepdims=True)
    loss = np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), label]
    return int((out.argmax(1) == label).sum()), float(loss.sum())
