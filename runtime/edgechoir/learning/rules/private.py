"""Client-level privacy around another rule: what the members' own noise asks of the root.

A device clips its update to a bound C and adds noise of z C before it masks (`privacy/terms.py`;
DP-FedAvg of McMahan et al. 2018, ICLR, with the noise distributed as in Kairouz et al. 2021, ICML).
The root learns the noisy mean, hands it to the inner rule, moves C after the quantile of the norms,
adds up what the rounds have cost and ends the run before it costs more than it may.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Total
from edgechoir.learning.privacy.budget import epsilon
from edgechoir.learning.privacy.clipping import next_bound
from edgechoir.learning.privacy.terms import BOUND, EXTRAS, NOISE, Terms, open_mean
from edgechoir.learning.rules.rule import Around, Rule
from edgechoir.learning.state import State
from edgechoir.learning.task import TRAIN, Task
from edgechoir.types import Floats


@dataclass(frozen=True, slots=True)
class Private(Around):
    """`inner` under noise `z`, from the norm `bound` on; `spent` is rho, the cost so far.

    `quantile` of the updates shall lie within the bound, which follows at `rate` (0: it stays). The
    bound grows up to `max_bound`. The run ends before epsilon at `delta` exceeds `max_epsilon`.
    """

    z: float
    bound: float
    quantile: float = 0.5
    rate: float = 0.2
    max_bound: float = 100.0
    delta: float = 1e-5
    max_epsilon: float | None = None
    spent: float = 0.0

    @property
    def epsilon(self) -> float:
        """What has been spent so far, for each device that was in every round."""
        return epsilon(self.spent, self.delta)

    @property
    def _terms(self) -> Terms:
        return Terms(self.bound, self.z)

    def task(self) -> Task:
        """The inner rule's training, with what the noise shall be."""
        work = self.inner.task()
        return replace(work, options={**work.options, BOUND: self.bound, NOISE: self.z})

    def coordinates(self, d: int) -> int:
        """The update's, and two figures under the same noise."""
        return self.inner.coordinates(d) + EXTRAS

    def weighing(
        self, clip: float, max_samples: int, dimension: int, devices: int, bits: int
    ) -> tuple[float, int]:
        """Room for the noise, and all devices alike. Raises BadUpdate where the ring has none."""
        return self._terms.clip(dimension, devices, bits), 1

    def report(self, total: Total) -> Total:
        """The update alone, and the accuracy as far as the noise lets it be seen."""
        opened = open_mean(total.delta, self._terms)
        accuracy = min(max(opened.accuracy, 0.0), 1.0)
        return replace(total, delta=opened.delta, accuracy=accuracy)

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """The inner rule's next state, the next bound, and what the round cost."""
        opened = open_mean(total.delta, self._terms)
        inner, state = self.inner.following(state, replace(total, delta=opened.delta))
        bound = next_bound(self.bound, opened.within, self.quantile, self.rate, self.max_bound)
        if not np.isfinite(bound):
            raise BadUpdate(f"the norm bound would be {bound}")
        spent = self.spent + self._cost
        return replace(self, inner=inner, bound=bound, spent=spent), state

    @property
    def _cost(self) -> float:
        return 1 / (2 * self.z**2)

    def over(self) -> str:
        """Why no further round may follow; nothing while one may."""
        if self.max_epsilon is None:
            return ""
        after = epsilon(self.spent + self._cost, self.delta)
        if after <= self.max_epsilon:
            return ""
        return (
            f"epsilon is {self.epsilon:.3g} at delta {self.delta:g}, one more round would make it "
            f"{after:.3g}, above {self.max_epsilon:g}"
        )

    def remember(self) -> Mapping[str, Floats]:
        """The inner rule's, the bound, and what has been spent."""
        # A float32 alone would forget what a cheap round costs beside what many have.
        most = np.float32(self.spent)
        ours = np.array([self.bound, most, self.spent - float(most)], np.float32)
        return {**self.inner.remember(), "privacy": ours}

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """With the budget that an earlier process has spent."""
        inner = self.inner.recall(memory)
        ours = memory.get("privacy")
        if ours is None:
            return replace(self, inner=inner)
        return replace(
            self, inner=inner, bound=float(ours[0]), spent=float(ours[1:].sum(dtype=np.float64))
        )


def make_private(inner: Rule, options: Mapping[str, Any]) -> Private:
    """A private run of a rule. Raises BadUpdate where the rule's devices do not just train."""
    if inner.task().kind != TRAIN:
        raise BadUpdate(f"a private run trains; this rule's devices do {inner.task().kind!r}")
    return Private(inner, **options)


def having_spent(rule: Rule, before: Rule) -> Rule:
    """`rule`, with the budget that `before` has spent of the same devices' privacy."""
    ours, theirs = rule.remember().get("privacy"), before.remember().get("privacy")
    if ours is None or theirs is None:
        return rule
    return rule.recall({**rule.remember(), "privacy": np.array([ours[0], theirs[1]], np.float32)})
