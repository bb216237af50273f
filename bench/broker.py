"""What a bound of mosquitto costs and gains.

One mosquitto at a time, on the loopback, with the shipped configuration but for the bound in
question: memory of a connection over TLS, of a retained message and of a queued one; the rate by
`max_inflight_messages`; the start with the rules of many members.
"""

import asyncio
import os
import ssl
import struct
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench.figures import Figure
from edgechoir.broker.federation import Federation
from edgechoir.broker.mosquitto import mosquitto_files
from edgechoir.broker.mosquitto_process import find_mosquitto
from edgechoir.broker.roster import read_roster
from edgechoir.broker.settings import BrokerSettings
from edgechoir.fleet.authority_dir import init_authority, issue_broker_files, sign_request
from edgechoir.fleet.enrolment import MemberPaths, install_certificate, make_request
from edgechoir.types import Address, MemberId

PORT = 28_800 + os.getpid() % 1000
ROOT = "edgechoir/v1/alps"
CHUNK = 131_072
WINDOWS = (1, 4, 8, 20, 100)
REPEATS = 5
MEMBERS = (1000, 5000, 10_000)


@dataclass(frozen=True)
class Site:
    """A fleet of two members on disk."""

    folder: Path
    settings: BrokerSettings
    federation: Federation

    def context(self, member: str) -> ssl.SSLContext:
        paths = MemberPaths(self.folder / member)
        context = ssl.create_default_context(cafile=paths.ca)
        context.load_cert_chain(paths.certificate, paths.key)
        return context


def site(folder: Path) -> Site:
    now, ca = time.time(), folder / "ca"
    init_authority(ca, "alps", now, 7, os.urandom, None)
    files = issue_broker_files(ca, ["localhost"], now, 7, os.urandom, None)
    for tier, member in (("device", "dev-1"), ("node", "node-1")):
        request = make_request(folder / member, "alps", member, tier, os.urandom).read_bytes()
        issued = sign_request(ca, request, tier, now, 7, os.urandom, None)
        install_certificate(folder / member, issued.pem, (ca / "ca.crt").read_bytes(), now)
    settings = BrokerSettings(files, folder, address="127.0.0.1", port=PORT, max_connections=4096)
    return Site(folder, settings, read_roster(files).federation)


@dataclass
class Broker:
    pid: int
    start_s: float

    def rss_kb(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line)


@asynccontextmanager
async def mosquitto(at: Site, federation: Federation | None = None) -> AsyncIterator[Broker]:
    program = find_mosquitto() or sys.exit("mosquitto is not installed")
    files = mosquitto_files(
        at.settings, federation or at.federation, place=str(at.folder), user="root"
    )
    for name, text in files.items():
        (at.folder / name).write_text(text)
    began = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        program, "-c", str(at.folder / "mosquitto.conf"), stderr=asyncio.subprocess.DEVNULL
    )
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", PORT)
            except OSError:
                await asyncio.sleep(0.005)
                continue
            writer.close()
            break
        yield Broker(process.pid, time.perf_counter() - began)
    finally:
        process.kill()
        await process.wait()


class Client:
    """Just enough of MQTT 3.1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def connect(cls, at: Site, member: str, context: ssl.SSLContext, name: str) -> "Client":
        reader, writer = await asyncio.open_connection("localhost", PORT, ssl=context)
        client = cls(reader, writer)
        client.send(0x10, b"\0\4MQTT\4\2\0\0" + text(name))
        await client.packet()
        return client

    def send(self, head: int, body: bytes) -> None:
        length, left = b"", len(body)
        while True:
            left, low = divmod(left, 128)
            length += bytes([low | (128 if left else 0)])
            if not left:
                break
        self.writer.write(bytes([head]) + length + body)

    async def packet(self) -> tuple[int, bytes]:
        head = (await self.reader.readexactly(1))[0]
        length = shift = 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return head, await self.reader.readexactly(length)

    async def subscribe(self, pattern: str) -> None:
        self.send(0x82, b"\0\1" + text(pattern) + b"\1")
        await self.packet()

    async def publish(self, topic: str, payload: bytes, number: int, *, retain: bool) -> None:
        self.send(0x33 if retain else 0x32, text(topic) + struct.pack(">H", number) + payload)
        await self.writer.drain()


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


async def connections(at: Site, count: int) -> list[Figure]:
    context = at.context("dev-1")
    async with mosquitto(at) as broker:
        before = broker.rss_kb()
        clients = [await Client.connect(at, "dev-1", context, f"c{i}") for i in range(count)]
        idle = broker.rss_kb()
        for client in clients:
            for channel in ("plan/+", "roster/+", "model/+", "status"):
                await client.subscribe(f"{ROOT}/node/node-1/{channel}")
        subscribed = broker.rss_kb()
        for client in clients:
            client.writer.transport.abort()
    each = f"memory of a connection over TLS, of {count}"
    return [
        Figure(each, (idle - before) / count, "kB"),
        Figure(f"{each}, with four subscriptions", (subscribed - before) / count, "kB"),
    ]


async def kept(at: Site, count: int, size: int, *, retain: bool) -> Figure:
    """Retained under a topic each; or queued for one client that acknowledges nothing."""
    async with mosquitto(at) as broker:
        node = await Client.connect(at, "node-1", at.context("node-1"), "node")
        device = await Client.connect(at, "dev-1", at.context("dev-1"), "device")
        if not retain:
            await device.subscribe(f"{ROOT}/+/+/down/dev-1")
        before = broker.rss_kb()
        for number in range(1, count + 1):
            topic = f"{ROOT}/node/node-1/" + (f"model/{number}" if retain else "down/dev-1")
            await node.publish(topic, os.urandom(size), number, retain=retain)
            await node.packet()
        grown = (broker.rss_kb() - before) / count
        node.writer.transport.abort()
        device.writer.transport.abort()
    what = "retained" if retain else "queued for one client"
    return Figure(f"memory of a message of {size} bytes {what}, of {count}", grown, "kB")


async def rate(at: Site, inflight: int, count: int = 400) -> float:
    """MB/s of full chunks from one member to another."""
    changed = replace(at, settings=replace(at.settings, max_inflight=inflight))
    async with mosquitto(changed):
        node = await Client.connect(at, "node-1", at.context("node-1"), "node")
        device = await Client.connect(at, "dev-1", at.context("dev-1"), "device")
        await device.subscribe(f"{ROOT}/+/+/down/dev-1")

        async def receive() -> None:
            for _ in range(count):
                _, body = await device.packet()
                topic = int.from_bytes(body[:2])
                device.send(0x40, body[2 + topic : 4 + topic])

        async def send() -> None:
            free = asyncio.Semaphore(16)

            async def acknowledged() -> None:
                for _ in range(count):
                    await node.packet()
                    free.release()

            waiting = asyncio.create_task(acknowledged())
            for number in range(1, count + 1):
                await free.acquire()
                await node.publish(
                    f"{ROOT}/node/node-1/down/dev-1", bytes(CHUNK), number, retain=False
                )
            await waiting

        began = time.perf_counter()
        await asyncio.gather(send(), receive())
        took = time.perf_counter() - began
        node.writer.transport.abort()
        device.writer.transport.abort()
    return count * CHUNK / took / 1e6


async def rules(at: Site, count: int) -> list[Figure]:
    members = {Address("device", MemberId(f"d-{n}")) for n in range(count)}
    many = Federation("alps", at.federation.members | members)
    async with mosquitto(at, many) as broker:
        rss = broker.rss_kb() / 1024
    what = f"with the rules of {count:,} members"
    return [
        Figure(f"start {what}", broker.start_s, "s"),
        Figure(f"memory {what}", rss, "MB"),
    ]


async def _measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        at = site(Path(folder))
        found = await connections(at, 1000)
        found.append(await kept(at, 2000, 2_000, retain=True))
        found.append(await kept(at, 200, CHUNK, retain=False))
        rates = [[await rate(at, inflight) for inflight in WINDOWS] for _ in range(REPEATS)]
        for inflight, of_it in zip(WINDOWS, zip(*rates, strict=True), strict=True):
            found.append(
                Figure(f"chunks with max_inflight_messages {inflight}", median(of_it), "MB/s")
            )
        for count in MEMBERS:
            found += await rules(at, count)
    return found


def measure() -> list[Figure]:
    return asyncio.run(_measure())
