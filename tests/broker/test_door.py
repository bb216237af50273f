"""What the Python broker's door adds to amqtt: bounds, keep-alive, and one member a client id."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.enums import MQTTProtocolVersion

from edgechoir.broker.door import PacketReader
from edgechoir.fleet.enrolment import MemberPaths

if TYPE_CHECKING:
    from tests.broker.conftest import Connect, Fleet

ROOT = "edgechoir/v1/alps"
DEADLINE_S = 20.0


def read_all(chunks: list[bytes], sizes: list[int], *, first: bytes = b"") -> list[bytes]:
    """Feed chunks and an end of stream, and read pieces of the given sizes, at most 10 bytes."""

    async def main() -> list[bytes]:
        stream = asyncio.StreamReader()
        for chunk in chunks:
            stream.feed_data(chunk)
        stream.feed_eof()
        reader = PacketReader(first, stream, 10, None)
        return [await reader.read(n) for n in sizes]

    return asyncio.run(main())


def test_the_first_packet_is_read_before_the_socket() -> None:
    assert read_all([b"cd", b"efg"], [1, 3, 0, 3], first=b"ab") == [b"a", b"bcd", b"", b"efg"]


def test_a_stream_that_ends_within_a_packet_gives_the_end() -> None:
    assert read_all([b"abc"], [2, 5, 1]) == [b"ab", b"", b""]


def test_after_a_packet_above_the_limit_nothing_more_is_read() -> None:
    assert read_all([b"abc" * 20], [3, 11, 3]) == [b"abc", b"", b""]


def test_a_silent_client_is_given_up() -> None:
    async def main() -> bytes:
        return await PacketReader(b"", asyncio.StreamReader(), 10, 0.01).read(1)

    assert asyncio.run(main()) == b""


pytest.importorskip("amqtt")


@pytest.mark.e2e
def test_a_client_of_mqtt_5_is_told_to_fall_back(fleet: Fleet) -> None:
    def body(connect: Connect) -> None:
        answer = connect("dev-1", version=MQTTProtocolVersion.MQTTv5).connect()
        assert answer == "refused: Unsupported protocol version"
        assert connect("dev-1").connect() == "connected"

    fleet.serve("python", body)


@pytest.mark.e2e
def test_a_member_cannot_take_over_the_connection_of_another(fleet: Fleet) -> None:
    def body(connect: Connect) -> None:
        device = connect("dev-1", client_id="voice")
        device.connect()
        assert connect("dev-2", client_id="voice").connect().startswith("refused: ")
        device.publish(f"{ROOT}/device/dev-1/status", b"still here")

    fleet.serve("python", body)


@pytest.mark.e2e
def test_a_client_that_comes_back_replaces_its_old_connection_after_its_will(
    fleet: Fleet,
) -> None:
    topic = f"{ROOT}/device/dev-1/status"

    def body(connect: Connect) -> None:
        eye = connect("eye-1")
        eye.connect()
        eye.subscribe(f"{ROOT}/+/+/status")
        old = connect("dev-1", client_id="voice", will=(topic, b"lost"))
        old.connect()
        new = connect("dev-1", client_id="voice", will=(topic, b"lost"))
        assert new.connect() == "connected"
        assert old.ended.wait(DEADLINE_S)
        new.publish(topic, b"online")
        assert [eye.receive().payload, eye.receive().payload] == [b"lost", b"online"]

    fleet.serve("python", body)


@pytest.mark.e2e
def test_connections_above_the_bound_are_refused(fleet: Fleet) -> None:
    def body(connect: Connect) -> None:
        assert connect("dev-1").connect() == "connected"
        assert connect("dev-2").connect() == "refused"

    fleet.serve("python", body, max_connections=1)


@pytest.mark.e2e
def test_a_lasting_session_needs_a_client_id(fleet: Fleet) -> None:
    connect_packet = b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00"

    def body(_connect: Connect) -> None:
        asyncio.run(speak(fleet, connect_packet, heard=b"\x20\x02\x00\x02"))

    fleet.serve("python", body)


@pytest.mark.e2e
def test_a_client_that_falls_silent_is_given_up_after_its_keep_alive(fleet: Fleet) -> None:
    connect_packet = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x01\x00\x05voice"  # keep-alive 1 s

    def body(_connect: Connect) -> None:
        asyncio.run(speak(fleet, connect_packet, heard=b"\x20\x02\x00\x00"))

    fleet.serve("python", body)


@pytest.mark.e2e
def test_bytes_that_are_no_mqtt_end_the_connection_and_nothing_else(fleet: Fleet) -> None:
    def body(connect: Connect) -> None:
        for packet in (b"GET / HTTP/1.1\r\n\r\n", b"\x10\xff\xff\xff\xff", b"\x10\x05hello"):
            asyncio.run(speak(fleet, packet, heard=b""))
        assert connect("dev-1").connect() == "connected"

    fleet.serve("python", body)


async def speak(fleet: Fleet, packet: bytes, *, heard: bytes) -> None:
    """Connect as dev-1, say one thing, and listen until the broker hangs up."""
    paths = MemberPaths(fleet.root / "dev-1")
    context = ssl.create_default_context(cafile=paths.ca)
    context.load_cert_chain(paths.certificate, paths.key)
    port = fleet.settings.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    writer.write(packet)
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == heard
    writer.close()
    await writer.wait_closed()
