"""What a device keeps from round to round (a control variate, what it has not sent yet) moves on
only once it is known that the round it belongs to went with this device: its upload has left, and a
model made by that very round has come. Until then the new vector lies beside the old one.
"""

from typing import Final

from edgechoir.learning.rules.scaffold import CONTROL
from edgechoir.tiers.desk import Keeper
from edgechoir.types import Floats

RESIDUAL: Final = "residual"
"""What a device has not sent yet of its updates."""
NAMES: Final = (CONTROL, RESIDUAL)


def hold(kept: Keeper, name: str, vector: Floats, round_: int) -> None:
    """Keep what `name` becomes if this round ends well. Raises OperatorError."""
    kept.put(pending(name), vector, round_)


def settle(kept: Keeper, made_by: int, uploaded: int) -> None:
    """A model made by the round `made_by` is here, `uploaded` is the last round sent to: move on,
    or leave it. Raises OperatorError."""
    for name in NAMES:
        waiting = kept.get(pending(name))
        if waiting is None:
            continue
        vector, round_ = waiting
        if round_ == made_by == uploaded:
            kept.put(name, vector, round_)
        if round_ <= made_by:
            kept.drop(pending(name))


def pending(name: str) -> str:
    """The name that it waits under."""
    return f"{name}-pending"
