"""Late samples put back in their place, by the samples' own time.

A radio that buffers, or two sensors on one bus, give samples a little out of order. `Reorder` holds
each for `seconds` of event time: it is given out once a sample so much newer has come, in order of
time. What comes later than that is a dead letter, "late". A time further than `jump` from the
newest one is no lateness: the clock was set. What is held is given out and order begins anew there,
so that neither a wrong year nor its correction stops the stream.
"""

import heapq
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from edgechoir.errors import OperatorError, OutOfOrder
from edgechoir.pipeline.keyed import Keyed
from edgechoir.pipeline.operators import Routed
from edgechoir.pipeline.sample import Sample

MAX_HELD: Final = 10_000
JUMP: Final = 60.0


@dataclass(slots=True)
class _Held:
    waiting: list[tuple[float, int, Sample]] = field(default_factory=list)
    newest: float = float("-inf")
    given: float = float("-inf")


class Reorder:
    """Samples of each key in order of their time, `seconds` later.

    At most `MAX_HELD` of a key are held: then the oldest goes out before its time.
    """

    def __init__(self, seconds: float, jump: float | None = None) -> None:
        """Raises OperatorError: `seconds` is not above 0, or `jump` is smaller."""
        self._seconds = seconds
        self._jump = max(JUMP, 10 * seconds) if jump is None else jump
        if not 0 < seconds <= self._jump:
            raise OperatorError(
                f"seconds is {seconds}, jump {self._jump}: use above 0, and no smaller jump"
            )
        self._held: Keyed[_Held] = Keyed(_Held)
        self._counter = count()  # so that equal times keep their order of arrival
        self.jumps = 0

    def __call__(self, sample: Sample) -> list[Sample | Routed]:
        """Raises OutOfOrder: one newer by more than `seconds` has come before."""
        held, now = self._held[sample.key], sample.time
        given: list[Sample | Routed] = []
        if held.newest != float("-inf") and abs(now - held.newest) > self._jump:
            self.jumps += 1
            given = [heapq.heappop(held.waiting)[2] for _ in range(len(held.waiting))]
            held.newest = held.given = float("-inf")
        elif now < held.given or now < held.newest - self._seconds:
            raise OutOfOrder(f"{sample.key}: {held.newest - now:g} s late, waits {self._seconds:g}")
        held.newest = max(held.newest, now)
        heapq.heappush(held.waiting, (now, next(self._counter), sample))
        while held.waiting and (
            held.waiting[0][0] <= held.newest - self._seconds or len(held.waiting) > MAX_HELD
        ):
            held.given, _, oldest = heapq.heappop(held.waiting)
            given.append(oldest)
        return given

    def finish(self) -> list[Sample | Routed]:
        """What is still held, at the end of the stream."""
        rest: list[Sample | Routed] = []
        for held in self._held.values():
            rest += [heapq.heappop(held.waiting)[2] for _ in range(len(held.waiting))]
        return rest
