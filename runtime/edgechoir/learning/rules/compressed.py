"""Updates in a shorter or rounder form (`learning/sketch.py`) around any rule whose devices train.

The clip may follow a quantile of the numbers' sizes: with c of them cut and c* wished for,

    clip <- clip * (max(c, c*/1000) / c*)^GAIN

which is Andrew et al. 2021 (NeurIPS, "Differentially Private Learning with Adaptive Clipping") on
numbers in the place of norms, in the logarithm of c, because c* is small. Near c* a Gaussian's c
falls with the seventh power of the clip, so GAIN = 0.15 takes about one round.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import CLIPS, Total
from edgechoir.learning.rules.rule import Around, Rule
from edgechoir.learning.sketch import ROTATE, SEED, SHARE, Sketch
from edgechoir.learning.state import State
from edgechoir.learning.task import TRAIN, Task
from edgechoir.types import Floats

GAIN: Final = 0.15
LEAST: Final = 1e-3
FACTOR: Final = "compressed"


@dataclass(frozen=True, slots=True)
class Compressed(Around):
    """`inner` on updates that are rotated or thinned out by a seed that changes each round;
    `factor` is what the clip has become, in units of the one that was configured."""

    seed: int = 0
    rotate: bool = False
    sent_share: float = 1.0
    clipped_share: float = 0.0
    factor: float = 1.0

    @property
    def sketch(self) -> Sketch:
        """That of the next round."""
        return Sketch(self.seed, self.rotate, self.sent_share)

    def task(self) -> Task:
        """The inner rule's training, with the form of the updates."""
        work = self.inner.task()
        form = {SEED: self.seed, ROTATE: self.rotate, SHARE: float(self.sent_share)}
        return replace(work, options={**work.options, **form})

    def coordinates(self, d: int) -> int:
        """Those that are sent."""
        return self.sketch.length(self.inner.coordinates(d))

    def weighing(
        self, clip: float, max_samples: int, dimension: int, devices: int, bits: int
    ) -> tuple[float, int]:
        """The inner rule's, with the clip as it has become."""
        clip, most = self.inner.weighing(clip, max_samples, dimension, devices, bits)
        return min(max(clip * self.factor, CLIPS[0]), clip), most

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """The inner rule on what the sketch says. Raises BadUpdate."""
        delta = self.sketch.open(total.delta, self.inner.coordinates(len(state.weights)))
        inner, state = self.inner.following(state, replace(total, delta=delta))
        factor = self.factor
        if wished := self.clipped_share:
            factor *= (max(total.clipped_share, LEAST * wished) / wished) ** GAIN
        return replace(self, inner=inner, seed=self.seed + 1, factor=min(factor, 1.0)), state

    def remember(self) -> Mapping[str, Floats]:
        """The inner rule's, and the clip."""
        return {**self.inner.remember(), FACTOR: np.array([self.factor], np.float32)}

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """With the clip of an earlier process; its seed is a new one."""
        inner, ours = self.inner.recall(memory), memory.get(FACTOR)
        return replace(self, inner=inner, factor=self.factor if ours is None else float(ours[0]))


def make_compressed(inner: Rule, options: Mapping[str, Any]) -> Compressed:
    """A rule on compressed updates. Raises BadUpdate where its devices do more than train."""
    if inner.task().kind != TRAIN:
        raise BadUpdate(
            f"only updates are compressed; this rule's devices do {inner.task().kind!r}"
        )
    return Compressed(inner, **options)
