"""What waits for the model: a bounded queue by priority, with a rule for what goes when it is full.

It has no clock and no loop. Of requests with the same priority the first to come is the first out.
"""

from collections import deque
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Generic, TypeVar

T = TypeVar("T")


class Priority(IntEnum):
    """What goes first. The lower number does."""

    LIVE = 0
    """A sample that somebody waits for."""
    BULK = 1
    """What can wait: an evaluation, a statistic, a replay."""


class WhenFull(Enum):
    """Which request a full queue drops, of the lowest priority among those that wait and the new.

    The value is the word in a configuration.
    """

    NEWEST = "newest"
    """The last to come. Who was promised a place keeps it."""
    OLDEST = "oldest"
    """The first to come: its answer would be the most out of date."""


@dataclass(slots=True)
class Waiting(Generic[T]):
    """At most `bound` requests."""

    bound: int
    when_full: WhenFull = WhenFull.NEWEST
    _lines: tuple[deque[T], ...] = field(default_factory=lambda: tuple(deque() for _ in Priority))

    def __len__(self) -> int:
        live, bulk = self._lines  # spelt out: this runs with every sample
        return len(live) + len(bulk)

    def put(self, request: T, priority: Priority) -> T | None:
        """Let it wait. Gives what was dropped for it, which may be itself."""
        self._lines[priority].append(request)
        if len(self) <= self.bound:
            return None
        lowest = next(line for line in reversed(self._lines) if line)
        return lowest.popleft() if self.when_full is WhenFull.OLDEST else lowest.pop()

    def take(self) -> T | None:
        """The next one; None where nothing waits."""
        for line in self._lines:
            if line:
                return line.popleft()
        return None

    def peek(self) -> T | None:
        """The next one, which stays."""
        for line in self._lines:
            if line:
                return line[0]
        return None
