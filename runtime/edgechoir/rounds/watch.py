"""How a run is going, as far as the rows held out on the devices tell: the best version so far,
patience, divergence.

A version is measured in the round after it was made, before it is trained on. It is better than
another by its accuracy, where it classifies, and then by its loss. It has diverged when the loss
has been above `diverged_factor` times the lowest for `diverged_rounds` rounds in a row.
"""

from dataclasses import dataclass, replace
from typing import Final

from edgechoir.learning.fixed_point import Total
from edgechoir.learning.state import State

FLOOR: Final = 0.01
"""A lowest loss below this counts as this: noise around nothing is no divergence."""


@dataclass(frozen=True, slots=True)
class Best:
    """A version and how it did."""

    version: int
    state: State
    loss: float | None
    accuracy: float | None

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better."""
        loss = float("inf") if self.loss is None else self.loss
        return -1.0 if self.accuracy is None else self.accuracy, -loss


@dataclass(frozen=True, slots=True)
class Watch:
    """`lowest` is the least loss so far, `stale` the rounds since it last fell by enough, `bad`
    those in a row that were far above it, `rollbacks` how often that led back to the best."""

    best: Best | None = None
    lowest: float = float("inf")
    stale: int = 0
    bad: int = 0
    rollbacks: int = 0

    def seen(
        self, version: int, state: State, total: Total, min_gain: float, factor: float
    ) -> "Watch":
        """After a round that measured `version`."""
        if total.loss is None and total.accuracy is None:
            return self  # without rows held out there is nothing to tell by
        far = total.loss is not None and total.loss > factor * max(self.lowest, FLOOR)
        best = Best(version, state, total.loss, total.accuracy)
        # A model that diverges may guess more of a few rows right than one that has not learnt.
        if self.best is not None and (far or self.best.rank >= best.rank):
            best = self.best
        if total.loss is None:
            return replace(self, best=best)
        return replace(
            self,
            best=best,
            lowest=min(self.lowest, total.loss),
            stale=0 if total.loss < self.lowest - min_gain else self.stale + 1,
            bad=self.bad + 1 if far else 0,
        )
