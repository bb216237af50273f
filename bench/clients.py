"""Our adapter on paho beside aiomqtt, another one: why there is one of our own.

Install aiomqtt to run it: it is no dependency. Each value is measured in a process of its own.
`python -m bench.clients` prints a table.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench.brokers import broker
from bench.crowd import resident
from bench.fleet import HOST
from edgechoir.errors import LinkError
from edgechoir.transport.mqtt import MqttLink, MqttSettings

MESSAGES: Final = 2000
LARGE: Final = 130_000
BLOB: Final = 4 << 20
TURNS: Final = 10
SLOW: Final = 500
WAIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Client:
    """One connection, whoever made it."""

    publish: Callable[[str, bytes], Awaitable[None]]
    subscribe: Callable[[str], Awaitable[object]]
    payloads: AsyncIterator[bytes]


@asynccontextmanager
async def ours(port: int) -> AsyncIterator[Client]:
    settings = MqttSettings(HOST, port, "m", os.urandom(8), mqtt5=True, max_packet=8 << 20)
    async with MqttLink(settings) as link:

        async def payloads() -> AsyncIterator[bytes]:
            async for message in link.messages():
                yield message.payload

        await link.connected(WAIT_S)
        yield Client(link.publish, link.subscribe, payloads())


@asynccontextmanager
async def theirs(port: int) -> AsyncIterator[Client]:
    import aiomqtt  # type: ignore[import-not-found, unused-ignore]  # not a dependency

    async with aiomqtt.Client(
        HOST,
        port,
        protocol=aiomqtt.ProtocolVersion.V5,
        # Without it each message waits 40 ms for an acknowledgement of TCP.
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    ) as client:

        async def publish(topic: str, payload: bytes) -> None:
            await client.publish(topic, payload, qos=1)

        async def subscribe(pattern: str) -> None:
            await client.subscribe(pattern, qos=1)

        async def payloads() -> AsyncIterator[bytes]:
            async for message in client.messages:
                yield message.payload

        yield Client(publish, subscribe, payloads())


OPEN: Final[dict[str, Any]] = {"ours": ours, "aiomqtt": theirs}


async def cost(who: str, port: int) -> float:
    """Processor time of a 1 KB message out and back in again [ms]."""
    async with OPEN[who](port) as client:
        await client.subscribe("x")
        began = time.process_time()
        for _ in range(MESSAGES):
            await client.publish("x", bytes(1024))
            await anext(client.payloads)
        return (time.process_time() - began) / MESSAGES * 1e3


async def large(who: str, port: int, size: int = LARGE) -> float:
    """4 MiB out and back in again, in messages of `size` [MB/s]."""
    count = -(-BLOB // size)
    rates = []
    async with OPEN[who](port) as client:
        await client.subscribe("x")
        for _ in range(TURNS):
            began = time.perf_counter()
            async with asyncio.TaskGroup() as group:
                for _ in range(count):
                    group.create_task(client.publish("x", bytes(size)))
                for _ in range(count):
                    await anext(client.payloads)
            rates.append(count * size / 1e6 / (time.perf_counter() - began))
    return median(rates)


async def whole(who: str, port: int) -> float:
    """The same in one message [MB/s]."""
    return await large(who, port, BLOB)


async def memory(who: str, port: int) -> float:
    """What 65 MB for a member that takes nothing add to its process [MB]."""
    async with OPEN[who](port) as client, OPEN["ours"](port) as sender:
        await client.subscribe("x")
        before = resident(os.getpid())
        for _ in range(SLOW):
            await sender.publish("x", bytes(LARGE))
        return resident(os.getpid()) - before


async def back(who: str, port: int) -> float:
    """From the end of a broker to the next message, when it is back at once [s]; inf: never, the
    caller must make a new client and subscribe again."""
    import bench.brokers

    with tempfile.TemporaryDirectory() as folder:
        first = bench.brokers.broker(Path(folder))
        target = first.__enter__()
        async with asyncio.timeout(20):
            try:
                async with OPEN[who](target.plain) as client:
                    await client.subscribe("x")
                    os.kill(target.pid, 9)
                    began = time.perf_counter()
                    again = subprocess.Popen(  # noqa: ASYNC220 - starts in a moment
                        ["mosquitto", "-c", f"{folder}/mosquitto.conf"], stderr=subprocess.DEVNULL
                    )
                    try:
                        await client.publish("x", b"again")
                        await anext(client.payloads)
                        return time.perf_counter() - began
                    finally:
                        again.kill()
                        again.wait()
            except Exception as error:  # aiomqtt's own, which ours does not know
                if isinstance(error, LinkError | TimeoutError):
                    raise
                return float("inf")


MEASURES: Final = {"cost": cost, "large": large, "whole": whole, "memory": memory, "back": back}


def cancel(who: str) -> float:
    """From giving up a connection that nobody answers until the process may end [s]."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0), backlog=0))
        port = listener.getsockname()[1]
        for _ in range(3):  # its queue is full then, and it lets nobody in
            other = stack.enter_context(socket.socket())
            other.setblocking(False)
            other.connect_ex((HOST, port))

        async def connect() -> None:
            async with asyncio.timeout(0.2), OPEN[who](port):
                pass

        began = time.perf_counter()
        with suppress(TimeoutError):
            asyncio.run(connect())
        return time.perf_counter() - began - 0.2


def main() -> None:
    if len(sys.argv) > 1:
        what, who, port = sys.argv[1:]
        value = cancel(who) if what == "cancel" else asyncio.run(MEASURES[what](who, int(port)))
        print(json.dumps(value))
        return
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as target:
        for what in (*MEASURES, "cancel"):
            row = []
            for who in OPEN:
                command = [sys.executable, "-m", "bench.clients", what, who, str(target.plain)]
                done = subprocess.run(command, capture_output=True, text=True, timeout=90)
                row.append(done.stdout.strip() or done.stderr.strip().splitlines()[-1])
            print(f"{what:8} {row[0]:>24} {row[1]:>24}", flush=True)


if __name__ == "__main__":
    main()
