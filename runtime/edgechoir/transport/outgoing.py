"""Publishes on their way: waiting, in flight, acknowledged; none is lost without a word.

Each belongs to a caller that waits on `done`. A lost connection moves what was in flight back to
the front, in order; a publish whose caller gave up is not sent (again).

Control goes before documents, and those before bulk. What has been given to the socket can be
overtaken by nothing, so bulk is given only when the kernel has taken everything before it, and
lower priorities leave a part of the window free: a control message waits for one chunk at most.
"""

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol

from edgechoir.errors import LinkError
from edgechoir.transport.link import Priority

MAX_WAITING: Final = 1024
"""Publishes that may wait at once: a link so far behind is down."""
SPARED: Final = {Priority.CONTROL: 0, Priority.DOCUMENT: 2, Priority.BULK: 4}
"""Of the window, what each priority leaves to those above it."""


class CrowdedOutError(LinkError):
    """Too many publishes wait, and this one is the oldest of the lowest priority among them."""


class Channel(Protocol):
    """A connection, as far as publishing goes."""

    @property
    def window(self) -> int:
        """Unacknowledged publishes that the broker takes."""

    @property
    def congested(self) -> bool:
        """Is there something that the kernel has not taken yet?"""

    def publish(self, publish: "Publish") -> int:
        """Gives the packet's id. Raises LinkError for a message that this broker never takes."""


@dataclass(frozen=True, slots=True, eq=False)
class Publish:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    priority: Priority
    done: asyncio.Future[None]


class Outgoing:
    """The queues of one link and its window of unacknowledged publishes."""

    def __init__(self) -> None:
        self._waiting: dict[Priority, deque[Publish]] = {
            priority: deque() for priority in sorted(Priority)
        }
        self._in_flight: dict[int, Publish] = {}
        self.crowded_out = 0
        """Publishes dropped for want of room."""

    def add(self, publish: Publish) -> None:
        """Queue a publish. When MAX_WAITING wait already, the oldest of the lowest priority is
        dropped, and its caller told; that may be this one."""
        self._waiting[publish.priority].append(publish)
        if sum(map(len, self._waiting.values())) <= MAX_WAITING:
            return
        dropped = next(queue for queue in reversed(self._waiting.values()) if queue).popleft()
        self.crowded_out += 1
        if not dropped.done.done():
            dropped.done.set_exception(
                CrowdedOutError(
                    f"not sent to {dropped.topic}: {MAX_WAITING} messages of its priority or "
                    "higher wait for the broker already"
                )
            )

    def pump(self, channel: Channel) -> None:
        """Send what the window has room for."""
        for priority, waiting in self._waiting.items():
            room = max(1, channel.window - SPARED[priority])
            while waiting and len(self._in_flight) < room:
                if priority is Priority.BULK and channel.congested:
                    return
                publish = waiting.popleft()
                if publish.done.done():
                    continue
                try:
                    self._in_flight[channel.publish(publish)] = publish
                except LinkError as error:
                    publish.done.set_exception(error)

    def answered(self, packet_id: int, refusal: LinkError | None) -> bool:
        """The broker acknowledged or refused a publish. False for an id that is not in flight."""
        publish = self._in_flight.pop(packet_id, None)
        if publish is None:
            return False
        if not publish.done.done():
            if refusal:
                publish.done.set_exception(refusal)
            else:
                publish.done.set_result(None)
        return True

    def connection_lost(self, reason: str) -> None:
        """QoS 1 goes again over the next connection; QoS 0 is sent once, so its caller is told."""
        for publish in reversed(self._in_flight.values()):
            if publish.done.done():
                continue
            if publish.qos == 0:
                publish.done.set_exception(LinkError(f"not sent to {publish.topic}: {reason}"))
            else:
                self._waiting[publish.priority].appendleft(publish)
        self._in_flight.clear()

    def fail_all(self, reason: str) -> None:
        """The link is closing."""
        for publishes in (self._in_flight.values(), *self._waiting.values()):
            for publish in publishes:
                if not publish.done.done():
                    publish.done.set_exception(LinkError(f"not sent to {publish.topic}: {reason}"))
        self._in_flight.clear()
        for waiting in self._waiting.values():
            waiting.clear()

    def is_stuck(self, window: int) -> bool:
        """Is the window full of publishes that nobody waits for any more?"""
        return len(self._in_flight) >= window and all(
            publish.done.done() for publish in self._in_flight.values()
        )
