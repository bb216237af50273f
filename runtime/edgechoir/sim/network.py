"""A virtual clock, and messages that may be lost, doubled, late or out of order."""

import heapq
import random
from collections.abc import Callable

from edgechoir.sim.faults import Faults

RECONNECT_S = 4.0
"""A lost message of a retained channel comes again with the reader's next subscription."""
STRAY_S = 12.0
CALM_S = (0.001, 0.05)


class Network:
    """Runs actions in the order of virtual time; ties in the order they were asked for."""

    def __init__(self, faults: Faults, chance: random.Random) -> None:
        self.now = 1_000_000.0
        self.began = self.now
        self._faults = faults
        self._chance = chance
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    @property
    def elapsed(self) -> float:
        return self.now - self.began

    @property
    def faulty(self) -> bool:
        """Whether faults may happen now."""
        return self._faults.since <= self.elapsed < self._faults.until

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Run an action `delay` seconds from now."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay, self._count, action))

    def carry(self, deliver: Callable[[], None], *, retained: bool = False) -> None:
        """Deliver a message, or not, or twice."""
        faults, chance = self._faults, self._chance
        if not self.faulty:
            self.after(chance.uniform(*CALM_S), deliver)
            return
        if chance.random() < faults.loss:
            if retained:
                self.after(RECONNECT_S, deliver)
            return
        self.after(self._delay(), deliver)
        if chance.random() < faults.duplication:
            self.after(self._delay(), deliver)

    def _delay(self) -> float:
        if self._chance.random() < self._faults.stray:
            return self._chance.uniform(1.0, STRAY_S)
        return self._chance.uniform(*self._faults.delay)

    def run(self, until: float, finished: Callable[[], bool]) -> None:
        """Go on until nothing is left to do, `finished` says so, or `until` seconds have passed."""
        while self._queue and not finished():
            at, _, action = self._queue[0]
            if at - self.began > until:
                return
            heapq.heappop(self._queue)
            self.now = at
            action()
