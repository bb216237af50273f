"""Publishes on their way: waiting, in flight, acknowledged; none is lost without a word.

Each belongs to a caller that waits on `done`. A lost connection moves what was in flight back to
the front, in order; a publish whose caller gave up is not sent (again).
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from edgechoir.errors import LinkError

MAX_WAITING: Final = 1024
"""Publishes that may wait at once; callers beyond are told, since a link so far behind is down."""


@dataclass(frozen=True, slots=True, eq=False)
class Publish:
    topic: str
    payload: bytes
    qos: int
    retain: bool
    done: asyncio.Future[None]


class Outgoing:
    """The queue of one link and its window of unacknowledged publishes."""

    def __init__(self) -> None:
        self._waiting: deque[Publish] = deque()
        self._in_flight: dict[int, Publish] = {}

    def add(self, publish: Publish) -> None:
        """Raises LinkError when MAX_WAITING are waiting."""
        if len(self._waiting) >= MAX_WAITING:
            raise LinkError(f"{MAX_WAITING} messages wait for the broker already; try again later")
        self._waiting.append(publish)

    def pump(self, send: Callable[[Publish], int], window: int) -> None:
        """Send while the window has room. `send` gives the packet's id, or raises LinkError for a
        message that this broker can never take."""
        while self._waiting and len(self._in_flight) < window:
            publish = self._waiting.popleft()
            if publish.done.done():
                continue
            try:
                self._in_flight[send(publish)] = publish
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
        again: list[Publish] = []
        for publish in self._in_flight.values():
            if publish.done.done():
                continue
            if publish.qos == 0:
                publish.done.set_exception(LinkError(f"not sent to {publish.topic}: {reason}"))
            else:
                again.append(publish)
        self._in_flight.clear()
        self._waiting.extendleft(reversed(again))

    def fail_all(self, reason: str) -> None:
        """The link is closing."""
        for publish in (*self._in_flight.values(), *self._waiting):
            if not publish.done.done():
                publish.done.set_exception(LinkError(f"not sent to {publish.topic}: {reason}"))
        self._in_flight.clear()
        self._waiting.clear()

    def is_stuck(self, window: int) -> bool:
        """Is the window full of publishes that nobody waits for any more?"""
        return len(self._in_flight) >= window and all(
            publish.done.done() for publish in self._in_flight.values()
        )
