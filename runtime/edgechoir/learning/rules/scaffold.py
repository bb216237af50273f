"""SCAFFOLD: control variates against client drift (Karimireddy et al. 2020, ICML, algorithm 1,
option II). Device i steps along g - c_i + c; after K steps of rate eta from x to y_i

    c_i' = c_i - c + (x - y_i) / (K eta)            the mean of its gradients on the way
    x'   = x + rate * sum_S p_i (y_i - x),  c' = c + (W_S / W) sum_S p_i (change_i)

with p_i = w_i / W_S over the devices S in the sum, W_S their weight in samples and W that of all
devices: the most that any round has seen. c travels with the model, c_i never leaves its device.

The paper has change_i = c_i' - c_i, which keeps c equal to the mean of all c_i, and never gets
right again what once was lost: a c_i from a broken disk, a change whose round ended otherwise than
its device believes. So there is a leak,

    change_i = c_i' - (1 - leak) c_i - leak c

which is the same while c is the mean of the c_i of a full round. Else, with e = c minus that mean,
it makes the expectation of e' equal (1 - leak W_S / W) e: an error dies out geometrically. leak = 0
is the paper's rule.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.rule import Plain, finite
from edgechoir.learning.state import State
from edgechoir.learning.task import Task
from edgechoir.types import Floats

SCAFFOLD: Final = "scaffold"
CONTROL: Final = "control"
"""c among the vectors that travel with the model, and c_i among those that a device keeps."""


@dataclass(frozen=True, slots=True)
class Scaffold(Plain):
    """`scale` is what a change is multiplied by on the way, so that it fits the clip of an update:
    the rate of one step makes it as large as that step. `whole` is W."""

    scale: float = 0.05
    rate: float = 1.0
    leak: float = 0.1
    whole: int = 0

    def task(self) -> Task:
        """Training with control variates."""
        return Task(SCAFFOLD, {"scale": self.scale, "leak": self.leak})

    def coordinates(self, d: int) -> int:
        """The update and the change of the control variate."""
        return 2 * d

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """x' and c'. Raises BadUpdate."""
        d = len(state.weights)
        whole = max(self.whole, total.samples)
        c = state.aux.get(CONTROL, np.zeros(d, np.float32)) * np.float32(self.whole / whole)
        change = total.delta[d:].astype(np.float64) * (total.samples / whole / self.scale)
        weights = finite(state.weights, self.rate * total.delta[:d])
        return replace(self, whole=whole), State(weights, {**state.aux, CONTROL: finite(c, change)})

    def remember(self) -> Mapping[str, Floats]:
        """W."""
        return {"whole": np.array([self.whole], np.float32)}

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """With the W of an earlier process."""
        whole = memory.get("whole")
        return self if whole is None else replace(self, whole=int(whole[0]))


def change_of(own: Floats, before: Floats, c: Floats, leak: float) -> Floats:
    """What a device adds to c for c_i' = `own` after c_i = `before`."""
    change: Floats = own - (1 - leak) * before - leak * c
    return change


def own_of(change: Floats, before: Floats, c: Floats, leak: float) -> Floats:
    """The c_i' that a change stands for, where it was cut on its way."""
    own: Floats = change + (1 - leak) * before + leak * c
    return own


def mean_gradient(delta: Floats, steps: int, rate: float) -> Floats:
    """(x - y) / (K eta), for delta = y - x."""
    return -delta / np.float32(steps * rate)
