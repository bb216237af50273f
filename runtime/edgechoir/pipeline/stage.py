"""One operator at work: counted, timed, and never able to stop the stream."""

import logging
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgechoir.errors import BadSample
from edgechoir.pipeline.operators import Operator
from edgechoir.pipeline.sample import Sample

log = logging.getLogger(__name__)

MAX_REASONS: Final = 32


@dataclass(frozen=True, slots=True)
class StageStats:
    """`taken` = `given` + held back + dead letters. `seconds` is the time spent in all."""

    name: str
    taken: int
    given: int
    dead: Mapping[str, int]
    seconds: float


class Reasons:
    """Counts by reason. The first of each is logged; the number of reasons is bounded."""

    __slots__ = ("_counts", "_where")

    def __init__(self, where: str) -> None:
        self._where = where
        self._counts: Counter[str] = Counter()

    def add(self, error: Exception, n: int = 1) -> None:
        reason = error.reason if isinstance(error, BadSample) else type(error).__name__
        if reason not in self._counts:
            if len(self._counts) >= MAX_REASONS:
                reason = "other"
            else:
                log.warning(
                    "%s: %s: %s (the next of this kind are counted)", self._where, reason, error
                )
        self._counts[reason] += n

    def counts(self) -> Mapping[str, int]:
        return dict(self._counts)


class Stage:
    """Calls the operator; an error makes the sample a dead letter, counted under its reason."""

    __slots__ = ("_dead", "_given", "_operator", "_seconds", "_taken", "name")

    def __init__(self, name: str, operator: Operator) -> None:
        self.name = name
        self._operator = operator
        self._taken = self._given = 0
        self._seconds = 0.0
        self._dead = Reasons(f"operator {name}")

    def __call__(self, sample: Sample) -> Sample | None:
        self._taken += 1
        started = time.perf_counter()
        try:
            given = self._operator(sample)
        except Exception as error:  # an operator may be the user's code and raise anything
            self._dead.add(error)
            return None
        finally:
            self._seconds += time.perf_counter() - started
        if given is not None:
            self._given += 1
        return given

    def stats(self) -> StageStats:
        return StageStats(self.name, self._taken, self._given, self._dead.counts(), self._seconds)
