"""The link over MQTT 5, or 3.1.1 where the broker speaks nothing newer.

paho encodes and decodes; sockets, time and retries are ours, on the event loop, without threads.
Each TCP connection has its own paho client. What outlives a connection is kept here: subscriptions
(asked for again), publishes in flight (sent again), the inbox.

Session. The client id is `<member>.<instance>`, new for each process, so a second process never
takes over the first one's session. MQTT 5: the session outlives a connection by an hour, and is
ended by our disconnect. A message is acknowledged when the consumer takes it, and the broker is
told how many it may leave unacknowledged (Receive Maximum), so a slow consumer is felt by the
broker while acknowledgements for what we publish still flow. A message may come twice.
MQTT 3.1.1 has neither expiry nor this window: there the session is clean, what is published while
we are away is lost unless retained, and a full inbox stops the reading of the socket. A consumer
that stalls for longer than the keep-alive then loses the connection.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Self

from edgechoir.errors import LinkError, LocalError, OperatorError
from edgechoir.transport.connection import (
    SESSION_EXPIRY,
    Connection,
    Handlers,
    MqttSettings,
    ProtocolRefusedError,
)
from edgechoir.transport.inbox import Arrival, Inbox
from edgechoir.transport.link import Counters, LinkState, Message, Priority, StateFeed, Will
from edgechoir.transport.outgoing import Outgoing, Publish
from edgechoir.transport.stream import TlsFiles, open_stream

__all__ = ["MqttLink", "MqttSettings", "TlsFiles", "Will"]

log: Final = logging.getLogger(__name__)

PATTERNS: Final = 8
"""In one SUBSCRIBE: AWS IoT Core takes no more."""
FAREWELL: Final = 2.0
"""Seconds for a clean disconnect at exit."""
CLOSED: Final = "the link is closed"
REPEAT_S: Final = 300.0
"""Seconds before a reason that has been logged is logged again."""


class Complaints:
    """A line for each reason why there is no connection, again only after REPEAT_S."""

    def __init__(self) -> None:
        self._reason = ""
        self._due = 0.0
        self._attempts = 0

    def make(self, reason: str, now: float) -> None:
        """Log the reason, unless that was done just now; `now` in seconds of a steady clock."""
        self._attempts += 1
        if reason == self._reason and now < self._due:
            return
        times = f" ({self._attempts} attempts since the last line)" if self._attempts > 1 else ""
        log.warning("%s%s", reason, times)
        self._reason, self._due, self._attempts = reason, now + REPEAT_S, 0


class MqttLink:
    """A member's link; see `link.Link` for what it promises. Use as `async with`."""

    def __init__(self, settings: MqttSettings, jitter: Callable[[], float] = random.random) -> None:
        """`jitter` gives numbers in [0, 1)."""
        self._settings = settings
        self._jitter = jitter
        self._feed = StateFeed(LinkState(False, f"{settings.broker}: not connected yet"))
        self._inbox = Inbox(settings.inbox_messages, settings.inbox_bytes)
        self._outgoing = Outgoing()
        self._patterns: dict[str, int] = {}
        self._asking: dict[str, list[asyncio.Future[None]]] = {}
        self._handlers = Handlers(self._arrived, self._published, self._subscribed, self._pump)
        self._connection: Connection | None = None
        self._connections = self._served = 0
        self._mqtt5 = settings.mqtt5
        self._keeper: asyncio.Task[None] | None = None
        self.counters = Counters()

    @property
    def state(self) -> LinkState:
        return self._feed.state

    def changes(self) -> AsyncIterator[LinkState]:
        return self._feed.watch()

    async def __aenter__(self) -> Self:
        if self._keeper is not None:
            raise LocalError("a link is opened once; make a new one")
        self._keeper = asyncio.create_task(self._keep_connected(), name="mqtt-link")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        keeper = self._keeper
        if keeper is None:
            return
        keeper.cancel()
        try:
            await asyncio.wait([keeper])
        except asyncio.CancelledError:
            keeper.cancel()  # cuts the goodbye short
            await asyncio.wait([keeper])
            raise
        if not keeper.cancelled() and (fault := keeper.exception()):
            raise fault

    async def connected(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                async for state in self._feed.watch():
                    if state.connected:
                        return
        except TimeoutError:
            pass
        raise LinkError(self.state.reason)

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
        self._check_open()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outgoing.add(Publish(topic, payload, qos, retain, priority, done))
        self.counters.crowded_out = self._outgoing.crowded_out
        self._pump()
        try:
            async with asyncio.timeout(timeout):
                await done
        except TimeoutError:
            if self._connection and self._outgoing.is_stuck(self._connection.window):
                self._connection.lose("it acknowledges nothing any more")
            raise LinkError(
                f"{self._settings.broker} did not acknowledge a message to {topic} "
                f"within {timeout:g} s ({self.state.reason})"
            ) from None
        self.counters.messages_up += 1

    async def subscribe(self, pattern: str, qos: int = 1, *, timeout: float = 30.0) -> None:
        if qos not in (0, 1) or not pattern:
            raise LocalError(f"cannot subscribe to {pattern!r} with QoS {qos}")
        self._check_open()
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._patterns[pattern] = qos
        waiting = self._asking.setdefault(pattern, [])
        waiting.append(done)
        if self._connection:
            self._connection.subscribe({pattern: qos}, again=False)
        try:
            async with asyncio.timeout(timeout):
                await done
        except TimeoutError:
            raise LinkError(
                f"{self._settings.broker} did not confirm the subscription to {pattern} "
                f"within {timeout:g} s ({self.state.reason}); it is asked again when it is back"
            ) from None
        finally:
            waiting.remove(done)
            if not waiting:
                self._asking.pop(pattern, None)

    async def messages(self) -> AsyncIterator[Message]:
        while (message := await self._inbox.take()) is not None:
            if self._connection and not self._inbox.flooded:
                self._connection.resume_reading()
            yield message

    async def reopen(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.say_goodbye(FAREWELL, session=SESSION_EXPIRY)

    def _check_open(self) -> None:
        if self._keeper is None or self._keeper.done():
            raise LinkError(CLOSED)

    async def _keep_connected(self) -> None:
        """Connect, serve, and again, for ever. The one task of this link."""
        failures = 0
        complaints = Complaints()
        try:
            while True:
                try:
                    connection, session_kept = await self._connect()
                except (LinkError, OperatorError) as error:
                    reason = str(error)
                else:
                    failures = 0
                    reason = f"{self._settings.broker}: "
                    reason += await self._serve(connection, session_kept)
                complaints.make(reason, asyncio.get_running_loop().time())
                self._feed.set(LinkState(False, reason))
                pause = min(self._settings.retry_last, self._settings.retry_first * 2.0**failures)
                failures = min(failures + 1, 16)
                await asyncio.sleep(pause * (0.5 + 0.5 * self._jitter()))
        finally:
            self._close()

    def _close(self) -> None:
        """Everyone who waits is told."""
        self._feed.set(LinkState(False, CLOSED))
        self._feed.close()
        self._inbox.close()
        self._outgoing.fail_all(CLOSED)
        for waiting in self._asking.values():
            for done in waiting:
                if not done.done():
                    done.set_exception(LinkError(CLOSED))

    async def _connect(self) -> tuple[Connection, bool]:
        """One attempt, with the older protocol too until one of them has worked."""
        first = True if self._mqtt5 is None else self._mqtt5
        try:
            connection, session_kept = await self._connect_as(first)
        except ProtocolRefusedError:
            if self._mqtt5 is not None:
                raise
            first = False
            connection, session_kept = await self._connect_as(first)
        self._mqtt5 = first
        return connection, session_kept

    async def _connect_as(self, mqtt5: bool) -> tuple[Connection, bool]:
        settings = self._settings
        connection: Connection | None = None
        try:
            async with asyncio.timeout(settings.connect_timeout):
                stream = await open_stream(
                    settings.host,
                    settings.port,
                    settings.tls,
                    self.counters,
                    keepalive=settings.keepalive,
                    max_packet=settings.max_packet,
                )
                self._connections += 1
                connection = Connection(stream, settings, self._connections, self._handlers, mqtt5)
                try:
                    return connection, await connection.greet()
                except BaseException:
                    connection.lose("gave up connecting")
                    raise
        except TimeoutError:
            if connection:  # amqtt without our front door is silent when asked for MQTT 5
                raise ProtocolRefusedError(
                    f"{settings.broker} accepted the connection but said nothing within "
                    f"{settings.connect_timeout:g} s: is it an MQTT broker, with TLS or without?"
                ) from None
            raise LinkError(
                f"{settings.broker} did not answer within {settings.connect_timeout:g} s: "
                "check the address, the network and the firewall"
            ) from None

    async def _serve(self, connection: Connection, session_kept: bool) -> str:
        """Until the connection is lost; gives the reason. Says goodbye when cancelled."""
        self.counters.reconnects = self._served
        self._served += 1
        if session_kept:
            self._inbox.forget_unacknowledged(connection.number)
        self._connection = connection
        try:
            patterns = tuple(self._patterns.items())
            for first in range(0, len(patterns), PATTERNS):
                batch = dict(patterns[first : first + PATTERNS])
                connection.subscribe(batch, again=session_kept)
            self._feed.set(LinkState(True, f"{self._settings.broker}: {connection.description}"))
            self._pump()
            return await asyncio.shield(connection.lost)
        except asyncio.CancelledError:
            self._connection = None
            await connection.say_goodbye(FAREWELL)
            raise
        finally:
            self._connection = None
            self._outgoing.connection_lost("the connection was lost")

    def _pump(self) -> None:
        if self._connection:
            self._outgoing.pump(self._connection)

    def _arrived(self, arrival: Arrival) -> None:
        if arrival.taken is None and self._inbox.full:
            self.counters.dropped += 1
            return
        self.counters.messages_down += 1
        self._inbox.put(arrival)
        if self._inbox.flooded and self._connection:
            self._connection.pause_reading()

    def _published(self, packet_id: int, refusal: LinkError | None) -> None:
        self._outgoing.answered(packet_id, refusal)
        self._pump()

    def _subscribed(self, pattern: str, refusal: LinkError | None) -> None:
        waiting = self._asking.get(pattern, [])
        if refusal and waiting:
            self._patterns.pop(pattern, None)
        elif refusal:  # after a reconnection: it may be granted at the next one
            log.warning("%s", refusal)
        for done in waiting:
            if done.done():
                continue
            if refusal:
                done.set_exception(refusal)
            else:
                done.set_result(None)
