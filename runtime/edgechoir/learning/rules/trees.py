"""Gradient boosting: each round asks for histograms of gradients at one level of the next trees.

The state's weights are the forest (`learning/trees/forest.py`), so every version answers. A level
takes one round: the sums by node, column and bin decide its splits, and at the last level its
leaves. Equal to boosting on the pooled rows with these bins, but for the fixed point.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from edgechoir.errors import LocalError
from edgechoir.learning.fixed_point import Total, heaviest
from edgechoir.learning.rules.rule import Plain, finite
from edgechoir.learning.state import State
from edgechoir.learning.task import Task
from edgechoir.learning.trees.forest import Layout
from edgechoir.learning.trees.grow import Terms, coordinates, grown
from edgechoir.learning.trees.prepare import EDGES, REACH, START
from edgechoir.types import Floats

GRADIENTS: Final = "gradients"
CLIP: Final = 1.0
MOST: Final = 1_000_000
AT: Final = "at"


@dataclass(frozen=True, slots=True)
class Trees(Plain):
    """`step` trees of each score are grown, and `level` levels of the next; `rows` were in the last
    sum. `layout` is that of the bundle."""

    rate: float = 0.1
    l2: float = 1.0
    min_rows: int = 20
    bins: int = 64
    layout: Layout | None = None
    step: int = 0
    level: int = 0
    rows: int = 0

    def of(self, layout: Layout) -> Self:
        """The rule for such a forest."""
        return replace(self, layout=layout)

    def task(self) -> Task:
        """Histograms of one level."""
        options = {"step": self.step, "level": self.level, "bins": self.bins}
        return Task(GRADIENTS, options)

    def coordinates(self, d: int) -> int:
        """For every node of the level, column and bin."""
        return coordinates(self._layout, self.level, self.bins)

    def weighing(
        self, clip: float, max_samples: int, dimension: int, devices: int, bits: int
    ) -> tuple[float, int]:
        """Shares of rows within [-1, 1]; every row counts the same."""
        seen = 2 * self.rows if self.rows else MOST
        return CLIP, max(min(seen, MOST, heaviest(devices, bits)), 1)

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """One level more. Raises BadUpdate."""
        layout = self._layout
        edges, reach, start = (state.aux[name] for name in (EDGES, REACH, START))
        w = np.array(state.weights, np.float32)
        layout.split(w).bias[:] = start
        w = grown(
            layout,
            Terms(self.rate, self.l2, self.min_rows, self.bins),
            w,
            total.delta,
            total.samples,
            edges.reshape(layout.columns, -1),
            reach.astype(np.float64),
            self.step,
            self.level,
        )
        last = self.level == layout.depth - 1
        rule = replace(
            self,
            step=self.step + last,
            level=0 if last else self.level + 1,
            rows=total.samples,
        )
        return rule, State(finite(w), state.aux)

    def over(self) -> str:
        """All trees of the bundle are grown."""
        layout = self._layout
        if (self.step + 1) * layout.scores > layout.trees:
            return f"{self.step * layout.scores} trees are grown"
        return ""

    def remember(self) -> Mapping[str, Floats]:
        """How far it is."""
        return {AT: np.array([self.step, self.level, self.rows], np.float32)}

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """Going on there."""
        if AT not in memory:
            return self
        step, level, rows = (int(v) for v in memory[AT])
        return replace(self, step=step, level=level, rows=rows)

    @property
    def _layout(self) -> Layout:
        if self.layout is None:
            raise LocalError("a rule for trees that was not told of the forest")
        return self.layout
