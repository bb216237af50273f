"""What only the MQTT link does: failures by name, versions, back-pressure, broken brokers."""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Protocol

import pytest

from edgechoir.errors import LinkError
from edgechoir.transport.link import Message, Priority
from edgechoir.transport.mqtt import MqttLink, MqttSettings, TlsFiles, Will

HOST = "127.0.0.1"


class TlsTrial(Protocol):
    """What the fixture gives: a broker with mutual TLS, and files of members good and bad."""

    port: int
    member: TlsFiles
    stranger: TlsFiles
    expired: TlsFiles
    wrong_ca: TlsFiles
    missing: TlsFiles


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

CONNACK_5 = b"\x20\x03\x00\x00\x00"
CONNACK_311 = b"\x20\x02\x00\x00"
REFUSED_VERSION = b"\x20\x02\x00\x01"


def settings_for(port: int, **changes: object) -> MqttSettings:
    usual = MqttSettings(
        HOST, port, "a", os.urandom(8), connect_timeout=5.0, retry_first=0.02, retry_last=0.1
    )
    return replace(usual, **changes)  # type: ignore[arg-type]  # checked by the dataclass


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """One MQTT packet, its first byte and what follows its length; b"" at the end."""
    head = await reader.read(1)
    if not head:
        return b""
    length, shift = 0, 0
    while True:
        digit = await reader.readexactly(1)
        length |= (digit[0] & 127) << shift
        shift += 7
        if not digit[0] & 128:
            return head + await reader.readexactly(length)


@asynccontextmanager
async def scripted(
    answers: Sequence[Answer], receive_buffer: int | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A broker that handles its n-th connection by the n-th answer, later ones by the last.

    Gives its port and the list of CONNECT packets seen.
    """
    greetings: list[bytes] = []
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            greetings.append(await read_packet(reader))
            await answers[min(len(greetings), len(answers)) - 1](reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(handle(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = socket.create_server((HOST, 0))
    if receive_buffer is not None:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    server = await asyncio.start_server(accept, sock=listener, limit=receive_buffer or 65536)
    try:
        yield server.sockets[0].getsockname()[1], greetings
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def say(*packets: bytes, serve: bool = True) -> Answer:
    """Send packets after CONNECT, then swallow everything until the link hangs up."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(packets))
        await writer.drain()
        while serve and await reader.read(4096):
            pass

    return answer


async def connected_at_last(link: MqttLink) -> None:
    async with asyncio.timeout(20):
        async for state in link.changes():
            if state.connected:
                return


async def reason_without(link: MqttLink) -> str:
    """The reason of the first failure to connect."""
    async with asyncio.timeout(20), link:
        async for state in link.changes():
            assert not state.connected
            if not state.reason.endswith("not connected yet"):
                return state.reason
    raise AssertionError("the link was closed")


def test_a_broker_of_the_older_version_is_spoken_to_in_it_and_remembered() -> None:
    async def run() -> None:
        answers = [
            say(REFUSED_VERSION, serve=False),
            say(CONNACK_311, serve=False),
            say(CONNACK_311),
        ]
        async with scripted(answers) as (port, greetings), MqttLink(settings_for(port)) as link:
            states = link.changes()
            async with asyncio.timeout(20):
                seen = [state async for state in until_connected_times(states, 2)]
            assert "MQTT 3.1.1" in seen[-1]
            assert [greeting[7] for greeting in greetings] == [5, 4, 4]

    async def until_connected_times(
        states: AsyncIterator[object], times: int
    ) -> AsyncIterator[str]:
        async for state in states:
            if getattr(state, "connected", False):
                yield getattr(state, "reason", "")
                times -= 1
                if times == 0:
                    return

    asyncio.run(run())


def test_a_broker_that_hangs_up_or_is_silent_is_tried_in_the_older_version() -> None:
    async def run() -> None:
        for first in (say(serve=False), say()):
            answers = [first, say(CONNACK_311)]
            async with (
                scripted(answers) as (port, greetings),
                MqttLink(settings_for(port, connect_timeout=0.2)) as link,
            ):
                await connected_at_last(link)
                assert [greeting[7] for greeting in greetings[:2]] == [5, 4]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (say(b"\x20\x03\x00\x87\x00"), "refused the connection of a: Not authorized"),
        (say(b"\x20\x03\x00\x86\x00"), "Bad user name or password"),
        (say(serve=False), "closed the connection without an answer"),
        (say(b"\xf0\x00"), "no MQTT"),
        (say(b"\x20\xff\xff\xff\x7f"), "at most 1048576"),
    ],
)
def test_a_refusal_says_what_the_broker_said(answer: Answer, expected: str) -> None:
    async def run() -> None:
        async with scripted([answer]) as (port, _):
            reason = await reason_without(MqttLink(settings_for(port)))
            assert expected in reason
            assert reason.count(f"{HOST}:{port}") == 1
            assert "\n" not in reason

    asyncio.run(run())


def test_a_broker_that_says_nothing_is_given_up_at_the_deadline() -> None:
    async def run() -> None:
        async with scripted([say()]) as (port, _):
            reason = await reason_without(MqttLink(settings_for(port, connect_timeout=0.1)))
            assert "said nothing within 0.1 s" in reason

    asyncio.run(run())


def test_where_nothing_listens_the_line_says_so() -> None:
    with socket.socket() as unused:
        unused.bind((HOST, 0))
        port = unused.getsockname()[1]
        reason = asyncio.run(reason_without(MqttLink(settings_for(port))))
    assert "refused the connection: is the broker running" in reason


def test_a_name_without_an_address_is_named() -> None:
    settings = settings_for(1883, host="no-such-host.invalid")
    assert "no address" in asyncio.run(reason_without(MqttLink(settings)))


def test_a_half_open_connection_is_noticed_by_the_missing_answer_to_pings() -> None:
    async def run() -> None:
        answers = [say(CONNACK_5)]
        async with (
            scripted(answers) as (port, _),
            MqttLink(settings_for(port, keepalive=1)) as link,
        ):
            states = link.changes()
            async with asyncio.timeout(20):
                async for state in states:
                    if state.connected:
                        break
                lost = await anext(states)
            assert "no sign of life" in lost.reason

    asyncio.run(run())


def test_a_session_taken_over_is_named() -> None:
    async def run() -> None:
        taken_over = b"\xe0\x02\x8e\x00"
        async with (
            scripted([say(CONNACK_5, taken_over)]) as (port, _),
            MqttLink(settings_for(port)) as link,
        ):
            async with asyncio.timeout(20):
                async for state in link.changes():
                    if "session taken over" in state.reason:
                        break

    asyncio.run(run())


def test_a_refused_subscription_raises_and_is_not_asked_for_again() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK_5)
        subscribe = await read_packet(reader)
        writer.write(b"\x90\x04" + subscribe[1:3] + b"\x00\x87")
        await read_packet(reader)

    asked: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK_5)
        asked.append(await read_packet(reader))

    async def run() -> None:
        async with scripted([refuse, listen]) as (port, _):
            async with MqttLink(settings_for(port)) as link:
                with pytest.raises(LinkError, match=r"subscription to x/#: Not authorized"):
                    await link.subscribe("x/#")
                with pytest.raises(LinkError):
                    await link.publish("never/acknowledged", b"", timeout=0.2)
            assert all(packet[:1] != b"\x82" for packet in asked)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("code", "expected"), [(4, "Bad user name or password"), (5, "Not authorized")]
)
def test_a_refusal_in_the_older_version_is_named(code: int, expected: str) -> None:
    async def run() -> None:
        async with scripted([say(b"\x20\x02\x00" + bytes([code]))]) as (port, _):
            reason = await reason_without(MqttLink(settings_for(port, mqtt5=False)))
            assert f"refused the connection of a: {expected}" in reason

    asyncio.run(run())


def test_a_refused_subscription_in_the_older_version_raises() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CONNACK_311)
        subscribe = await read_packet(reader)
        writer.write(b"\x90\x03" + subscribe[1:3] + b"\x80")
        await read_packet(reader)

    async def run() -> None:
        async with (
            scripted([refuse]) as (port, _),
            MqttLink(settings_for(port, mqtt5=False)) as link,
        ):
            with pytest.raises(LinkError, match="refused a the subscription to x/#"):
                await link.subscribe("x/#")

    asyncio.run(run())


def test_what_was_in_flight_is_sent_again_over_the_next_connection() -> None:
    async def run() -> None:
        published: list[bytes] = []

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CONNACK_5)
            await read_packet(reader)

        async def acknowledge(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CONNACK_5)
            while packet := await read_packet(reader):
                if packet[0] & 0xF0 == 0x30:
                    published.append(packet)
                    writer.write(b"\x40\x02" + packet[4:6])  # behind the topic "t"

        async with (
            scripted([swallow, acknowledge]) as (port, _),
            MqttLink(settings_for(port)) as link,
        ):
            async with asyncio.TaskGroup() as group:
                for n in range(40):
                    group.create_task(link.publish("t", bytes([n]), timeout=10))
            assert [packet[-1] for packet in published] == list(range(40))

    asyncio.run(run())


def test_after_a_reconnection_no_packet_asks_for_more_topics_than_aws_takes() -> None:
    patterns = [f"topic/{n}" for n in range(20)]

    async def run() -> None:
        asked: asyncio.Queue[list[str]] = asyncio.Queue()

        async def agree(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CONNACK_5)
            for _ in patterns:
                subscribe = await read_packet(reader)
                writer.write(b"\x90\x04" + subscribe[1:3] + b"\x00\x01")

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CONNACK_5)
            while packet := await read_packet(reader):
                if packet[0] == 0x82:
                    asked.put_nowait([p for p in patterns if p.encode() + b"\x01" in packet])

        async with (
            scripted([agree, listen]) as (port, _),
            MqttLink(settings_for(port)) as link,
        ):
            for pattern in patterns:
                await link.subscribe(pattern)
            async with asyncio.timeout(20):
                batches = [await asked.get() for _ in range(3)]
            assert [len(batch) for batch in batches] == [8, 8, 4]
            assert sorted(p for batch in batches for p in batch) == sorted(patterns)

    asyncio.run(run())


def test_a_message_larger_than_the_broker_takes_is_refused_before_it_is_sent() -> None:
    async def run() -> None:
        small_packets = b"\x20\x08\x00\x00\x05\x27\x00\x00\x04\x00"
        async with (
            scripted([say(small_packets)]) as (port, _),
            MqttLink(settings_for(port)) as link,
        ):
            with pytest.raises(LinkError, match="at most 1024 bytes"):
                await link.publish("t", bytes(1100))

    asyncio.run(run())


def test_a_broker_that_acknowledges_nothing_is_left(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with (
            scripted([say(CONNACK_5)]) as (port, greetings),
            MqttLink(settings_for(port)) as link,
        ):
            await link.connected(10)
            results = await asyncio.gather(
                *(link.publish("t", b"x", timeout=0.1) for _ in range(16)), return_exceptions=True
            )
            assert all(isinstance(result, LinkError) for result in results)
            async with asyncio.timeout(10):
                async for state in link.changes():
                    if state.connected and len(greetings) == 2:
                        break

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "acknowledges nothing" in caplog.text


def test_on_a_slow_way_control_and_documents_overtake_bulk() -> None:
    async def run() -> None:
        order: list[bytes] = []
        all_published = asyncio.Event()

        async def read_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CONNACK_5)
            await all_published.wait()
            while packet := await read_packet(reader):
                if packet[0] & 0xF0 == 0x30:
                    payload = packet.index(b"body")
                    order.append(packet[payload - 4 : payload - 3])
                    writer.write(b"\x40\x02" + packet[payload - 3 : payload - 1])

        async with (
            scripted([read_late], receive_buffer=16384) as (port, _),
            MqttLink(settings_for(port)) as link,
        ):
            await link.connected(10)
            async with asyncio.TaskGroup() as group:
                for topic, size, priority in (
                    *[("b", 100_000, Priority.BULK)] * 20,
                    ("d", 1000, Priority.DOCUMENT),
                    ("c", 1000, Priority.CONTROL),
                ):
                    payload = b"body" + bytes(size)
                    group.create_task(link.publish(topic, payload, priority=priority, timeout=20))
                for _ in range(10):  # turns of the loop, so that the kernel has all that it takes
                    await asyncio.sleep(0)
                all_published.set()
        assert sorted(order) == [b"b"] * 20 + [b"c", b"d"]
        assert max(order.index(b"c"), order.index(b"d")) <= 4

    asyncio.run(run())


@pytest.mark.e2e
def test_a_slow_consumer_loses_no_acknowledged_message(mosquitto: int) -> None:
    async def run() -> None:
        async with (
            MqttLink(settings_for(mosquitto)) as a,
            MqttLink(settings_for(mosquitto, inbox_messages=8)) as b,
        ):
            await b.subscribe("open/slow")
            for n in range(100):
                await a.publish("open/slow", bytes([n]))
            assert b.counters.messages_down <= 8
            await b.publish("open/other", b"the way up is free")
            async with asyncio.timeout(20):
                messages = b.messages()
                got = [await anext(messages) for _ in range(100)]
            assert [message.payload[0] for message in got] == list(range(100))
            assert b.counters.dropped == 0

    asyncio.run(run())


@pytest.mark.e2e
def test_qos_0_beyond_the_inbox_is_dropped_and_counted(mosquitto: int) -> None:
    async def run() -> None:
        async with (
            MqttLink(settings_for(mosquitto)) as a,
            MqttLink(settings_for(mosquitto, inbox_messages=8)) as b,
        ):
            await b.subscribe("open/fast")
            for n in range(50):
                await a.publish("open/fast", bytes([n]), qos=0)
            await b.subscribe("open/last")
            await a.publish("open/last", b"", qos=1)
            messages = b.messages()
            async with asyncio.timeout(20):
                topics = [(await anext(messages)).topic for _ in range(9)]
            assert topics == ["open/fast"] * 8 + ["open/last"]
            assert b.counters.dropped == 42

    asyncio.run(run())


@pytest.mark.e2e
def test_leaving_a_link_leaves_no_thread_and_no_task(mosquitto: int) -> None:
    async def run() -> None:
        tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
        async with MqttLink(settings_for(mosquitto)) as link:
            await link.publish("open/x", b"x")
            assert set(threading.enumerate()) == threads
        assert asyncio.all_tasks() == tasks

    asyncio.run(run())


@pytest.mark.e2e
def test_a_link_waits_for_a_broker_that_starts_later_and_survives_its_restart(
    broker_at: Callable[[int], Callable[[], None]], free: int
) -> None:
    async def run() -> None:
        async with MqttLink(settings_for(free)) as a, MqttLink(settings_for(free)) as b:
            subscribing = asyncio.create_task(b.subscribe("open/#"))
            messages = b.messages()
            for word in (b"first", b"second"):
                stop = await asyncio.to_thread(broker_at, free)
                await subscribing
                await b.connected(10)
                await a.publish("open/x", word)
                async with asyncio.timeout(10):
                    assert await anext(messages) == Message("open/x", word, False)
                await asyncio.to_thread(stop)

    asyncio.run(run())


def tls_settings(port: int, tls: TlsFiles, host: str = HOST) -> MqttSettings:
    return settings_for(port, tls=tls, host=host)


@pytest.mark.e2e
def test_mutual_tls_connects_with_files_of_one_authority(tls_broker: TlsTrial) -> None:
    async def run() -> None:
        async with MqttLink(tls_settings(tls_broker.port, tls_broker.member)) as link:
            await link.publish("open/x", bytes(200_000))
            assert "TLSv1" in link.state.reason

    asyncio.run(run())


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("files", "host", "expected"),
    [
        ("stranger", HOST, "does not know the CA of our certificate"),
        ("expired", HOST, "refused our certificate as expired"),
        ("wrong_ca", HOST, "its certificate is of a CA that we do not know"),
        ("member", "localhost", "its certificate is for another name"),
        ("missing", HOST, "No such file"),
    ],
)
def test_each_fault_of_tls_has_its_own_line(
    tls_broker: TlsTrial, files: str, host: str, expected: str
) -> None:
    link = MqttLink(tls_settings(tls_broker.port, getattr(tls_broker, files), host))
    assert expected in asyncio.run(reason_without(link))


@pytest.mark.e2e
def test_a_broker_with_an_expired_certificate_is_not_trusted(expired_broker: TlsTrial) -> None:
    link = MqttLink(tls_settings(expired_broker.port, expired_broker.member))
    assert "its certificate has expired" in asyncio.run(reason_without(link))


@pytest.mark.e2e
def test_tls_to_a_plain_port_and_plain_to_a_tls_port_are_told_apart(
    tls_broker: TlsTrial, mosquitto: int
) -> None:
    async def run() -> None:
        plain = await reason_without(MqttLink(tls_settings(mosquitto, tls_broker.member)))
        assert "does not speak TLS" in plain or "within TLS" in plain or "reset" in plain
        secret = await reason_without(MqttLink(settings_for(tls_broker.port)))
        assert "may expect TLS" in secret or "or expect TLS" in secret

    asyncio.run(run())


@pytest.mark.e2e
def test_a_link_opened_anew_keeps_its_session_and_sends_no_will(mosquitto: int) -> None:
    async def run() -> None:
        will = Will("open/will", b"lost", retain=False)
        async with (
            MqttLink(settings_for(mosquitto, will=will)) as a,
            MqttLink(settings_for(mosquitto)) as b,
        ):
            await a.subscribe("open/to-a")
            await b.subscribe("open/will")
            await b.subscribe("open/end")
            await a.connected(5)
            await a.reopen()
            await b.publish("open/to-a", b"while it was away")
            await a.publish("open/end", b"after")
            async with asyncio.timeout(20):
                assert (await anext(a.messages())).payload == b"while it was away"
                assert (await anext(b.messages())).payload == b"after"
            assert a.counters.reconnects == 1

    asyncio.run(run())
