"""Federated distillation: devices with models of any shape learn from what all of them say of a
shared set of samples (Li & Wang 2019, "FedMD"; Lin et al. 2020, NeurIPS, "FedDF"), of which only
the mean is ever seen:

    teacher = sum_i p_i z_i        z_i [m, k] what model i says of the m shared samples
    w_i <- w_i - eta gradient of (F_i(w_i) + weight T^2 KL(softmax(teacher/T) || softmax(z_i/T)))

For a regression the second term is weight times the mean squared difference. The global state is
the teacher: it takes the place of a model's weights in all that is published, hashed and kept. It
begins as zeros, which say nothing, and are not learnt from.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np

from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.rule import Plain, finite
from edgechoir.learning.state import State
from edgechoir.learning.task import Task
from edgechoir.types import Floats

DISTIL: Final = "distil"


@dataclass(frozen=True, slots=True)
class Distil(Plain):
    """`size` m * k of the teacher; `shared` is the hash of the samples it is about."""

    size: int = 1
    shared: str = ""
    weight: float = 1.0
    temperature: float = 2.0

    def first(self) -> State:
        """A teacher that says nothing yet."""
        return State(np.zeros(self.size, np.float32))

    def task(self) -> Task:
        """Training with a teacher."""
        how = {"distil": self.weight, "temperature": self.temperature}
        return Task(DISTIL, {"shared": self.shared, **how})

    def coordinates(self, d: int) -> int:
        """What a model says of the shared set."""
        return self.size

    def following(self, state: State, total: Total) -> tuple[Self, State]:
        """The mean is the next teacher. Raises BadUpdate."""
        return self, replace(state, weights=finite(total.delta))

    def remember(self) -> Mapping[str, Floats]:
        """Nothing."""
        return {}

    def recall(self, memory: Mapping[str, Floats]) -> Self:
        """Itself."""
        return self


def shared_hash(x: Floats) -> str:
    """SHA-256 of a shared set x [m, ...], its shape included."""
    shape = ",".join(map(str, x.shape)).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(x, "<f4").tobytes()).hexdigest()


def centred(logits: Floats) -> Floats:
    """Logits [m, k] less their mean over the classes: the softmax is the same, the clip smaller."""
    out: Floats = logits - logits.mean(1, keepdims=True)
    return out
