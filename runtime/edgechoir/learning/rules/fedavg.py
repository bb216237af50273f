"""FedAvg: w' = w + rate * sum_i (n_i / n) delta_i (McMahan et al. 2017, AISTATS, algorithm 1).

Linear in the updates, so a masked sum is all it needs. A `rate` other than 1 is the server's step
size of Reddi et al. 2021 (ICLR, "Adaptive Federated Optimization", algorithm 1 with plain SGD).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Self

from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.rule import Training, finite
from edgechoir.learning.state import State
from edgechoir.types import Floats


@dataclass(frozen=True, slots=True)
class FedAvg(Training):
    """The weighted mean of the updates, nothing remembered."""

    rate: float = 1.0

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """w + rate * mean update. Raises BadUpdate."""
        return self, replace(state, weights=finite(state.weights, self.rate * total.delta))

    def remember(self) -> Mapping[str, Floats]:
        """Nothing."""
        return {}

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """Itself."""
        return self
