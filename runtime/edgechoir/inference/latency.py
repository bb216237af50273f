"""Quantiles of the most recent latencies, in bounded memory."""

from array import array
from math import ceil
from typing import Final

WINDOW: Final = 1024


class Latencies:
    """The last `WINDOW` latencies in seconds.

    Recent ones, not all since the start: what reads them (the governor that makes training yield,
    the status document) asks how the device does now.
    """

    __slots__ = ("_count", "_ring")

    def __init__(self) -> None:
        self._ring = array("d")
        self._count = 0

    def add(self, seconds: float) -> None:
        if self._count < WINDOW:
            self._ring.append(seconds)
        else:
            self._ring[self._count % WINDOW] = seconds
        self._count += 1

    def since(self, count: int) -> tuple[int, list[float]]:
        """How many there were so far, and those after the first `count` as far as they are kept."""
        fresh = min(self._count - count, len(self._ring))
        places = (n % WINDOW for n in range(self._count - fresh, self._count))
        return self._count, [self._ring[place] for place in places]

    def quantile(self, q: float) -> float:
        """The smallest latency that at least a share `q` in (0, 1] did not exceed; 0 if none."""
        ranked = sorted(self._ring)
        if not ranked:
            return 0.0
        return ranked[max(0, ceil(len(ranked) * q) - 1)]
