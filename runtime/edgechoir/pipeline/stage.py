"""One operator at work: counted, timed, and never able to stop the stream."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from edgechoir.errors import BadSample
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.operators import Given, Operator, Routed, union
from edgechoir.pipeline.sample import Sample

log = logging.getLogger(__name__)

MAX_REASONS: Final = 32
DEAD_KEPT: Final = 8
"""Dead letters kept of each operator, to look at."""
VALUES_KEPT: Final = 16

_clock = time.perf_counter


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A sample that an operator could not take; of its values, the first `VALUES_KEPT`."""

    key: str
    time: float
    values: tuple[float, ...]
    error: str


@dataclass(frozen=True, slots=True)
class StageStats:
    """`taken` = held back + dead letters + samples that something came of.

    `given` counts what came out, which may be more than went in. `seconds` is the time spent in
    all, `worst` the longest for one sample or block.
    """

    name: str
    kind: str
    taken: int
    given: int
    dead: Mapping[str, int]
    seconds: float
    worst: float
    paused: bool


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
    """Calls the operator; an error makes the sample a dead letter, counted under its reason.

    A paused stage holds everything back: what reaches it is counted in `taken` and goes no further.
    """

    __slots__ = (
        "_block", "_dead", "_given", "_letters", "_operator", "_seconds", "_taken", "_worst",
        "kind", "name", "paused",
    )  # fmt: skip

    def __init__(self, name: str, operator: Operator, kind: str = "operator") -> None:
        self.name, self.kind = name, kind
        self.paused = False
        self._operator = operator
        self._block: Callable[[Block], Given] | None = getattr(operator, "block", None)
        self._taken = self._given = 0
        self._seconds = self._worst = 0.0
        self._dead = Reasons(f"operator {name}")
        self._letters: deque[DeadLetter] = deque(maxlen=DEAD_KEPT)

    def __call__(self, sample: Sample) -> Given:
        self._taken += 1
        if self.paused:
            return None
        started = _clock()
        try:
            given = self._operator(sample)
        except Exception as error:  # an operator may be the user's code and raise anything
            self.fail(sample, error)
            given = None
        seconds = _clock() - started
        self._seconds += seconds
        if seconds > self._worst:
            self._worst = seconds
        if isinstance(given, Sample):
            self._given += 1
        elif given is not None:
            self._given += _size(given)
        return given

    def take_block(self, block: Block) -> Given:
        """The same for many samples: at once if the operator can, else one by one."""
        if self._block is None or self.paused:
            return self._one_by_one(block)
        started = _clock()
        try:
            given = self._block(block)
        except Exception:  # whatever is wrong with one of them: each is judged by itself
            return self._one_by_one(block)
        self.count(len(block), given, _clock() - started)
        return given

    def count(self, taken: int, given: Given, seconds: float) -> None:
        """Enter samples that were handled elsewhere."""
        self._taken += taken
        self._given += _size(given)
        self._seconds += seconds
        self._worst = max(self._worst, seconds)

    def fail(self, sample: Sample, error: Exception) -> None:
        """Count a dead letter, and keep it to be looked at."""
        self._dead.add(error)
        values = tuple(map(float, sample.x.reshape(-1)[:VALUES_KEPT]))
        said = f"{type(error).__name__}: {error}"[:200]
        self._letters.append(DeadLetter(sample.key, sample.time, values, said))

    def letters(self) -> list[DeadLetter]:
        """The last dead letters, oldest first."""
        return list(self._letters)

    def stats(self) -> StageStats:
        return StageStats(
            self.name,
            self.kind,
            self._taken,
            self._given,
            self._dead.counts(),
            self._seconds,
            self._worst,
            self.paused,
        )

    def _one_by_one(self, block: Block) -> Given:
        given: list[Sample | Routed] = []
        for sample in block.samples():
            result = self(sample)
            if isinstance(result, list):
                given.extend(result)
            elif isinstance(result, Sample | Routed):
                given.append(result)
            elif result is not None:
                given.extend(result.samples())
        return given


class Passage(Stage):
    """A stage that changes nothing: it counts, and can be paused."""

    __slots__ = ()

    def __init__(self, name: str, kind: str) -> None:
        super().__init__(name, union, kind)

    def __call__(self, sample: Sample) -> Given:
        self._taken += 1
        if self.paused:
            return None
        self._given += 1
        return sample

    def take_block(self, block: Block) -> Given:
        self._taken += len(block)
        if self.paused:
            return None
        self._given += len(block)
        return block


def _size(given: Given) -> int:
    if given is None:
        return 0
    return len(given) if isinstance(given, list | Block) else 1
