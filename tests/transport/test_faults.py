"""What goes wrong on the way to the broker: noticed in time, said in one line, tried again."""

import asyncio
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Protocol

import pytest

from edgechoir.transport.mqtt import REPEAT_S, Complaints, MqttLink, MqttSettings, TlsFiles

HOST = "127.0.0.1"
WAIT_S = 30.0


class Proxy(Protocol):
    port: int
    swallowing: bool
    refusing: bool

    def cut(self) -> None: ...
    def mend(self) -> None: ...


FaultyWay = Callable[[], AbstractAsyncContextManager[Proxy]]


def link_to(port: int, **changes: Any) -> MqttLink:
    return MqttLink(
        MqttSettings(
            changes.pop("host", HOST),
            port,
            "a",
            os.urandom(8),
            connect_timeout=5.0,
            retry_first=0.01,
            retry_last=0.02,
            **changes,
        )
    )


async def until(link: MqttLink, *, connected: bool) -> str:
    async with asyncio.timeout(WAIT_S):
        async for state in link.changes():
            if state.connected is connected:
                return state.reason
    raise AssertionError("the link was closed")


async def first_failure(link: MqttLink) -> str:
    async with link, asyncio.timeout(WAIT_S):
        async for state in link.changes():
            if not state.reason.endswith("not connected yet"):
                return state.reason
    raise AssertionError("the link was closed")


# ---- half-open


@pytest.mark.e2e
@pytest.mark.parametrize("talking", [False, True], ids=["silent", "talking"])
def test_a_way_that_swallows_everything_is_noticed_within_the_keep_alive(
    faulty_way: FaultyWay, talking: bool
) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        async with faulty_way() as way, link_to(way.port, keepalive=3) as link:
            await link.connected(WAIT_S)
            way.swallowing = True
            began = loop.time()
            pending = []
            if talking:
                pending = [
                    asyncio.create_task(link.publish("open/x", b"%d" % n, timeout=WAIT_S))
                    for n in range(20)
                ]
            reason = await until(link, connected=False)
            assert loop.time() - began <= 3.5
            assert "no sign of life" in reason
            way.mend()
            await link.connected(WAIT_S)
            await asyncio.gather(*pending)  # what was under way is not lost

    asyncio.run(run())


@pytest.mark.e2e
def test_a_clock_that_is_set_disturbs_no_connection(
    mosquitto: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        real = time.time
        async with link_to(mosquitto, keepalive=1) as link:
            await link.connected(WAIT_S)
            for years in (1, -1, 0):
                monkeypatch.setattr(time, "time", lambda years=years: real() + years * 3.15e7)
                end = asyncio.get_running_loop().time() + 1.2  # longer than the keep-alive
                while asyncio.get_running_loop().time() < end:
                    await link.publish("open/x", b"", timeout=5)
            assert link.counters.reconnects == 0

    asyncio.run(run())


# ---- TLS


@pytest.mark.e2e
def test_a_certificate_of_the_future_points_at_the_clocks(
    early_broker: Any, tls_broker: Any
) -> None:
    async def run() -> None:
        theirs = await first_failure(link_to(early_broker.port, tls=early_broker.member))
        assert "its certificate is not valid yet: set our clock" in theirs
        ours = await first_failure(link_to(tls_broker.port, tls=tls_broker.early))
        assert "our certificate" in ours

    asyncio.run(run())


@contextmanager
def old_tls(files: TlsFiles) -> Iterator[int]:
    """A server that speaks TLS 1.1 at most."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match="TLSv1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(files.certificate, files.key)
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    sock, _ = listener.accept()
                    with sock, pytest.raises(OSError):
                        context.wrap_socket(sock, server_side=True)
            except OSError:
                return  # the listener was closed

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.e2e
def test_a_broker_with_old_tls_alone_is_told_apart(tls_broker: Any) -> None:
    with old_tls(tls_broker.member) as port:
        reason = asyncio.run(first_failure(link_to(port, tls=tls_broker.member)))
    assert "TLS" in reason
    assert "version" in reason or "1.2 or newer" in reason


# ---- one line


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.e2e
def test_a_broker_that_is_away_for_many_attempts_costs_one_line(
    faulty_way: FaultyWay, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with faulty_way() as way, link_to(way.port) as link:
            await link.connected(WAIT_S)
            attempts: list[object] = []
            refuse = way.refusing
            way.cut()
            await until(link, connected=False)
            async with asyncio.timeout(WAIT_S):
                async for _ in attempts_of(link, attempts):
                    if len(attempts) >= 20:
                        break
            way.refusing = refuse
            await link.connected(WAIT_S)

    async def attempts_of(link: MqttLink, attempts: list[object]) -> AsyncIterator[None]:
        while True:
            attempts.append(None)
            await asyncio.sleep(0.02)
            yield

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert 1 <= len(warnings(caplog)) <= 3


def test_a_reason_is_repeated_after_its_time_with_the_number_of_attempts(
    caplog: pytest.LogCaptureFixture,
) -> None:
    complaints = Complaints()
    with caplog.at_level(logging.WARNING):
        for second in range(0, int(2 * REPEAT_S), 10):
            complaints.make("it is away", float(second))
        complaints.make("it refuses us", 2 * REPEAT_S)
    assert warnings(caplog) == [
        "it is away",
        "it is away (30 attempts since the last line)",
        "it refuses us (30 attempts since the last line)",
    ]
