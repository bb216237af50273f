"""The server step that FedAdam, FedYogi and FedAdagrad share (Reddi et al. 2021, ICLR, "Adaptive
Federated Optimization", algorithm 2), with D = sum_i (n_i / n) delta_i:

    m' = beta1 * m + (1 - beta1) * D
    v' = what the rule makes of v and D^2
    w' = w + rate * m' / (sqrt(v') + tau)

m begins as 0 and v as tau^2, as the paper's v_{-1} >= tau^2 asks. Like the paper, no rule corrects
m's bias towards 0 unless it is told to: the first steps are shorter by 1 - beta1^t.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.rule import Doubles, Training, finite
from edgechoir.learning.state import State
from edgechoir.types import Floats


@dataclass(frozen=True, slots=True)
class Adaptive(Training):
    """`second`: (v [d], D^2 [d]) -> v' [d]. What is remembered is m, v and `steps` done; float32
    after each round, so that a process that starts anew goes on with the same numbers."""

    rate: float
    beta1: float
    tau: float
    second: Callable[[Doubles, Doubles], Doubles]
    correct_bias: bool = False
    m: Floats | None = None
    v: Floats | None = None
    steps: int = 0

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """w + rate * m' / (sqrt(v') + tau). Raises BadUpdate."""
        d = finite(total.delta).astype(np.float64)
        before = 0.0 if self.m is None else self.m.astype(np.float64)
        m = self.beta1 * before + (1 - self.beta1) * d
        v = np.full_like(d, self.tau**2) if self.v is None else self.v.astype(np.float64)
        v = self.second(v, d * d)
        steps = self.steps + 1
        bias = 1 - self.beta1**steps if self.correct_bias else 1.0
        weights = finite(state.weights, self.rate / bias * m / (np.sqrt(v) + self.tau))
        rule = replace(self, m=finite(m), v=finite(v), steps=steps)
        return rule, replace(state, weights=weights)

    def remember(self) -> Mapping[str, Floats]:
        """m, v and the number of steps."""
        if self.m is None or self.v is None:
            return {}
        return {"m": self.m, "v": self.v, "steps": np.array([self.steps], np.float32)}

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """With the moments of an earlier process; with none of them unless all are there."""
        m, v, steps = (memory.get(name) for name in ("m", "v", "steps"))
        if m is None or v is None or steps is None:
            return replace(self, m=None, v=None, steps=0)
        return replace(self, m=m, v=v, steps=int(steps[0]))
