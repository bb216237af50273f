"""A broker and links inside one event loop: for trials of whole trees, and for a single process.

It keeps MQTT's promises as `mqtt.MqttLink` gives them: retained messages, wildcards, wills,
sessions that outlive a cut connection, refusal by an access list. What differs: no bytes are
encoded, and a consumer too slow for its queue loses the newest messages, as at a real broker whose
queue is full; `MemoryBroker.dropped` and the link's counter say how many.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Literal, Self

from edgechoir.errors import LinkError, LocalError
from edgechoir.transport.inbox import Arrival, Inbox
from edgechoir.transport.link import Counters, LinkState, Message, Priority, StateFeed, Will
from edgechoir.transport.topics import matches

Access = Callable[[str, Literal["read", "write"], str], bool]
"""(member, what it wants, topic or filter) -> is it allowed?"""

QUEUE_MESSAGES: Final = 10_000
QUEUE_BYTES: Final = 64 << 20
MAX_RETAINED: Final = 100_000


def open_to_all(member: str, want: Literal["read", "write"], topic: str) -> bool:
    """The access check of a broker without an access list."""
    return True


class MemoryBroker:
    """Routes messages between the `MemoryLink`s opened on it."""

    def __init__(self, access: Access = open_to_all) -> None:
        self.access = access
        self.retained: dict[str, bytes] = {}
        self.dropped = 0
        self._links: dict[str, MemoryLink] = {}

    def link(self, member: str, will: Will | None = None) -> "MemoryLink":
        """A link for `member`; a second one while the first is open takes its place."""
        return MemoryLink(self, member, will)

    def cut(self, member: str, reason: str = "the connection was cut") -> None:
        """Break a member's connection: its will is published, its session is kept."""
        self._named(member).lose(reason)

    def mend(self, member: str) -> None:
        """Let a member's link come back after `cut`."""
        self._named(member).restore()

    def _named(self, member: str) -> "MemoryLink":
        if (link := self._links.get(member)) is None:
            raise LocalError(f"{member!r} has no open link; open are {sorted(self._links)}")
        return link

    def _attach(self, link: "MemoryLink") -> None:
        if other := self._links.get(link.member):
            other.lose(f"session taken over: someone else connected as {link.member}")
        self._links[link.member] = link

    def _detach(self, link: "MemoryLink") -> None:
        if self._links.get(link.member) is link:
            del self._links[link.member]

    def _route(self, topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
        if retain:
            if not payload:
                self.retained.pop(topic, None)
            elif topic in self.retained or len(self.retained) < MAX_RETAINED:
                self.retained[topic] = payload
            else:
                raise LinkError(f"the broker retains {MAX_RETAINED} messages already")
        for link in tuple(self._links.values()):
            granted = link.granted_qos(topic)
            if granted is not None and self.access(link.member, "read", topic):
                link.deliver(Message(topic, payload, retained=False), min(qos, granted))


class MemoryLink:
    """A member's link to a `MemoryBroker`; see `link.Link` for what it promises."""

    def __init__(self, broker: MemoryBroker, member: str, will: Will | None) -> None:
        self.member = member
        self.counters = Counters()
        self._broker = broker
        self._will = will
        self._feed = StateFeed(LinkState(False, "not connected yet"))
        self._inbox = Inbox(QUEUE_MESSAGES, QUEUE_BYTES)
        self._held: deque[Message] = deque()
        self._patterns: dict[str, int] = {}
        self._up = asyncio.Event()
        self._open = False

    @property
    def state(self) -> LinkState:
        return self._feed.state

    def changes(self) -> AsyncIterator[LinkState]:
        return self._feed.watch()

    async def __aenter__(self) -> Self:
        self._broker._attach(self)
        self._open = True
        self._up.set()
        self._feed.set(LinkState(True, "connected in memory"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        self._up.set()  # whoever waits finds the link closed
        self._broker._detach(self)
        self._feed.set(LinkState(False, "the link is closed"))
        self._feed.close()
        self._inbox.close()

    async def connected(self, timeout: float) -> None:
        await self._ready(timeout, "")

    async def reopen(self) -> None:
        """There is no certificate here."""

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
        if qos not in (0, 1) or not topic or "+" in topic or "#" in topic:
            raise LocalError(f"cannot publish to {topic!r} with QoS {qos}")
        await self._ready(timeout, f"a message to {topic} was not sent: ")
        if not self._broker.access(self.member, "write", topic):
            raise LinkError(f"the broker refused a message of {self.member} to {topic}")
        self._broker._route(topic, payload, retain=retain, qos=qos)
        self.counters.messages_up += 1
        self.counters.bytes_up += len(topic) + len(payload)
        await asyncio.sleep(0)  # an acknowledgement takes a turn of the loop, as with a broker

    async def subscribe(self, pattern: str, qos: int = 1, *, timeout: float = 30.0) -> None:
        if qos not in (0, 1) or not pattern:
            raise LocalError(f"cannot subscribe to {pattern!r} with QoS {qos}")
        await self._ready(timeout, f"no subscription to {pattern}: ")
        if not self._broker.access(self.member, "read", pattern):
            raise LinkError(f"the broker refused {self.member} the subscription to {pattern}")
        self._patterns[pattern] = qos
        for topic, payload in tuple(self._broker.retained.items()):
            if matches(pattern, topic) and self._broker.access(self.member, "read", topic):
                self.deliver(Message(topic, payload, retained=True), qos)

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self._inbox.take()) is not None:
            yield message

    def granted_qos(self, topic: str) -> int | None:
        """The QoS under which this link wants a topic; None when it does not."""
        return max((q for p, q in self._patterns.items() if matches(p, topic)), default=None)

    def deliver(self, message: Message, qos: int) -> None:
        """Called by the broker. While disconnected, the session keeps QoS 1 and not QoS 0."""
        cut = not self.state.connected
        if self._inbox.full or len(self._held) >= QUEUE_MESSAGES or (cut and qos == 0):
            self.counters.dropped += 1
            self._broker.dropped += 1
            return
        self.counters.messages_down += 1
        self.counters.bytes_down += len(message.topic) + len(message.payload)
        if cut:
            self._held.append(message)
        else:
            self._inbox.put(Arrival(message))

    def lose(self, reason: str) -> None:
        """Called by the broker: the connection breaks."""
        if not self.state.connected:
            return
        self._up.clear()
        self._feed.set(LinkState(False, reason))
        if self._will:
            self._broker._route(
                self._will.topic, self._will.payload, retain=self._will.retain, qos=1
            )

    def restore(self) -> None:
        """Called by the broker: the connection is back."""
        if self._open and not self.state.connected:
            self.counters.reconnects += 1
            self._feed.set(LinkState(True, "connected in memory"))
            self._up.set()
            while self._held:
                self._inbox.put(Arrival(self._held.popleft()))

    async def _ready(self, timeout: float, what: str) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self._up.wait()
        except TimeoutError:
            raise LinkError(f"{what}{self.state.reason}") from None
        if not self._open:
            raise LinkError(f"{what}the link is closed")
