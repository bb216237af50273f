"""What a parent has left with the broker, from a broker that gives nothing to a wildcard.

A member subscribes to `<parent>/model/+` and the like. Some brokers (RabbitMQ 3.10) hand a retained
message to a subscription of its very topic alone. So what has said nothing for a while is asked for
by name: its first chunk, and once that says how many there are, the others.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from edgechoir.transport.blobs import read_header
from edgechoir.transport.topics import Topic

WAIT_S: Final = 2.0
"""How long a broker that knows wildcards may take for the first retained chunk."""
MAX_CHUNKS: Final = 4096


class ByName:
    """`run` once the patterns are subscribed to; `hear` every chunk."""

    def __init__(self, subscribe: Callable[[str], Awaitable[None]], wait: float = WAIT_S) -> None:
        self._subscribe = subscribe
        self._wait = wait
        self._heard: set[str] = set()
        self._asked: dict[str, int] = {}
        """Stream -> how many of its chunks were asked for."""

    async def run(self, streams: Iterable[str]) -> None:
        """Ask for the first chunk of those streams that have said nothing."""
        await asyncio.sleep(self._wait)
        for stream in streams:
            if stream not in self._heard:
                self._asked[stream] = 1
                await self._subscribe(f"{stream}/0")

    def hear(self, where: Topic, chunk: bytes) -> range:
        """The chunks to `ask` for now. Raises Malformed for one that is none."""
        stream = where.stream
        self._heard.add(stream)
        asked = self._asked.get(stream)
        if asked is None or not where.rest:
            return range(0)
        count = min(read_header(chunk).count, MAX_CHUNKS)
        self._asked[stream] = max(asked, count)
        return range(asked, count)

    async def ask(self, stream: str, chunks: range) -> None:
        for index in chunks:
            await self._subscribe(f"{stream}/{index}")
