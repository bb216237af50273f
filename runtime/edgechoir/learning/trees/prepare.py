"""What a forest needs to know before it grows: bins, where to start, and a unit."""

from collections.abc import Generator
from typing import Final

import numpy as np

from edgechoir.learning.statistics import bins
from edgechoir.learning.statistics.inquiry import (
    MAX_NUMBERS,
    About,
    Asked,
    Model,
    Reply,
    by_magnitude,
    counted,
    moments,
    most_rows,
)
from edgechoir.types import Floats, Reals

EDGES, START, REACH = "edges", "start", "reach"
"""Vectors of the global state: inner edges [f * (bins - 1)], start and unit of the scores."""
FINE: Final = 256


def preparation(model: Model, count: int) -> Generator[Asked, Reply, dict[str, Floats]]:
    """EDGES, START and REACH, in three rounds, or four for quantities."""
    x, y = About("train"), About("train", "y")
    mass, first = yield from by_magnitude(model, x)
    low, high = bins.range_of(mass)
    fine = max(min(FINE, MAX_NUMBERS // len(mass)), 2)
    edges = bins.refined(bins.spread_borders(len(mass)), mass[:, :-1], fine)
    shares, _ = yield from counted(x, edges, most_rows(first), "bins")
    edges = bins.spaced(bins.bordered(low, edges, high), shares[:, :-1], count)
    if model.classifies:
        k = len(model.outputs)
        between = (np.arange(1, k) - 0.5).astype(np.float32)[None]
        found, _ = yield from counted(y, between, most_rows(first), "bins")
        p = np.maximum(found[0, :k].astype(np.float64), 1e-4)
        start: Reals = np.log(p[1:] / p[:1]) if k == 2 else np.log(p / p.sum())
        reach: Reals = np.ones(len(start))
    else:
        of_y, _, half, _ = yield from moments(model, y)
        start, reach = of_y.mean, 2 * half
    return {
        EDGES: edges.astype(np.float32).ravel(),
        START: start.astype(np.float32),
        REACH: reach.astype(np.float32),
    }
