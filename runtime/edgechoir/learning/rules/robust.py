"""A robust estimate in the place of the mean update, around any rule whose devices just train.

The root sees the sum of each of its children (`learning/slots.py`), so it can leave out what a few
bad cohorts of them do: by the median or the trimmed mean of each coordinate, or by Krum. The inner
rule takes the estimate for the mean and does with it what it always does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Self

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.krum import krum
from edgechoir.learning.rules.median import median
from edgechoir.learning.rules.rule import Around, Rule
from edgechoir.learning.rules.trimmed_mean import trimmed_mean
from edgechoir.learning.state import State
from edgechoir.learning.task import TRAIN
from edgechoir.types import Floats

Estimate = Literal["median", "trimmed-mean", "krum"]
ROUNDING: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Robust(Around):
    """`inner` on an estimate that up to `bad_share` of the cohorts, rounded up, cannot spoil.

    `keep` cohorts are in Krum's mean, 0: as many as it allows; `weighted`: by their samples.
    """

    estimate: Estimate = "median"
    bad_share: float = 0.2
    keep: int = 0
    weighted: bool = True

    @property
    def apart(self) -> bool:
        """Yes."""
        return True

    def bad(self, cohorts: int) -> int:
        """How many of so many are taken for bad at most."""
        return math.ceil(self.bad_share * cohorts - ROUNDING)

    def lacking(self, members: int) -> str:
        """Why so many cohorts are too few."""
        bad = self.bad(members)
        needed = 2 * bad + (3 if self.estimate == "krum" else 1)
        if members >= max(needed, 3):
            return self.inner.lacking(members)
        return (
            f"{members} cohorts beneath the root, of which {bad} may be bad: {self.estimate} needs "
            f"{max(needed, 3)} to tell them from the others"
        )

    def of(self, total: Total) -> Floats:
        """The estimate of the mean update [d]. Raises BadUpdate for too few cohorts."""
        n = len(total.cohorts)
        if lacking := self.lacking(n):
            raise BadUpdate(lacking)
        updates = np.array([one.delta for one in total.cohorts], np.float64)
        weights = np.array([one.samples if self.weighted else 1 for one in total.cohorts], float)
        bad = self.bad(n)
        match self.estimate:
            case "median":
                found = median(updates)
            case "trimmed-mean":
                found = trimmed_mean(updates, weights, bad)
            case "krum":
                most = n - bad - 2
                found = krum(updates, weights, bad, min(self.keep or most, most))
        return found.astype(np.float32)

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """The inner rule on the estimate. Raises BadUpdate."""
        inner, state = self.inner.following(state, replace(total, delta=self.of(total)))
        return replace(self, inner=inner), state


def make_robust(inner: Rule, options: Mapping[str, Any]) -> Robust:
    """A robust run of a rule. Raises BadUpdate where its devices do more than train."""
    if inner.task().kind != TRAIN:
        raise BadUpdate(f"a robust run trains; this rule's devices do {inner.task().kind!r}")
    return Robust(inner, **options)
