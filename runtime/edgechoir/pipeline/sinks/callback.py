"""Samples to a function: how a tier publishes answers, or a program acts on them."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence

from edgechoir.pipeline.sample import Sample


class CallbackSink:
    """Calls `callback(sample)` for one after the other; a coroutine function is awaited.

    A plain function may block, so it runs in a thread.
    """

    def __init__(self, name: str, callback: Callable[[Sample], Awaitable[None] | None]) -> None:
        self.name = name
        self._callback = callback
        self._waits = inspect.iscoroutinefunction(callback)

    async def write(self, samples: Sequence[Sample]) -> None:
        if not self._waits:
            await asyncio.to_thread(self._call, samples)
            return
        for sample in samples:
            awaited = self._callback(sample)
            if awaited is not None:
                await awaited

    async def close(self) -> None:
        return None

    def _call(self, samples: Sequence[Sample]) -> None:
        for sample in samples:
            self._callback(sample)
