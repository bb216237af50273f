"""FedAvgM: v' = momentum * v + D, w' = w + rate * v', with D = sum_i (n_i / n) delta_i
(Hsu et al. 2019, "Measuring the Effects of Non-Identical Data Distribution", section 4.3).

Momentum at the server averages over rounds what each round's mean says about the direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.rule import Training, finite
from edgechoir.learning.state import State
from edgechoir.types import Floats


@dataclass(frozen=True, slots=True)
class FedAvgM(Training):
    """The mean update with momentum; `v` [d] is remembered."""

    rate: float = 1.0
    momentum: float = 0.9
    v: Floats | None = None

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """w + rate * v'. Raises BadUpdate."""
        v = total.delta if self.v is None else finite(self.momentum * self.v, total.delta)
        return replace(self, v=v), replace(state, weights=finite(state.weights, self.rate * v))

    def remember(self) -> Mapping[str, Floats]:
        """v."""
        return {} if self.v is None else {"momentum": self.v}

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """With the v of an earlier process."""
        return replace(self, v=memory.get("momentum"))
