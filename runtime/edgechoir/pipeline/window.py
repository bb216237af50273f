"""The last samples of each key as one sample: by count, or by time.

The window's sample has the key, time and label of its newest one. Its values are the rows [n, ...]
in order of arrival, or summaries of them (`summary.py`).
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from edgechoir.errors import OperatorError, OutOfOrder, WrongShape
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.keyed import Keyed
from edgechoir.pipeline.operators import Routed
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.summary import summarise
from edgechoir.types import Floats

MAX_ROWS: Final = 10_000


class _Rows:
    """The last n rows, always in one contiguous stretch: twice the room, moved once every n + 1."""

    __slots__ = ("end", "room", "seen")

    def __init__(self) -> None:
        self.room: Floats | None = None
        self.end = 0
        self.seen = 0

    def add(self, x: Floats, n: int) -> None:
        if self.room is None:
            self.room = np.empty((2 * n, *x.shape), dtype=np.float32)
        if self.end == 2 * n:
            self.room[: n - 1] = self.room[n + 1 :]
            self.end = n - 1
        self.room[self.end] = x
        self.end += 1
        self.seen += 1

    def add_many(self, newest: Floats, added: int, n: int) -> None:
        """`added` rows came at once; `newest` are the last of all, n if there are so many."""
        if self.room is None:
            self.room = np.empty((2 * n, *newest.shape[1:]), dtype=np.float32)
        self.room[: len(newest)] = newest
        self.end = len(newest)
        self.seen += added


class CountWindow:
    """The last `count` samples of a key, given out every `step` samples once there are so many.

    Values: [count, ...], [count * f] with `flatten`, or [k * f] for k names in `summary`.
    """

    def __init__(
        self, count: int, step: int = 1, *, summary: Sequence[str] = (), flatten: bool = False
    ) -> None:
        """Raises OperatorError: a size out of range, or an unknown summary."""
        if not (1 <= count <= MAX_ROWS and step >= 1):
            raise OperatorError(
                f"count is {count}, step {step}: use 1 to {MAX_ROWS}, and 1 or more"
            )
        self._count, self._step, self._flatten = count, step, flatten
        self._reduce = summarise(summary) if summary else None
        self._rows: Keyed[_Rows] = Keyed(_Rows)

    def __call__(self, sample: Sample) -> Sample | None:
        """Raises WrongShape: another shape than those before; the key's window starts anew."""
        rows, n = self._rows[sample.key], self._count
        if rows.room is not None and sample.x.shape != rows.room.shape[1:]:
            self._rows.forget(sample.key)  # else one odd sample at the start would bar all others
            raise WrongShape(f"{sample.x.shape} values, but before {rows.room.shape[1:]}")
        rows.add(sample.x, n)
        if rows.seen < n or (rows.seen - n) % self._step or rows.room is None:
            return None
        return Sample(
            sample.key, sample.time, self._made(rows.room[rows.end - n : rows.end]), sample.y
        )

    def block(self, block: Block) -> list[Sample | Routed]:
        """The windows that end in the block. Raises WrongShape: each must be taken alone."""
        rows, n = self._rows[block.key], self._count
        if rows.room is not None and block.x.shape[1:] != rows.room.shape[1:]:
            raise WrongShape(f"{block.x.shape[1:]} values, but before {rows.room.shape[1:]}")
        before = min(rows.seen, n - 1)
        seen = block.x
        if before and rows.room is not None:
            seen = np.concatenate([rows.room[rows.end - before : rows.end], block.x])
        # Row i of the block is row i + before of `seen`, and the (rows.seen + i + 1)th of the key.
        first = max(n - rows.seen - 1, (n - rows.seen - 1) % self._step)
        labels = None if block.y is None else block.y.tolist()
        times = block.time.tolist()
        given: list[Sample | Routed] = []
        for i in range(first, len(block), self._step):
            end = i + before + 1
            y = None if labels is None else labels[i]
            given.append(Sample(block.key, times[i], self._made(seen[end - n : end]), y))
        rows.add_many(seen[-n:], len(block), n)
        return given

    def _made(self, rows: Floats) -> Floats:
        if self._reduce is not None:
            return self._reduce(rows)
        return rows.reshape(-1).copy() if self._flatten else rows.copy()


class _Span:
    __slots__ = ("first", "given", "rows")

    def __init__(self) -> None:
        self.rows: deque[tuple[float, Floats]] = deque(maxlen=MAX_ROWS)
        self.first: float | None = None
        self.given = float("-inf")


class TimeWindow:
    """Summaries [k * f] of a key's samples in the last `seconds`, at most every `every` seconds.

    Time is the samples' own. The first window comes when the key has been heard for `seconds`. A
    sample older than the newest is refused (`order.py` puts late ones in their place before); one
    older than the whole window means that the clock was set back: the window starts anew. After a
    gap, or a clock set forward, it holds what came since: never samples of before. A key faster
    than `MAX_ROWS` per window keeps its newest rows.
    """

    def __init__(self, seconds: float, every: float = 0.0, *, summary: Sequence[str]) -> None:
        """Raises OperatorError: a time out of range, or no or an unknown summary."""
        if not (seconds > 0 and every >= 0):
            raise OperatorError(
                f"seconds is {seconds}, every {every}: use more than 0, and 0 or more"
            )
        if not summary:
            raise OperatorError("a window by time needs a summary: its number of samples varies")
        self._seconds, self._every = seconds, every
        self._reduce = summarise(summary)
        self._spans: Keyed[_Span] = Keyed(_Span)

    def __call__(self, sample: Sample) -> Sample | None:
        """Raises OutOfOrder; WrongShape: another shape than before; the window starts anew."""
        span, now = self._spans[sample.key], sample.time
        if span.rows and now < span.rows[-1][0]:
            if now > span.rows[-1][0] - self._seconds:
                raise OutOfOrder(f"{sample.key}: {now} is before {span.rows[-1][0]}")
            self._spans.forget(sample.key)
            span = self._spans[sample.key]
        while span.rows and span.rows[0][0] <= now - self._seconds:
            span.rows.popleft()
        if span.rows and sample.x.shape != span.rows[-1][1].shape:
            self._spans.forget(sample.key)
            raise WrongShape(f"{sample.x.shape} values, but before {span.rows[-1][1].shape}")
        span.rows.append((now, sample.x))
        if span.first is None:
            span.first = now
        if now - span.first < self._seconds or now - span.given < self._every:
            return None
        span.given = now
        return Sample(sample.key, now, self._reduce(np.stack([x for _, x in span.rows])), sample.y)
