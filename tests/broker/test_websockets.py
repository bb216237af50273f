"""The listener for monitors by websockets: TLS 1.3, a certificate, and nobody but monitors.

A revoked monitor gets in, as mosquitto takes no CRL there, and may do nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgechoir.broker.run import running_broker
from edgechoir.errors import OperatorError
from edgechoir.fleet.enrolment import MemberPaths

if TYPE_CHECKING:
    from tests.broker.conftest import Client, Fleet, NewClient

pytestmark = pytest.mark.e2e
ROOT = "edgechoir/v1/alps"
STATUS = f"{ROOT}/device/dev-1/status"
DEADLINE_S = 20.0


def serve(fleet: Fleet, port: int, body: Callable[[], None]) -> None:
    settings = replace(fleet.settings, kind="mosquitto", websockets_port=port)

    async def main() -> None:
        async with running_broker(settings):
            await asyncio.to_thread(body)

    asyncio.run(main())


def attempt(fleet: Fleet, port: int, version: ssl.TLSVersion, member: str | None) -> str:
    """The answer's first line to a request for websockets."""
    context = ssl.create_default_context(cafile=fleet.settings.files.ca)
    context.maximum_version = version
    if member is not None:
        paths = MemberPaths(fleet.root / member)
        context.load_cert_chain(paths.certificate, paths.key)

    async def greet() -> str:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=context, server_hostname="localhost"
        )
        writer.write(
            b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        try:
            async with asyncio.timeout(DEADLINE_S):
                return (await reader.readline()).decode()
        finally:
            writer.transport.abort()

    try:
        return asyncio.run(greet())
    except (ssl.SSLError, ConnectionError):
        return "refused"


def test_a_monitor_reads_by_websockets_and_a_device_may_do_nothing_there(
    fleet: Fleet, port: int, new_client: NewClient
) -> None:
    def body() -> None:
        device = new_client(fleet, "dev-1", fleet.settings.port)
        device.publish(STATUS, b"online", retain=True)
        eye = new_client(fleet, "eye-1", port, transport="websockets")
        assert eye.subscribe("edgechoir/v1/+/+/+/status") == "subscribed"
        assert eye.receive().payload == b"online"
        outside = new_client(fleet, "dev-1", port, transport="websockets")
        outside.subscribe(f"{ROOT}/+/+/status")
        outside.publish(STATUS, b"by websockets", retain=True)
        eye.publish(STATUS, b"of a monitor", retain=True)
        device.publish(STATUS, b"online still", retain=True)
        assert eye.receive().payload == b"online still"
        assert outside.messages.empty()

    serve(fleet, port, body)


def test_a_revoked_monitor_reads_nothing_more(
    fleet: Fleet, port: int, new_client: NewClient
) -> None:
    def body() -> None:
        device = new_client(fleet, "dev-1", fleet.settings.port)
        fleet.enrol("monitor", "eye-2")
        eye, other = (
            new_client(fleet, name, port, transport="websockets") for name in ("eye-1", "eye-2")
        )

        def reads(revoked: Client) -> bool:
            """Does it hear what the other one hears?"""
            device.publish(STATUS, b"online")
            other.receive()
            return not revoked.messages.empty() and bool(revoked.receive())

        for client in (eye, other):
            client.subscribe(f"{ROOT}/+/+/status")
        deadline = time.monotonic() + DEADLINE_S
        while other.messages.empty():  # until its rules are in force
            assert time.monotonic() < deadline
            device.publish(STATUS, b"online")
        assert eye.receive()
        fleet.revoke("eye-1")
        while reads(eye):
            assert time.monotonic() < deadline, "the revoked monitor still reads"
        for _ in range(3):  # the broker lives on, whoever comes
            again = new_client(fleet, "eye-1", port, transport="websockets")
            again.subscribe(f"{ROOT}/+/+/status")
            assert not reads(again)

    serve(fleet, port, body)


def test_without_a_certificate_or_with_old_tls_nobody_gets_in(fleet: Fleet, port: int) -> None:
    def body() -> None:
        assert attempt(fleet, port, ssl.TLSVersion.TLSv1_3, "eye-1").startswith("HTTP/1.1 101")
        assert attempt(fleet, port, ssl.TLSVersion.TLSv1_3, None) == "refused"
        assert attempt(fleet, port, ssl.TLSVersion.TLSv1_2, "eye-1") == "refused"

    serve(fleet, port, body)


def test_the_python_broker_has_no_such_listener(fleet: Fleet, port: int) -> None:
    async def main() -> None:
        async with running_broker(replace(fleet.settings, kind="python", websockets_port=port)):
            pass

    with pytest.raises(OperatorError, match="need mosquitto"):
        asyncio.run(main())
