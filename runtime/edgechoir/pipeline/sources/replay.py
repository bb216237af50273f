"""Recorded samples given out again: at a steady rate, or as they were recorded, or scaled.

Ticks lie on a fixed grid of the monotonic clock, so delays do not add up. A consumer that is late
by up to `CATCH_UP` seconds gets the samples of the passed ticks at once; beyond that the grid moves
on, so that a stall is never followed by a flood. No sample is left out. Late ticks are counted.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edgechoir.errors import OperatorError
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sources.recording import Columns, Recording, read_recording

CATCH_UP: Final = 0.25
MAX_BLOCK: Final = 10_000


class Replay:
    """Samples of `path`, once or in a `loop`.

    With `rate` so many a second, each with the time at which it is given. With `speed` the file's
    `time` sets the pace, so many times as fast as recorded, and each sample has its recorded time
    (in a later pass, as if the recording went on). With neither, as fast as they are taken. `block`
    gives so many at once, as a sensor with a buffer does. `seed` shuffles each pass anew.
    """

    def __init__(
        self,
        path: Path,
        rate: float | None = None,
        *,
        x: str | Sequence[str] = "x",
        y: str | None = None,
        time: str | None = None,
        keys: str | None = None,
        speed: float | None = None,
        block: int = 1,
        loop: bool = False,
        seed: int | None = None,
        key: str = "replay",
        clock: Clock | None = None,
    ) -> None:
        """Raises OperatorError: a rate, speed or block out of range, or two that do not agree."""
        if rate is not None and not rate > 0:
            raise OperatorError(f"rate is {rate} samples a second: give a number above 0")
        if speed is not None and (not speed > 0 or time is None or rate is not None):
            raise OperatorError(
                f"speed is {speed}: give a number above 0, the column of the time, and no rate"
            )
        if not 1 <= block <= MAX_BLOCK or (block > 1 and (speed or keys)):
            raise OperatorError(
                f"block is {block}: use 1 to {MAX_BLOCK}, and 1 with speed or with keys"
            )
        if seed is not None and time is not None:
            raise OperatorError("a recording with times is not shuffled: leave out one of the two")
        self._path, self._rate, self._speed, self._block = path, rate, speed, block
        self._columns = Columns(x, y, time, keys)
        self._loop, self._seed, self._key = loop, seed, key
        self._clock = Clock() if clock is None else clock
        self._recording: Recording | None = None
        self._late = 0

    @property
    def counts(self) -> Mapping[str, int]:
        return {"late": self._late} if self._late else {}

    async def __aenter__(self) -> "Replay":
        """Read the file. Raises OperatorError: it is not as declared."""
        self._recording = await asyncio.to_thread(read_recording, self._path, self._columns)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._recording = None

    async def __aiter__(self) -> AsyncIterator[Sample | Block]:
        recording = self._recording
        if recording is None:
            raise OperatorError("the replay is not open: use 'async with'")
        shuffle = None if self._seed is None else np.random.default_rng(self._seed)
        if self._speed is not None:
            async for sample in self._as_recorded(recording, self._speed):
                yield sample
            return
        n, period = len(recording.x), 0.0 if self._rate is None else self._block / self._rate
        due = self._clock.monotonic()
        while True:
            order = np.arange(n) if shuffle is None else shuffle.permutation(n)
            for start in range(0, n, self._block):
                if period:
                    due = await self._tick(due, period)
                if self._block > 1:
                    yield self._many(recording, order[start : start + self._block])
                else:
                    yield self._one(recording, int(order[start]))
            if not self._loop:
                return

    def _one(self, recording: Recording, i: int, time: float | None = None) -> Sample:
        if time is None:
            recorded = recording.time
            time = self._clock.now() if recorded is None else float(recorded[i])
        key = self._key if recording.keys is None else recording.keys[i]
        y = None if recording.y is None else recording.y[i]
        return Sample(key, time, recording.x[i], y)

    def _many(self, recording: Recording, at: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Block:
        if recording.time is not None:
            times = recording.time[at]
        else:
            spacing = 0.0 if self._rate is None else 1 / self._rate
            times = self._clock.now() - spacing * np.arange(len(at) - 1, -1, -1.0)
        labels = None if recording.y is None else np.array([recording.y[i] for i in at.tolist()])
        return Block(self._key, times, recording.x[at], labels)

    async def _as_recorded(self, recording: Recording, speed: float) -> AsyncIterator[Sample]:
        """By the recorded times. Where they go back or stand still, the next comes at once."""
        times = [] if recording.time is None else recording.time.tolist()
        gaps = np.diff(np.array(times))
        spacing = float(np.median(gaps[gaps > 0])) if (gaps > 0).any() else 0.0
        due, shift = self._clock.monotonic(), 0.0
        while True:
            for i, time in enumerate(times):
                if i:
                    due += max(0.0, time - times[i - 1]) / speed
                due = await self._until(due)
                yield self._one(recording, i, time + shift)
            if not self._loop:
                return
            shift += times[-1] - times[0] + spacing
            due += spacing / speed

    async def _until(self, due: float) -> float:
        """Wait for `due`; the time to count on from, later after a stall."""
        behind = self._clock.monotonic() - due
        if behind < 0:
            await self._clock.sleep(-behind)
        elif behind > CATCH_UP:
            self._late += 1
            return due + behind
        return due

    async def _tick(self, due: float, period: float) -> float:
        """Wait for the tick at `due`; the next one's time."""
        behind = self._clock.monotonic() - due
        if behind < 0:
            await self._clock.sleep(-behind)
        elif behind > max(CATCH_UP, period):
            passed = int(behind / period)
            self._late += passed
            due += passed * period
        elif behind > period:
            self._late += 1
        return due + period
