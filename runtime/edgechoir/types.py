"""Frozen types shared by every part. Nothing here does anything but describe."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final, NewType

import numpy as np
import numpy.typing as npt

from edgechoir.errors import OperatorError

MemberId = NewType("MemberId", str)
Entropy = Callable[[int], bytes]
"""n -> n unpredictable bytes. `os.urandom` in production, a seeded stream in the simulator."""

Floats = npt.NDArray[np.float32]
Reals = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Ring = npt.NDArray[np.uint32] | npt.NDArray[np.uint16] | npt.NDArray[np.uint8]
"""A vector in Z_2^32 or Z_2^16; sums wrap."""

NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


class Tier(Enum):
    """A level of the tree. The value is the word used in topics and certificates."""

    DEVICE = "device"
    NODE = "node"
    EDGE_CLOUD = "edge-cloud"
    CLOUD = "cloud"


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """Who a member is: its tier's word and its id, unique in the federation."""

    tier: str
    member: MemberId

    def __str__(self) -> str:
        return f"{self.tier}/{self.member}"


def member_id(text: str) -> MemberId:
    """Check a name for use as a member or federation id.

    Raises OperatorError: only 1 to 32 of a-z, 0-9 and '-', not at either end.
    """
    if not NAME.fullmatch(text):
        raise OperatorError(
            f"{text!r} is not a valid id: use 1 to 32 characters of a-z, 0-9 and '-', "
            "with a letter or digit at both ends"
        )
    return MemberId(text)


@dataclass(frozen=True, slots=True)
class FitPlan:
    """How a device trains in one round. `learning_rate` > 0; `seed` makes the run repeatable.

    What follows is off at 0 (`training/step.py` has the formula): momentum within the round, L2
    weight decay, the L2 norm that a minibatch's gradient is cut to, the proximal term's weight, the
    teacher's (with its temperature), and example-level privacy (`training/private.py`): the clip of
    a row's gradient, and the noise.
    """

    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.05
    seed: int = 0
    momentum: float = 0.0
    weight_decay: float = 0.0
    max_gradient_norm: float = 0.0
    proximal: float = 0.0
    distil: float = 0.0
    temperature: float = 1.0
    example_clip: float = 0.0
    example_noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Update:
    """What training gives back: delta [s] = trained minus given shared weights, over `n` samples.

    `metrics` holds means over the local hold-out or training rows, by name ("loss", "accuracy").
    `personal` [p] are the trained layers that stay on this device, None where a model has none.
    They are no part of what is sent.
    """

    delta: Floats
    n: int
    steps: int
    metrics: Mapping[str, float]
    personal: Floats | None = None
