"""The latest samples that a device inferred on, and what the model said: for questions about drift.

In memory alone, within a bound of rows and bytes; the oldest goes first.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from edgechoir.pipeline.sample import Sample
from edgechoir.types import Floats

MAX_BYTES: Final = 8_000_000


class Recent:
    """A sink that keeps up to `rows` inputs of `shape` and the model's `outputs` of each."""

    name = "recent"

    def __init__(self, rows: int, shape: tuple[int, ...], outputs: int) -> None:
        fit = MAX_BYTES // (4 * (math.prod(shape) + outputs))
        self.rows = max(min(rows, fit), 1)
        self._x: Floats = np.empty((0, *shape), np.float32)
        self._said: Floats = np.empty((0, outputs), np.float32)
        self._at = 0

    async def write(self, samples: Sequence[Sample]) -> None:
        """Keep them in the place of the oldest."""
        for sample in samples:
            if sample.answer is not None:
                self._add(sample.x, sample.answer.values)

    async def close(self) -> None:
        """Nothing is held open."""

    def arrays(self) -> tuple[Floats, Floats]:
        """x [n, *shape] and outputs [n, k], in no order."""
        n = min(self._at, self.rows)
        return self._x[:n].copy(), self._said[:n].copy()

    def _add(self, x: Floats, said: Floats) -> None:
        if self._at < self.rows and self._at == len(self._x):  # grow as it is needed
            more = min(max(len(self._x), 64), self.rows - len(self._x))
            self._x = np.concatenate([self._x, np.empty((more, *self._x.shape[1:]), np.float32)])
            self._said = np.concatenate(
                [self._said, np.empty((more, *self._said.shape[1:]), np.float32)]
            )
        self._x[self._at % self.rows] = x
        self._said[self._at % self.rows] = said
        self._at += 1
