"""Example-level privacy on this device: its account, charged before a round's training begins."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from edgechoir.errors import Malformed, OperatorError, PolicyViolation
from edgechoir.learning.privacy.examples import (
    Steps,
    private_steps,
    read_account,
    with_steps,
    write_account,
)
from edgechoir.learning.rules.fednova import FEDNOVA
from edgechoir.learning.rules.scaffold import SCAFFOLD
from edgechoir.learning.task import TRAIN, Task
from edgechoir.store.journal import RoundJournal
from edgechoir.types import FitPlan

NOTE: Final = "examples"
COVERED: Final = frozenset((TRAIN, SCAFFOLD, FEDNOVA))
"""Kinds of task in which all that leaves is made of noisy gradients, and the number of rows."""
Count = Callable[[Sequence[Steps], float], Awaitable[float]]
"""(steps, delta) -> epsilon; the trainer's."""


def check_covered(task: Task) -> None:
    """Raises PolicyViolation for a task that would tell of rows without noise."""
    if task.kind not in COVERED:
        raise PolicyViolation(
            f"a task of kind {task.kind!r} tells of rows without noise; this device's owner wants "
            "noise on every row (privacy.example_clip)"
        )


class ExampleAccount:
    """What a single row of this device has been exposed to, in every round it was trained on.

    `epsilon` is as of the last round; None before one has been trained in by this process.
    """

    def __init__(
        self, journal: RoundJournal, federation: str, delta: float, most: float | None, count: Count
    ) -> None:
        """Raises OperatorError for an account that cannot be read."""
        self._journal, self._federation = journal, federation
        self._delta, self._most, self._count = delta, most, count
        self.epsilon: float | None = None
        kept = journal.noted(federation, NOTE)
        try:
            self._steps = () if kept is None else read_account(kept)
        except Malformed as error:
            raise OperatorError(f"{error}; this device's round journal is damaged") from None

    async def charge(self, rows: int, plan: FitPlan, noise: float) -> None:
        """Write down what training on so many rows as `plan` says will cost.

        Raises PolicyViolation beyond the owner's cap, TrainingError without the library.
        """
        count, share = private_steps(rows, plan.batch_size)
        steps = with_steps(self._steps, Steps(noise, share, count * plan.epochs))
        epsilon = await self._count(steps, self._delta)
        if self._most is not None and epsilon > self._most:
            raise PolicyViolation(
                f"the epsilon of a row would be {epsilon:.3g} at delta {self._delta:g} after this "
                f"round; this device's owner allows {self._most:g}"
            )
        await asyncio.to_thread(self._journal.note, self._federation, NOTE, write_account(steps))
        self._steps, self.epsilon = steps, epsilon
