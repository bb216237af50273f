"""What an aggregator between devices and root may tell of the model: how it does on its own cohort.

The figures are those of the sum that it has anyway. They are shown only where devices enough are in
it: of two, each would learn the other's by taking its own away.
"""

import math
from dataclasses import dataclass
from typing import Final

from edgechoir import wire
from edgechoir.errors import RemoteError
from edgechoir.learning.privacy.terms import terms_of
from edgechoir.learning.task import read_task
from edgechoir.rounds.epoch import encoding_of
from edgechoir.types import Ring

FEWEST: Final = 3
"""Devices in a cohort whose figures are shown."""
SQUARED: Final = "squared"
"""Option of a task whose devices measure a mean squared error: a regression."""


@dataclass(frozen=True, slots=True)
class Cohort:
    """How the model that a round began with does on the rows held out beneath."""

    round: int
    accuracy: float | None
    loss: float | None
    rmse: float | None


def cohort_of(plan: wire.Plan, total: Ring) -> Cohort | None:
    """The figures in a cohort's sum; None for a sum that has none, or of too few devices, and in a
    private round, where those of so few are noise."""
    try:
        task = read_task(plan.task)
        if terms_of(task) is not None:
            return None
        seen = encoding_of(plan).decode(total)
        squared = task.get(SQUARED, False)
    except RemoteError:  # the sum is handed up as it is, and the root says what is wrong
        return None
    if seen.loss is None or seen.devices < FEWEST:
        return None
    rmse = math.sqrt(seen.loss) if squared else None
    return Cohort(plan.round, None if squared else seen.accuracy, seen.loss, rmse)
