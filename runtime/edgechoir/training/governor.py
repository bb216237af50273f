"""When training has to wait for inference: while answers take longer than they may.

Asked a few times a second, with the latencies that came since. Training waits while the 99th
percentile of the last second's answers is over its budget, so it goes on a second after the last
slow one. Few answers a second are judged each: one slow one is enough.
"""

from collections import deque
from collections.abc import Iterable
from math import ceil
from typing import Final

WINDOW_S: Final = 1.0
MOST: Final = 4096
"""Latencies looked at; at a higher rate the window is shorter."""


class Governor:
    """Says whether training has to wait. `budget` in seconds bounds the p99 of the answers."""

    def __init__(self, budget: float) -> None:
        self._budget = budget
        self._latest: deque[tuple[float, float]] = deque(maxlen=MOST)

    def __call__(self, latencies: Iterable[float], now: float) -> bool:
        """True while training has to wait. `latencies` in seconds came since the last call."""
        self._latest.extend((now, each) for each in latencies)
        while self._latest and not 0 <= now - self._latest[0][0] < WINDOW_S:
            self._latest.popleft()
        slow = sum(each > self._budget for _, each in self._latest)
        return slow > len(self._latest) - ceil(0.99 * len(self._latest))
