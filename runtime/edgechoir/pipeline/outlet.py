"""A bounded queue in front of something slow: what comes in is never delayed by what goes out."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from edgechoir.pipeline.stage import Reasons

Item = TypeVar("Item")

QUEUE: Final = 1024
BATCH: Final = 64
WRITE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class OutletStats:
    """`dropped` were pushed out by newer ones, or came while it was paused; `failed` by reason.

    `waiting` is the queue now; `seconds` the time spent writing, `worst` the longest for a batch.
    """

    name: str
    written: int
    dropped: int
    failed: Mapping[str, int]
    waiting: int
    seconds: float
    worst: float


class Outlet(Generic[Item]):
    """Hands items to `write` in batches of up to `BATCH`, oldest first.

    When `size` items wait, the oldest is dropped for the next. A write that raises, or takes longer
    than `deadline` seconds, loses its batch; the next one is tried all the same.
    """

    def __init__(
        self,
        name: str,
        write: Callable[[Sequence[Item]], Awaitable[None]],
        size: int = QUEUE,
        deadline: float = WRITE_SECONDS,
    ) -> None:
        self.name = name
        self._write, self._deadline = write, deadline
        self._queue: deque[Item] = deque(maxlen=size)
        self._failed = Reasons(f"sink {name}")
        self._written = self._dropped = 0
        self._seconds = self._worst = 0.0
        self.paused = False
        self._ready = asyncio.Event()
        self._closing = False

    def offer(self, item: Item) -> None:
        if self.paused:
            self._dropped += 1
            return
        if len(self._queue) == self._queue.maxlen:
            self._dropped += 1
        self._queue.append(item)
        self._ready.set()

    def close(self) -> None:
        """No more items come: `run` ends when the queue is empty."""
        self._closing = True
        self._ready.set()

    async def run(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            while self._queue:
                batch = [self._queue.popleft() for _ in range(min(BATCH, len(self._queue)))]
                started = time.perf_counter()
                try:
                    async with asyncio.timeout(self._deadline):
                        await self._write(batch)
                except Exception as error:  # a sink may be the user's code and raise anything
                    self._failed.add(error, len(batch))
                else:
                    self._written += len(batch)
                seconds = time.perf_counter() - started
                self._seconds += seconds
                self._worst = max(self._worst, seconds)
            if self._closing:
                return

    def stats(self) -> OutletStats:
        return OutletStats(
            self.name,
            self._written,
            self._dropped,
            self._failed.counts(),
            len(self._queue),
            self._seconds,
            self._worst,
        )
