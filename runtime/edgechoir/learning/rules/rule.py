"""What an aggregation rule is: what a round asks of devices, and what its sum makes of the model.

A rule is a frozen value; what it remembers from round to round (a momentum, a control variate) is
part of it, and `following` gives the rule of the next round. It sees the mean over the devices and
nothing else, so it works on masked sums through any number of tiers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Total
from edgechoir.learning.state import State
from edgechoir.learning.task import TRAIN, Option, Task
from edgechoir.types import Floats

Doubles = npt.NDArray[np.float64]


class Rule(Protocol):
    """One aggregation rule with what it remembers."""

    def task(self) -> Task:
        """The work that the next round asks of every device."""

    def coordinates(self, d: int) -> int:
        """Coordinates of a device's vector, for a model of d parameters."""

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """The rule and the global state after a round. Raises BadUpdate."""

    def remember(self) -> Mapping[str, Floats]:
        """What a new process must be told to go on."""

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """This rule, going on from what it remembered. Names it does not know are left out."""


@dataclass(frozen=True, slots=True)
class Training:
    """What the rules have in common whose devices train and send their update, nothing else.

    `local` holds options of the task: what a device's objective has beside the loss.
    """

    local: Mapping[str, Option] = field(default_factory=dict, kw_only=True)

    def task(self) -> Task:
        """Training."""
        return Task(TRAIN, self.local)

    def coordinates(self, d: int) -> int:
        """One for each parameter."""
        return d


def finite(weights: Floats | Doubles, step: Floats | Doubles | float = 0.0) -> Floats:
    """weights + step [d] as float32. Raises BadUpdate for a result that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        following = (weights.astype(np.float64) + step).astype(np.float32)
    if not np.isfinite(following).all():
        raise BadUpdate("the next global model would hold values that are not finite")
    return following
