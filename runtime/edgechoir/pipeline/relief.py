"""A bounded queue within the stream: what is behind it runs at its own pace.

When it is full, a stated rule says which sample is lost: the oldest that waits (what is behind sees
the newest, as a display or a controller wants it) or the one that comes (what is behind sees an
unbroken stretch). Nothing before it ever waits.
"""

import asyncio
from collections import deque
from typing import Literal

from edgechoir.errors import OperatorError
from edgechoir.pipeline.sample import Sample

Drop = Literal["oldest", "newest"]


class Relief:
    """At most `size` samples wait; `drop` says which one is lost beyond that."""

    def __init__(self, size: int = 64, drop: Drop = "oldest") -> None:
        """Raises OperatorError: a size below 1, or another rule."""
        if size < 1 or drop not in ("oldest", "newest"):
            raise OperatorError(f"size is {size}, drop {drop!r}: use 1 or more, oldest or newest")
        self._size, self._drop = size, drop
        self._queue: deque[Sample] = deque()
        self._ready = asyncio.Event()
        self.dropped = 0

    def __call__(self, sample: Sample) -> None:
        """Takes the sample; it comes out of `take`."""
        if len(self._queue) >= self._size:
            self.dropped += 1
            if self._drop == "newest":
                return
            self._queue.popleft()
        self._queue.append(sample)
        self._ready.set()

    async def take(self) -> Sample:
        """The next sample, when there is one."""
        while not self._queue:
            self._ready.clear()
            await self._ready.wait()
        return self._queue.popleft()

    @property
    def waiting(self) -> int:
        return len(self._queue)

    def finish(self) -> list[Sample]:
        """Everything that waits, at the end of the stream."""
        rest = list(self._queue)
        self._queue.clear()
        return rest
