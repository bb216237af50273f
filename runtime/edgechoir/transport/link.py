"""What every link offers, whatever carries it.

A link belongs to one member and one event loop. Publishing with QoS 1 returns when the broker has
taken the message over, or raises; nothing is dropped in silence. What arrives goes through one
bounded inbox, read by one consumer. The rule when the inbox is full: QoS 1 messages are held back
at the broker (they stay unacknowledged until the consumer takes them), QoS 0 messages are dropped
and counted.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Final, Protocol, Self

STATES_KEPT: Final = 16
"""Changes a slow watcher of `changes()` may lag behind; older ones are skipped, never the last."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it came. `retained`: it was stored at the broker before we subscribed."""

    topic: str
    payload: bytes
    retained: bool


class Priority(IntEnum):
    """What goes first where messages wait for the link, and what is dropped last."""

    CONTROL = 0
    DOCUMENT = 1
    """Predictions and metrics."""
    BULK = 2
    """Chunks of what does not fit one message."""


@dataclass(frozen=True, slots=True)
class LinkState:
    """Is the broker reachable, and why (not): one line for an operator."""

    connected: bool
    reason: str


@dataclass(slots=True)
class Counters:
    """What a link has done since it was opened. Bytes are those on the wire, inside TLS."""

    bytes_up: int = 0
    bytes_down: int = 0
    messages_up: int = 0
    messages_down: int = 0
    reconnects: int = 0
    dropped: int = 0
    """Arrivals of QoS 0 that found the inbox full."""
    crowded_out: int = 0
    """Publishes that others of a higher priority, or newer, left no room for."""


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker publishes for us, with QoS 1, when we vanish without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = True


class Link(Protocol):
    """A member's connection to its broker."""

    @property
    def counters(self) -> Counters:
        """Live counters; read them, do not write."""

    @property
    def state(self) -> LinkState:
        """The state now."""

    def changes(self) -> AsyncIterator[LinkState]:
        """The state now and then every change, until the link is closed."""

    async def connected(self, timeout: float) -> None:
        """Wait for a connection. Raises LinkError with the reason of the last failure."""

    async def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        qos: int = 1,
        priority: Priority = Priority.CONTROL,
        timeout: float = 30.0,
    ) -> None:
        """Hand a message to the broker and wait for its acknowledgement.

        Of those that wait, the higher priority goes first; within one they keep their order.

        While disconnected it waits for the connection, and what was in flight is sent again.
        Raises LinkError at the deadline [s] or when the broker refuses the message, and
        CrowdedOutError when too many wait and this one is the oldest of the lowest priority.
        """

    async def subscribe(self, pattern: str, qos: int = 1, *, timeout: float = 30.0) -> None:
        """Ask for all topics that `pattern` covers, now and after every reconnection.

        Raises LinkError when refused or at the deadline [s].
        """

    async def reopen(self) -> None:
        """Leave the broker politely and connect anew, so that the certificate's file counts.

        What is under way goes on over the new connection.
        """

    def messages(self) -> AsyncIterator[Message]:
        """All messages in order of arrival, until the link is closed. One consumer at a time."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class StateFeed:
    """The state of a link and those who watch it."""

    __slots__ = ("_closed", "_watchers", "state")

    def __init__(self, state: LinkState) -> None:
        self.state = state
        self._closed = False
        self._watchers: list[tuple[deque[LinkState], asyncio.Event]] = []

    def set(self, state: LinkState) -> None:
        """Tell every watcher; a state equal to the present one is no change."""
        if state == self.state:
            return
        self.state = state
        for states, wake in self._watchers:
            states.append(state)
            wake.set()

    def close(self) -> None:
        """End every `watch` once it has seen the last state."""
        self._closed = True
        for _, wake in self._watchers:
            wake.set()

    async def watch(self) -> AsyncIterator[LinkState]:
        """The state now, then each change."""
        wake = asyncio.Event()
        states: deque[LinkState] = deque([self.state], maxlen=STATES_KEPT)
        watcher = (states, wake)
        self._watchers.append(watcher)
        try:
            while True:
                while states:
                    yield states.popleft()
                if self._closed:
                    return
                wake.clear()
                await wake.wait()
        finally:
            self._watchers.remove(watcher)
