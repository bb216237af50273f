"""FedNova: updates normalised by what each device did (Wang et al. 2020, NeurIPS, "Tackling the
Objective Inconsistency Problem", eq. 6 and 7), so that more local steps do not weigh more:

    d_i = delta_i / tau_i,  tau_eff = sum_i p_i tau_i
    w'  = w + rate * tau_eff * sum_i p_i d_i

tau_i = ||a_i||_1 of the device's steps: their number for plain SGD, more with momentum, less with a
proximal term. Both sums come out of one vector: the d_i, and tau_i as one more coordinate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.rule import Plain, finite
from edgechoir.learning.state import State
from edgechoir.learning.task import Task
from edgechoir.types import Floats

FEDNOVA: Final = "fednova"


@dataclass(frozen=True, slots=True)
class FedNova(Plain):
    """`clip` is the round's; `unit` steps are what a normalised update is sent for, the fewest that
    a device can have taken; `most` is the largest tau there is (more counts as that)."""

    clip: float = 1.0
    unit: int = 1
    most: float = 10_000.0
    rate: float = 1.0

    def task(self) -> Task:
        """Training whose update is normalised."""
        return Task(FEDNOVA, {"unit": self.unit, "most": self.most})

    def coordinates(self, d: int) -> int:
        """The update and tau."""
        return d + 1

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """w + rate * tau_eff * mean of d_i. Raises BadUpdate."""
        tau = float(total.delta[-1]) * self.most / self.clip
        if not 0 < tau <= 1.01 * self.most:
            raise BadUpdate(f"{tau:g} effective steps in the mean, expected up to {self.most:g}")
        step = total.delta[:-1].astype(np.float64) * (self.rate * tau / self.unit)
        return self, State(finite(state.weights, step), state.aux)

    def remember(self) -> Mapping[str, Floats]:
        """Nothing."""
        return {}

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """Itself."""
        return self


def effective_steps(steps: int, rate: float, momentum: float = 0.0, mu: float = 0.0) -> float:
    """||a||_1 of `steps` local steps: how far they go along a gradient that stays 1, in units of
    the rate. With momentum it is section 4's (steps - momentum (1 - momentum^steps) /
    (1 - momentum)) / (1 - momentum), with a proximal term (1 - (1 - rate mu)^steps) / (rate mu)."""
    velocity = gone = 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1 - mu * rate * gone
        gone += velocity
    return gone


def normalised(delta: Floats, tau: float, clip: float, unit: int, most: float) -> Floats:
    """A device's vector [d + 1]."""
    tau = min(tau, most)
    return np.append(delta * np.float32(unit / tau), np.float32(clip * tau / most))
