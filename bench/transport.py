"""Messages and blobs from one client to another over mosquitto: our link, and paho by itself.

All four clients live in this process and speak MQTT 5 to one broker on this machine, without TLS.
paho runs as it is usually run, each client on a thread of its own.
"""

import asyncio
import os
import pwd
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bench.figures import Figure, quantile
from bench.fleet import HOST, free_port
from edgechoir.broker.mosquitto_process import find_mosquitto
from edgechoir.errors import OperatorError
from edgechoir.transport.blobs import Assembler, send_blob
from edgechoir.transport.link import Message
from edgechoir.transport.mqtt import MqttLink, MqttSettings

MESSAGE: Final = 1024
MESSAGES: Final = 100
BLOB: Final = 4 << 20
TURNS: Final = 25
WAIT_S: Final = 20.0


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as port:
        return asyncio.run(_compare(port))


async def _compare(port: int) -> list[Figure]:
    ours: list[float] = []
    theirs: list[float] = []
    rates: tuple[list[float], list[float]] = ([], [])
    with bare(port) as reference:
        async with linked(port) as pair:
            for turn in range(TURNS + 1):
                sent = [await pair.seconds_of_message() for _ in range(MESSAGES)]
                alone = await asyncio.to_thread(
                    lambda: [reference.seconds(os.urandom(MESSAGE)) for _ in range(MESSAGES)]
                )
                blob = os.urandom(BLOB)
                rate = BLOB / 1e6 / await pair.seconds_of_blob(blob)
                rate_alone = BLOB / 1e6 / await asyncio.to_thread(reference.seconds, blob)
                if turn:
                    ours += sent
                    theirs += alone
                    rates[0].append(rate)
                    rates[1].append(rate_alone)
    return [
        Figure("1 KB, QoS 1, median", median(ours) * 1e3, "ms", "ms, paho", median(theirs) * 1e3),
        Figure(
            "1 KB, QoS 1, p99",
            quantile(ours, 0.99) * 1e3,
            "ms",
            "ms, paho",
            quantile(theirs, 0.99) * 1e3,
        ),
        Figure(
            "4 MB blob, chunked and hashed",
            median(rates[0]),
            "MB/s",
            "MB/s, paho, in one message",
            median(rates[1]),
        ),
    ]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two of our links."""

    sender: MqttLink
    arriving: AsyncIterator[Message]

    async def seconds_of_message(self) -> float:
        """From the call to the message in the receiver's hands."""
        began = time.perf_counter()
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
            group.create_task(self.sender.publish("ours", os.urandom(MESSAGE)))
            await anext(self.arriving)
            seconds = time.perf_counter() - began
        return seconds  # noqa: RET504 - not before the group has ended

    async def seconds_of_blob(self, blob: bytes) -> float:
        assembler = Assembler(BLOB)
        began = time.perf_counter()
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
            group.create_task(send_blob(self.sender, "ours", blob))
            async for message in self.arriving:
                if assembler.feed("ours", message.payload, time.time()) is not None:
                    return time.perf_counter() - began
        raise AssertionError("the link was closed")


@asynccontextmanager
async def linked(port: int) -> AsyncIterator[Pair]:
    def link(member: str) -> MqttLink:
        return MqttLink(MqttSettings(HOST, port, member, os.urandom(8), mqtt5=True))

    async with link("sender") as sender, link("receiver") as receiver:
        await sender.connected(WAIT_S)
        await receiver.connected(WAIT_S)
        await receiver.subscribe("ours")
        yield Pair(sender, receiver.messages())


class Bare:
    """Two paho clients."""

    def __init__(self, port: int) -> None:
        self._arrived = threading.Event()
        ready = threading.Event()
        self._sender, self._receiver = self._client(port), self._client(port)
        self._receiver.on_message = lambda *_: self._arrived.set()
        self._receiver.on_subscribe = lambda *_: ready.set()
        self._receiver.subscribe("theirs", 1)
        if not ready.wait(WAIT_S):
            raise OperatorError("paho did not get its subscription")

    def _client(self, port: int) -> paho.Client:
        client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        client.connect(HOST, port)
        client.loop_start()
        return client

    def seconds(self, payload: bytes) -> float:
        self._arrived.clear()
        began = time.perf_counter()
        self._sender.publish("theirs", payload, qos=1)
        if not self._arrived.wait(WAIT_S):
            raise OperatorError("a message of paho did not arrive")
        return time.perf_counter() - began

    def close(self) -> None:
        for client in (self._sender, self._receiver):
            client.disconnect()
            client.loop_stop()


@contextmanager
def bare(port: int) -> Iterator[Bare]:
    pair = Bare(port)
    try:
        yield pair
    finally:
        pair.close()


@contextmanager
def broker(folder: Path) -> Iterator[int]:
    """mosquitto on a free port, open to all, until the end of the block."""
    program = find_mosquitto()
    if program is None:
        raise OperatorError("this benchmark needs mosquitto")
    port = free_port()
    config = folder / "mosquitto.conf"
    user = pwd.getpwuid(os.getuid()).pw_name
    config.write_text(f"user {user}\nlistener {port} {HOST}\nallow_anonymous true\n")
    with subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _listens(port))
            yield port
        finally:
            process.terminate()


def until(holds: Callable[[], bool]) -> None:
    """Wait for something outside of this process. Raises OperatorError."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise OperatorError(f"waited for {WAIT_S:g} s in vain")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True
