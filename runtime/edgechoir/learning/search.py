"""Which of several settings does best after few rounds: successive halving over equal starts.

All candidates begin at the same state. Each runs a third of the rounds, and the better third of
them all of the rounds, from the start again (Karnin, Koren, Somekh 2013, "Almost Optimal
Exploration in Multi-Armed Bandits", with a factor of three and two rungs). Few candidates run all
rounds at once. A search is a generator: it yields a trial and is sent its score.
"""

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

FACTOR: Final = 3


@dataclass(frozen=True, slots=True)
class Trial:
    """Run candidate number `candidate` for so many rounds from the common start."""

    candidate: int
    rounds: int


@dataclass(frozen=True, slots=True)
class Score:
    """How the model did after its rounds, on rows held out; `reason` says why there is none."""

    accuracy: float | None = None
    loss: float | None = None
    reason: str = ""

    @property
    def rank(self) -> tuple[float, float]:
        """Higher is better: by accuracy, where there is one, and then by loss."""
        known = self.loss is not None and math.isfinite(self.loss)
        return (
            -1.0 if self.accuracy is None else self.accuracy,
            -self.loss if known and self.loss is not None else -math.inf,
        )

    @property
    def usable(self) -> bool:
        """Whether the model can be judged: it has an accuracy, or a finite loss."""
        return self.accuracy is not None or (self.loss is not None and math.isfinite(self.loss))


@dataclass(frozen=True, slots=True)
class Placed:
    """A trial and its score."""

    trial: Trial
    score: Score


Search = Generator[Trial, Score, list[Placed]]


def halving(candidates: int, rounds: int) -> Search:
    """Search among so many. Gives each candidate's longest trial, the best first."""
    everyone = list(range(candidates))
    last: dict[int, Placed] = {}
    few = max(rounds // FACTOR, 1)
    if candidates > FACTOR and few < rounds:
        for candidate in everyone:
            last[candidate] = yield from _run(Trial(candidate, few))
        everyone = _best(last)[: math.ceil(candidates / FACTOR)]
    for candidate in everyone:
        last[candidate] = yield from _run(Trial(candidate, rounds))
    return [last[candidate] for candidate in _best(last)]


def planned(candidates: int, rounds: int) -> int:
    """Training rounds that `halving` takes, with the one more that measures each trial's end."""
    few = max(rounds // FACTOR, 1)
    if candidates > FACTOR and few < rounds:
        return candidates * (few + 1) + math.ceil(candidates / FACTOR) * (rounds + 1)
    return candidates * (rounds + 1)


def _run(trial: Trial) -> Generator[Trial, Score, Placed]:
    score = yield trial
    return Placed(trial, score)


def _best(placed: dict[int, Placed]) -> list[int]:
    """Candidates by the length of their trial and its score; the first of equals."""

    def rank(candidate: int) -> tuple[bool, int, tuple[float, float]]:
        one = placed[candidate]
        return one.score.usable, one.trial.rounds, one.score.rank

    return sorted(placed, key=rank, reverse=True)
