"""The bounded inbox of a link: many events fill it, one consumer empties it."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgechoir.transport.link import Message

COST: Final = 200
"""Bytes counted per message beside topic and payload, so that empty ones are bounded too."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message, and what to do when the consumer takes it (acknowledge it to the broker).

    `connection` says over which connection it came; 0 where it does not matter.
    """

    message: Message
    taken: Callable[[], None] | None = None
    connection: int = 0

    @property
    def size(self) -> int:
        return len(self.message.payload) + len(self.message.topic) + COST


class Inbox:
    """Arrivals in order. `put` never refuses; who fills it heeds `full` and `flooded`.

    `full`: no more of what may be dropped. `flooded`: stop reading. Beside `max_messages` that may
    be dropped there is room for as many that the broker waits for: with a broker that heeds our
    window, only large messages can flood the inbox.
    """

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._arrivals: deque[Arrival] = deque()
        self._max_messages = max_messages
        self._max_bytes = max_bytes
        self._bytes = 0
        self._closed = False
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._arrivals)

    @property
    def full(self) -> bool:
        return len(self._arrivals) >= self._max_messages or self._bytes >= self._max_bytes

    @property
    def flooded(self) -> bool:
        return len(self._arrivals) >= 2 * self._max_messages or self._bytes >= self._max_bytes

    def put(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        self._bytes += arrival.size
        self._wake.set()

    def forget_unacknowledged(self, before: int) -> None:
        """Drop what waits for an acknowledgement on connections older than `before`: the broker
        kept the session and sends it again."""
        kept = [a for a in self._arrivals if a.taken is None or a.connection >= before]
        self._arrivals = deque(kept)
        self._bytes = sum(arrival.size for arrival in kept)

    def close(self) -> None:
        """End every `take` that finds nothing."""
        self._closed = True
        self._wake.set()

    async def take(self) -> Message | None:
        """The oldest message; None when the inbox is closed and empty."""
        while not self._arrivals:
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()
        arrival = self._arrivals.popleft()
        self._bytes -= arrival.size
        if arrival.taken:
            arrival.taken()
        return arrival.message
