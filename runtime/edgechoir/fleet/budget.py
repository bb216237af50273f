"""A token bucket: how often something may happen, in the long run and at once."""

from dataclasses import dataclass


@dataclass(slots=True)
class Budget:
    """`burst` at once, and one more every `every` seconds. Times are of one growing clock."""

    burst: int
    every: float
    left: float = -1.0
    at: float = float("-inf")

    def take(self, now: float) -> bool:
        """Whether it may happen now; if so it is counted."""
        if self.left < 0:
            self.left, self.at = float(self.burst), now
        self.left = min(self.burst, self.left + max(now - self.at, 0.0) / self.every)
        self.at = max(self.at, now)
        if self.left < 1:
            return False
        self.left -= 1
        return True
