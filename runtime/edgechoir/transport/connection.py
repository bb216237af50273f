"""One MQTT connection: paho's codec on our socket and event loop, from CONNECT to the end.

States: greeting (CONNECT sent) -> serving (CONNACK taken) -> over. It never comes back: the link
makes a new one. `lost` resolves once, with the reason.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edgechoir.errors import LinkError
from edgechoir.transport.inbox import Arrival
from edgechoir.transport.link import Message, Will
from edgechoir.transport.outgoing import Publish
from edgechoir.transport.stream import Stream, TlsFiles, explain

log: Final = logging.getLogger(__name__)

SESSION_EXPIRY: Final = 3600
WINDOW: Final = 16
"""Unacknowledged publishes at once; below the 20 that mosquitto takes by default."""
PACKETS_A_TURN: Final = 64
"""Packets read before the loop's other tasks get their turn."""
PUBLISH_OVERHEAD: Final = 16


class ProtocolRefusedError(LinkError):
    """The broker refused the protocol's version, or hung up on it."""


@dataclass(frozen=True, slots=True)
class MqttSettings:
    """Where and how to connect. `instance` are random bytes, new for each process.

    Times in seconds. Retries wait from `retry_first` doubling to `retry_last`, each drawn from the
    upper half of its interval so that a fleet does not come back in step. `max_packet` bounds what
    is taken from the broker in one packet.
    """

    host: str
    port: int
    member: str
    instance: bytes
    tls: TlsFiles | None = None
    will: Will | None = None
    keepalive: int = 20
    mqtt5: bool | None = None
    """True or False: only that version of MQTT is spoken; None: 5, then 3.1.1."""
    connect_timeout: float = 10.0
    retry_first: float = 0.5
    retry_last: float = 30.0
    inbox_messages: int = 64
    inbox_bytes: int = 16 << 20
    max_packet: int = 1 << 20

    @property
    def client_id(self) -> str:
        return f"{self.member}.{self.instance.hex()}"

    @property
    def broker(self) -> str:
        return f"broker {self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Handlers:
    """What the link does with what comes in. A refusal is None when the broker agreed."""

    arrived: Callable[[Arrival], None]
    published: Callable[[int, LinkError | None], None]
    subscribed: Callable[[str, LinkError | None], None]
    drained: Callable[[], None]
    """The kernel has taken all that was published so far."""


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]  # paho leaves it untyped


class _Codec(paho.Client):
    """paho on a socket that is connected already."""

    def __init__(self, stream: Stream, settings: MqttSettings, mqtt5: bool) -> None:
        super().__init__(
            CallbackAPIVersion.VERSION2,
            client_id=settings.client_id,
            clean_session=None if mqtt5 else True,
            protocol=MQTTProtocolVersion.MQTTv5 if mqtt5 else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        self._stream = stream
        self.max_inflight_messages = 65535  # the window is ours

    def ping_every(self, seconds: int) -> None:
        """Ask the broker for a sign of life after so much silence, and wait as long for it."""
        self._keepalive = max(1, seconds)

    def _create_socket(self) -> Stream:
        return self._stream


class Connection:
    """See the module. All methods are called on the event loop's thread."""

    def __init__(
        self,
        stream: Stream,
        settings: MqttSettings,
        number: int,
        handlers: Handlers,
        mqtt5: bool,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._stream = stream
        self._settings = settings
        self._handlers = handlers
        self._mqtt5 = mqtt5
        self._codec = codec = _Codec(stream, settings, mqtt5)
        codec.on_connect = self._on_connect
        codec.on_disconnect = self._on_disconnect
        codec.on_message = self._on_message
        codec.on_publish = self._on_publish
        codec.on_subscribe = self._on_subscribe
        codec.on_socket_register_write = self._on_want_write
        if will := settings.will:
            codec.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        self._greeted: asyncio.Future[bool] = self._loop.create_future()
        self._asked: dict[int, tuple[str, ...]] = {}
        self._reading = self._writing = self._leaving = False
        self._turn: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._max_packet: int | None = None
        self._retains = True
        self.number = number
        self.window = WINDOW
        self.lost: asyncio.Future[str] = self._loop.create_future()

    @property
    def description(self) -> str:
        version = "MQTT 5" if self._mqtt5 else "MQTT 3.1.1"
        return f"connected with {version} over {self._stream.cipher or 'plain TCP'}"

    async def greet(self) -> bool:
        """Send CONNECT and wait for the answer: did the broker keep our session?

        Raises LinkError; ProtocolRefusedError where the other version is worth a try.
        """
        settings = self._settings
        properties = None
        if self._mqtt5:
            properties = _properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = SESSION_EXPIRY
            properties.ReceiveMaximum = settings.inbox_messages
            properties.MaximumPacketSize = settings.max_packet
        self._codec.connect_async(
            settings.host,
            settings.port,
            settings.keepalive,
            clean_start=False if self._mqtt5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
        )
        self._codec.reconnect()
        self.resume_reading()
        self._timer = self._loop.call_later(settings.keepalive / 8, self._tick)
        return await self._greeted

    @property
    def congested(self) -> bool:
        """Is there something that the kernel has not taken yet?"""
        return self._codec.want_write()

    def publish(self, publish: Publish) -> int:
        """Queue a PUBLISH and give its packet id. Raises LinkError: this broker cannot take it."""
        size = len(publish.payload) + len(publish.topic.encode()) + PUBLISH_OVERHEAD
        if self._max_packet and size > self._max_packet:
            raise LinkError(
                f"{self._settings.broker} takes packets of at most {self._max_packet} bytes, "
                f"the message to {publish.topic} has {size}"
            )
        if publish.retain and not self._retains:
            raise LinkError(
                f"{self._settings.broker} keeps no retained messages; use one that does"
            )
        info = self._codec.publish(publish.topic, publish.payload, publish.qos, publish.retain)
        return info.mid

    def subscribe(self, patterns: Mapping[str, int], *, again: bool) -> None:
        """Send a SUBSCRIBE. `again`: spare us the retained messages of patterns still in force."""
        if self._mqtt5:
            retained = 1 if again else 0
            options = [
                (pattern, SubscribeOptions(qos=qos, retainHandling=retained))
                for pattern, qos in patterns.items()
            ]
            _, packet_id = self._codec.subscribe(options)
        else:
            _, packet_id = self._codec.subscribe(list(patterns.items()))
        if packet_id is not None:
            self._asked[packet_id] = tuple(patterns)

    def pause_reading(self) -> None:
        """Let the broker wait: TCP's flow control holds it back."""
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._stream.fileno())

    def resume_reading(self) -> None:
        """Read again after `pause_reading`; harmless otherwise."""
        if not self._reading and not self.lost.done():
            self._reading = True
            self._loop.add_reader(self._stream.fileno(), self._read)
            if self._stream.pending and self._turn is None:
                self._turn = self._loop.call_soon(self._read)

    def lose(self, reason: str) -> None:
        """End the connection now, without a goodbye."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if not self._greeted.done():
            self._greeted.set_exception(LinkError(f"{self._settings.broker}: {reason}"))
        self.pause_reading()
        self._stop_writing()
        for handle in (self._timer, self._turn):
            if handle:
                handle.cancel()
        if not self._leaving:
            self._stream.abort()

    async def say_goodbye(self, timeout: float, session: int = 0) -> None:
        """Disconnect so that the broker sends no will, and keeps the session for `session` s."""
        if self.lost.done():
            return
        self._leaving = True
        properties = None
        if self._mqtt5:
            properties = _properties(PacketTypes.DISCONNECT)
            properties.SessionExpiryInterval = session
        try:
            async with asyncio.timeout(timeout):
                self._codec.disconnect(properties=properties)
                await asyncio.shield(self.lost)
            await self._stream.drain_and_close(timeout)
        except TimeoutError:
            log.warning("%s takes no goodbye; it will publish our will", self._settings.broker)
        finally:
            self._leaving = False
            self.lose("closed")
            self._stream.abort()

    def _read(self) -> None:
        self._turn = None
        try:
            for _ in range(PACKETS_A_TURN):
                if not self._reading:
                    return
                self._codec.loop_read()
                if not (self._reading and self._stream.pending):
                    return
        except Exception:  # the edge: whatever the codec trips over costs one connection
            log.exception("reading from %s failed", self._settings.broker)
            self.lose("it sent what we cannot read")
            return
        self._turn = self._loop.call_soon(self._read)

    def _on_want_write(self, codec: paho.Client, userdata: object, stream: object) -> None:
        self._loop.call_soon(self._write)

    def _write(self) -> None:
        if self.lost.done():
            return
        self._codec.loop_write()
        if self.lost.done():
            return
        if not self._codec.want_write():
            self._stop_writing()
            self._handlers.drained()
        elif not self._writing:
            self._writing = True
            self._loop.add_writer(self._stream.fileno(), self._write)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self._loop.remove_writer(self._stream.fileno())

    def _tick(self) -> None:
        """Pings, and notices that the broker answers none. Not while we do not read: the answer
        may lie there."""
        if self._reading:
            self._codec.loop_misc()
        if not self.lost.done():
            self._timer = self._loop.call_later(self._settings.keepalive / 8, self._tick)

    def _acknowledge(self, packet_id: int) -> None:
        if not self.lost.done():
            self._codec.ack(packet_id, 1)

    def _on_connect(
        self,
        codec: paho.Client,
        userdata: object,
        flags: paho.ConnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        if self._greeted.done():
            return
        if not reason.is_failure:
            if properties is not None:
                self.window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
                self._max_packet = getattr(properties, "MaximumPacketSize", None)
                self._retains = bool(getattr(properties, "RetainAvailable", 1))
            # Silence, then no answer, each noticed at the next tick: within the keep-alive.
            self._codec.ping_every(min(self._settings.keepalive, self._codec.keepalive) // 3)
            self._greeted.set_result(flags.session_present)
        elif reason.getName() == "Unsupported protocol version":
            self._greeted.set_exception(ProtocolRefusedError(self._refusal(reason)))
        else:
            self._greeted.set_exception(LinkError(self._refusal(reason)))

    def _refusal(self, reason: ReasonCode) -> str:
        return (
            f"{self._settings.broker} refused the connection of {self._settings.member}: "
            f"{reason.getName()}"
        )

    def _on_disconnect(
        self,
        codec: paho.Client,
        userdata: object,
        flags: paho.DisconnectFlags,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        text = self._loss(flags.is_disconnect_packet_from_server, reason)
        if not self._greeted.done():
            hung_up = isinstance(self._stream.error, ConnectionResetError | BrokenPipeError | None)
            fault = (ProtocolRefusedError if hung_up else LinkError)(
                f"{self._settings.broker}: {text}"
            )
            self._greeted.set_exception(fault)
        self.lose(text)

    def _loss(self, said_by_broker: bool, reason: ReasonCode) -> str:
        settings = self._settings
        if said_by_broker:
            if reason.getName() == "Session taken over":
                return f"session taken over: someone else connected as {settings.client_id}"
            return f"it ended the connection: {reason.getName()}"
        if self._stream.error:
            return explain(self._stream.error, tls=settings.tls is not None)
        if self._stream.eof and self._greeted.done():
            return "it closed the connection"
        if self._stream.eof:
            return (
                "it closed the connection without an answer: it may have refused our certificate"
                if settings.tls
                else "it closed the connection without an answer: it may expect TLS on this port"
            )
        if reason.getName() == "Keep alive timeout":
            return f"no sign of life for {settings.keepalive} s"
        return f"it speaks no MQTT that we understand ({reason.getName()})"

    def _on_message(self, codec: paho.Client, userdata: object, packet: paho.MQTTMessage) -> None:
        taken = partial(self._acknowledge, packet.mid) if packet.qos else None
        try:
            topic = packet.topic
        except UnicodeDecodeError:
            self._stream.counters.dropped += 1
            if taken:
                taken()
            return
        message = Message(topic, bytes(packet.payload), packet.retain)
        self._handlers.arrived(Arrival(message, taken, self.number))

    def _on_publish(
        self,
        codec: paho.Client,
        userdata: object,
        packet_id: int,
        reason: ReasonCode,
        properties: Properties | None,
    ) -> None:
        refusal = None
        if reason.is_failure:
            hint = ": its access list does not let us" if reason.value == 0x87 else ""
            refusal = LinkError(
                f"{self._settings.broker} refused a message of {self._settings.member}: "
                f"{reason.getName()}{hint}"
            )
        self._handlers.published(packet_id, refusal)

    def _on_subscribe(
        self,
        codec: paho.Client,
        userdata: object,
        packet_id: int,
        reasons: list[ReasonCode],
        properties: Properties | None,
    ) -> None:
        patterns = self._asked.pop(packet_id, ())
        for pattern, reason in zip(patterns, reasons, strict=False):
            refusal = None
            if reason.is_failure:
                refusal = LinkError(
                    f"{self._settings.broker} refused {self._settings.member} "
                    f"the subscription to {pattern}: {reason.getName()}"
                )
            self._handlers.subscribed(pattern, refusal)
