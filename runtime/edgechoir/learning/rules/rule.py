"""What an aggregation rule is: what a round asks of devices, and what its sum makes of the model.

A rule is a frozen value; what it remembers from round to round (a momentum, a control variate) is
part of it, and `following` gives the rule of the next round. It sees the mean over the devices and
nothing else, so it works on masked sums through any number of tiers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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

    @property
    def apart(self) -> bool:
        """Does it need the sum of each child of the root, in `Total.cohorts`?"""

    def lacking(self, members: int) -> str:
        """Why no round may begin with so many children of the root; nothing where one may."""

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """The rule and the global state after a round. Raises BadUpdate."""

    def weighing(
        self, clip: float, max_samples: int, dimension: int, devices: int, bits: int
    ) -> tuple[float, int]:
        """The clip of the plan and the most that a device weighs, of those that were configured."""

    def report(self, total: Total) -> Total:
        """The sum as it is shown to people."""

    def over(self) -> str:
        """Why no further round may follow; nothing while one may."""

    def remember(self) -> Mapping[str, Floats]:
        """What a new process must be told to go on."""

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """This rule, going on from what it remembered. Names it does not know are left out."""


class Plain:
    """What most rules leave as it is: rounds are as configured, and have no end of their own."""

    __slots__ = ()

    @property
    def apart(self) -> bool:
        """The sum over all is enough."""
        return False

    def lacking(self, members: int) -> str:
        """Any number does."""
        return ""

    def weighing(
        self, clip: float, max_samples: int, dimension: int, devices: int, bits: int
    ) -> tuple[float, int]:
        """As configured."""
        return clip, max_samples

    def report(self, total: Total) -> Total:
        """As it is."""
        return total

    def over(self) -> str:
        """Never."""
        return ""


@dataclass(frozen=True, slots=True)
class Training(Plain):
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


@dataclass(frozen=True, slots=True)
class Around:
    """What the rules have in common that stand around another one, `inner`: all is as with it."""

    inner: Rule

    @property
    def apart(self) -> bool:
        """The inner rule's."""
        return self.inner.apart

    def lacking(self, members: int) -> str:
        """The inner rule's."""
        return self.inner.lacking(members)

    def task(self) -> Task:
        """The inner rule's."""
        return self.inner.task()

    def coordinates(self, d: int) -> int:
        """The inner rule's."""
        return self.inner.coordinates(d)

    def weighing(
        self, clip: float, max_samples: int, dimension: int, devices: int, bits: int
    ) -> tuple[float, int]:
        """The inner rule's."""
        return self.inner.weighing(clip, max_samples, dimension, devices, bits)

    def report(self, total: Total) -> Total:
        """The inner rule's."""
        return self.inner.report(total)

    def over(self) -> str:
        """The inner rule's."""
        return self.inner.over()

    def remember(self) -> Mapping[str, Floats]:
        """The inner rule's."""
        return self.inner.remember()

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """With the inner rule's memory."""
        return replace(self, inner=self.inner.recall(memory))


def finite(weights: Floats | Doubles, step: Floats | Doubles | float = 0.0) -> Floats:
    """weights + step [d] as float32. Raises BadUpdate for a result that is not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        following = (weights.astype(np.float64) + step).astype(np.float32)
    if not np.isfinite(following).all():
        raise BadUpdate("the next global model would hold values that are not finite")
    return following
