"""Messages and blobs from one member to another over mosquitto, with and without TLS.

Compared with: paho, which sends a blob whole, in one message; nothing but two sockets and the
broker, for a small message; nothing but a socket, for a blob. Blobs go to another process and count
until it has the whole and, for a transfer, until the sender knows. All on this machine.
"""

import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, Final

from bench.bare import (
    PahoPair,
    SocketPair,
    closing,
    paho_client,
    paho_stop,
    stream_context,
    stream_seconds,
)
from bench.brokers import Broker, broker
from bench.figures import Figure, quantile
from bench.fleet import HOST
from bench.receiver import transfers_of
from edgechoir.errors import OperatorError
from edgechoir.transport.mqtt import MqttLink, TlsFiles
from edgechoir.transport.sender import Outcome
from edgechoir.transport.transfer import Transfers

MESSAGE: Final = 1024
MESSAGES: Final = 100
MESSAGE_TURNS: Final = 20
SIZES: Final = {"4 MiB": 4 << 20, "40 MiB": 40 << 20}
BLOB_TURNS: Final = 9
WAIT_S: Final = 60.0


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as target:
        return [*asyncio.run(_messages(target)), *asyncio.run(_blobs(target))]


# ---- small messages


async def _messages(target: Broker) -> list[Figure]:
    ours: list[float] = []
    paho: list[float] = []
    sockets: list[float] = []
    with ExitStack() as stack:
        bare, theirs = SocketPair(target.plain), PahoPair(target.plain)
        stack.enter_context(closing(bare))
        stack.enter_context(closing(theirs))
        async with _own_pair(target) as send:
            for turn in range(MESSAGE_TURNS + 1):
                payloads = [os.urandom(MESSAGE) for _ in range(MESSAGES)]
                mine = [await send(payload) for payload in payloads]
                other = await asyncio.to_thread(_seconds_of, theirs, payloads)
                least = await asyncio.to_thread(_seconds_of, bare, payloads)
                if turn:
                    ours += mine
                    paho += other
                    sockets += least
    return [
        Figure(f"1 KB control message, {what}", of(ours), "ms", f"ms, {who}", of(reference))
        for what, of in (
            ("median", lambda all_: median(all_) * 1e3),
            ("p99", lambda all_: quantile(all_, 0.99) * 1e3),
        )
        for who, reference in (("paho", paho), ("sockets and the broker", sockets))
    ]


def _seconds_of(pair: PahoPair | SocketPair, payloads: Sequence[bytes]) -> list[float]:
    return [pair.seconds(payload) for payload in payloads]


@asynccontextmanager
async def _own_pair(target: Broker) -> AsyncIterator[Callable[[bytes], "asyncio.Future[float]"]]:
    """Two members in this process; gives what sends a message from one to the other."""
    async with (
        MqttLink(target.settings("one")) as one,
        MqttLink(target.settings("two")) as two,
        asyncio.TaskGroup() as group,
    ):
        here, there = transfers_of(one), transfers_of(two)
        arrived: asyncio.Queue[float] = asyncio.Queue()

        async def consume(link: MqttLink, transfers: Transfers) -> None:
            async for message in link.messages():
                for _ in transfers.take(message.topic, message.payload):
                    arrived.put_nowait(time.perf_counter())

        async def send(payload: bytes) -> float:
            began = time.perf_counter()
            delivered = here.start("up/one", payload, WAIT_S)
            async with asyncio.timeout(WAIT_S):
                seconds = await arrived.get() - began
                await delivered
            return seconds

        tasks = [
            group.create_task(work)
            for work in (here.run(), there.run(), consume(one, here), consume(two, there))
        ]
        await two.subscribe("up/+")
        await one.subscribe("down/+")
        yield lambda payload: asyncio.ensure_future(send(payload))
        for task in tasks:
            task.cancel()


# ---- blobs


@dataclass(frozen=True, slots=True)
class Far:
    """The process at the other end."""

    said: IO[str]
    pid: int

    def line(self) -> str:
        if not (line := self.said.readline().strip()):
            raise OperatorError("the receiving process ended")
        return line


@contextmanager
def far(kind: str, port: int, size: int, tls: TlsFiles | None) -> Iterator[Far]:
    files = [] if tls is None else [str(tls.ca), str(tls.certificate), str(tls.key)]
    command = [sys.executable, "-m", "bench.receiver", kind, str(port), str(size), *files]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        try:
            yield Far(process.stdout, process.pid)
        finally:
            process.kill()


async def _blobs(target: Broker) -> list[Figure]:
    found = []
    for name, size in SIZES.items():
        with ExitStack() as stack:
            limit = stack.enter_context(_stream(size, None))
            limit_tls = stack.enter_context(_stream(size, target.tls))
            whole = stack.enter_context(_whole(target))
            async with _transfer(target, tls=False) as ours, _transfer(target, tls=True) as secure:
                runs = [ours, secure, whole, limit, limit_tls]
                rates = await _in_turn(size, runs)
        mine, mine_tls, paho, tcp, tls = (median(rate) for rate in rates)
        found += [
            Figure(f"{name} transfer", mine, "MB/s", "MB/s, paho, in one message", paho),
            Figure(f"{name} transfer", mine, "MB/s", "MB/s, a TCP connection, no broker", tcp),
            Figure(f"{name} transfer, TLS", mine_tls, "MB/s", "MB/s, without TLS", mine),
            Figure(f"{name} transfer, TLS", mine_tls, "MB/s", "MB/s, a TLS connection", tls),
        ]
    return found


Run = Callable[[bytes], "asyncio.Future[float]"]


async def _in_turn(size: int, runs: Sequence[Run]) -> list[list[float]]:
    """The rates [MB/s] of each run, taken in turn; the first turn does not count."""
    rates: list[list[float]] = [[] for _ in runs]
    for turn in range(BLOB_TURNS + 1):
        for run, given in zip(runs, rates, strict=True):
            seconds = await run(os.urandom(size))
            if turn:
                given.append(size / 1e6 / seconds)
    return rates


@asynccontextmanager
async def _transfer(target: Broker, *, tls: bool) -> AsyncIterator[Run]:
    settings = target.settings("near", tls=tls)
    with far("transfer", settings.port, 0, settings.tls) as other:
        await asyncio.to_thread(other.line)
        async with MqttLink(settings) as link, asyncio.TaskGroup() as group:
            transfers = transfers_of(link)
            key = "tls" if tls else "plain"

            async def consume() -> None:
                async for message in link.messages():
                    transfers.take(message.topic, message.payload)

            async def send(blob: bytes) -> float:
                began = time.perf_counter()
                outcome = await transfers.start(f"up/{key}", blob, WAIT_S)
                seconds = time.perf_counter() - began
                if outcome is not Outcome.DELIVERED:
                    raise OperatorError(f"a transfer ended as {outcome.value}")
                return seconds

            tasks = [group.create_task(transfers.run()), group.create_task(consume())]
            await link.subscribe(f"down/{key}")
            yield lambda blob: asyncio.ensure_future(send(blob))
            for task in tasks:
                task.cancel()


@contextmanager
def _whole(target: Broker) -> Iterator[Run]:
    with far("paho", target.plain, 0, None) as other:
        client = paho_client(target.plain)
        other.line()

        def send(blob: bytes) -> float:
            began = time.perf_counter()
            client.publish("paho", blob, qos=1)
            other.line()
            return time.perf_counter() - began

        try:
            yield lambda blob: asyncio.ensure_future(asyncio.to_thread(send, blob))
        finally:
            paho_stop(client)


@contextmanager
def _stream(size: int, tls: TlsFiles | None) -> Iterator[Run]:
    with far("stream", 0, size, tls) as other:
        sock = socket.create_connection((HOST, int(other.line())), WAIT_S)
        if tls is not None:
            sock = stream_context(tls, server=False).wrap_socket(sock)
        try:
            yield lambda blob: asyncio.ensure_future(asyncio.to_thread(stream_seconds, sock, blob))
        finally:
            sock.close()
