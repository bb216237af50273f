"""The devices' learning rate from round to round; each round's plan carries the rate it has.

constant   rate
cosine     rate * (1 + cos(pi * done / rounds)) / 2     (Loshchilov & Hutter 2017, eq. 5, T_i of
                                                         the whole run and no restarts)
step       rate * factor^(done // every)
"""

import math
from dataclasses import dataclass
from typing import Final, Literal

LEAST: Final = 1e-6
"""No schedule goes below this part of the first rate: a plan's rate is above 0."""

Shape = Literal["constant", "cosine", "step"]


@dataclass(frozen=True, slots=True)
class Rates:
    """One schedule. `rounds` is the run's length, for cosine; `every` and `factor` are for step."""

    kind: Shape = "constant"
    rounds: int = 1
    every: int = 1
    factor: float = 0.5

    def part(self, done: int) -> float:
        """What the first rate is multiplied by once `done` rounds have given a sum."""
        match self.kind:
            case "constant":
                return 1.0
            case "cosine":
                along = min(done / self.rounds, 1.0)
                return max((1 + math.cos(math.pi * along)) / 2, LEAST)
            case "step":
                return max(self.factor ** (done // self.every), LEAST)
