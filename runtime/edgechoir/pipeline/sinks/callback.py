"""Answers to an async function: how a tier publishes them, or a program acts on them."""

from collections.abc import Awaitable, Callable, Sequence

from edgechoir.pipeline.sink import Answer


class CallbackSink:
    """Awaits `callback(answer)` for one answer after the other."""

    def __init__(self, name: str, callback: Callable[[Answer], Awaitable[None]]) -> None:
        self.name = name
        self._callback = callback

    async def write(self, answers: Sequence[Answer]) -> None:
        for answer in answers:
            await self._callback(answer)

    async def close(self) -> None:
        return None
