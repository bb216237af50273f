"""Transfers over real brokers and the one in memory: whatever dies or is cut, each blob comes once.

Senders publish on open/up/<key>, the receiver answers on open/down/<key>.
"""

import asyncio
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Protocol

import pytest

from edgechoir.errors import LocalError
from edgechoir.transport.link import Link
from edgechoir.transport.memory import MemoryBroker
from edgechoir.transport.mqtt import MqttLink, MqttSettings
from edgechoir.transport.receiver import Receiver
from edgechoir.transport.sender import MAX_OPEN, Outcome, Sender
from edgechoir.transport.transfer import Transfers

HOST = "127.0.0.1"
WAIT_S = 60.0
BLOB = 4 << 20
Start = Callable[[int, str], subprocess.Popen[bytes]]

PUBLISH = 3
SHIPPED = Path(__file__).parents[2] / "broker_config" / "mosquitto.conf"


class Trial(Protocol):
    """Links to one broker; each can be cut off."""

    @property
    def link(self) -> Callable[..., Link]: ...
    @property
    def cut(self) -> Callable[[str], None]: ...
    @property
    def mend(self) -> Callable[[str], None]: ...


OpenTrial = Callable[[], AbstractAsyncContextManager[Trial]]


def answering(topic: str) -> str:
    way, _, key = topic.removeprefix("open/").partition("/")
    return f"open/{'down' if way == 'up' else 'up'}/{key}"


def bounds_of(config: Path) -> str:
    """The bounds of the configuration that is shipped."""
    lines = re.findall(r"^(?:max_(?!conn)|persistent_client|set_tcp).*$", config.read_text(), re.M)
    assert len(lines) >= 5
    return "\n".join(lines) + "\n"


CONFIGURATIONS = pytest.mark.parametrize(
    "config", ["", bounds_of(SHIPPED)], ids=["default", "ours"]
)


def link_to(port: int, name: str, inbox: int = 64, mqtt5: bool | None = None) -> MqttLink:
    return MqttLink(
        MqttSettings(
            HOST,
            port,
            name,
            os.urandom(8),
            retry_first=0.02,
            retry_last=0.1,
            inbox_messages=inbox,
            mqtt5=mqtt5,
        )
    )


@dataclass(slots=True)
class Member:
    """A link with its transfers, what came whole, and a consumer that can be held."""

    link: Link
    sender: Sender
    receiver: Receiver
    transfers: Transfers
    blobs: list[bytes] = field(default_factory=list)
    taken: int = 0
    """Messages taken from the link."""
    hold_after: int | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def consume(self) -> None:
        async for message in self.link.messages():
            self.blobs += self.transfers.take(message.topic, message.payload)
            self.taken += 1
            self.changed.set()
            if self.hold_after is not None and self.taken >= self.hold_after:
                await self.go.wait()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def send(self, blob: bytes, key: str = "a", seconds: float = WAIT_S) -> asyncio.Future[Outcome]:
        return self.transfers.start(f"open/up/{key}", blob, seconds)


@asynccontextmanager
async def member(
    link: Link, subscribe: str, max_blob: int = 64 << 20, retry: float = 0.2
) -> AsyncIterator[Member]:
    sender, receiver = Sender(retry, 4 * retry), Receiver(os.urandom(8), max_blob)
    transfers = Transfers(link, sender, receiver, answering, time.monotonic)
    me = Member(link, sender, receiver, transfers)
    async with link, asyncio.TaskGroup() as group:
        tasks = [group.create_task(transfers.run()), group.create_task(me.consume())]
        await link.subscribe(subscribe, timeout=WAIT_S)
        yield me
        for task in tasks:
            task.cancel()


async def disconnected(link: Link) -> None:
    async with asyncio.timeout(WAIT_S):
        async for state in link.changes():
            if not state.connected:
                return


async def outcomes(futures: Sequence[asyncio.Future[Outcome]]) -> set[Outcome]:
    async with asyncio.timeout(WAIT_S):
        return set(await asyncio.gather(*futures))


def hashes(blobs: Iterable[bytes]) -> list[str]:
    """To compare by: pytest would print every byte of those that differ."""
    return sorted(hashlib.sha256(blob).hexdigest() for blob in blobs)


def blobs_of(count: int, size: int) -> list[bytes]:
    return [os.urandom(size) for _ in range(count)]


# ---- either broker


def test_blobs_of_all_sizes_arrive_once_and_are_known_to_have(open_trial: OpenTrial) -> None:
    async def run() -> None:
        blobs = [os.urandom(size) for size in (0, 1, 130_000, 140_000, BLOB)]
        async with (
            open_trial() as trial,
            member(trial.link("b"), "open/up/+") as b,
            member(trial.link("a"), "open/down/+") as a,
        ):
            assert await outcomes([a.send(blob) for blob in blobs]) == {Outcome.DELIVERED}
            assert hashes(b.blobs) == hashes(blobs)
            assert await outcomes([a.send(blobs[-1])]) == {Outcome.DELIVERED}
            assert len(b.blobs) == len(blobs)
            assert (a.sender.resent, b.receiver.reserved) == (0, 0)

    asyncio.run(run())


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_cut_link_costs_what_was_under_way_and_no_more(open_trial: OpenTrial, who: str) -> None:
    async def run() -> None:
        blob = os.urandom(BLOB)
        async with (
            open_trial() as trial,
            member(trial.link("b"), "open/up/+") as b,
            member(trial.link("a"), "open/down/+") as a,
        ):
            b.hold_after = 6
            sending = a.send(blob)
            await b.until(lambda: b.taken >= 6)
            trial.cut(who)
            b.go.set()
            await disconnected(a.link if who == "a" else b.link)
            trial.mend(who)
            assert await outcomes([sending]) == {Outcome.DELIVERED}
            assert hashes(b.blobs) == hashes([blob])
            assert a.sender.resent <= 32

    asyncio.run(run())


def test_a_blob_for_nobody_expires_and_one_that_is_given_up_is_cancelled() -> None:
    async def run() -> None:
        async with member(MemoryBroker().link("a"), "open/down/+") as a:
            late, given_up = a.send(b"1", seconds=0.05), a.send(b"2", "b")
            a.transfers.cancel_all("open/up/b")
            assert await given_up is Outcome.CANCELLED
            assert await late is Outcome.EXPIRED
            left = a.send(b"3")
        assert await left is Outcome.CANCELLED
        with pytest.raises(LocalError, match="are over"):
            a.send(b"4")

    asyncio.run(run())


def test_a_refusal_of_the_broker_ends_a_transfer_at_once() -> None:
    async def run() -> None:
        broker = MemoryBroker(lambda member, want, topic: want == "read")
        async with member(broker.link("a"), "open/down/+") as a:
            assert await outcomes([a.send(b"x")]) == {Outcome.UNSENT}

    asyncio.run(run())


def test_a_blob_larger_than_the_receiver_takes_is_refused_there() -> None:
    async def run() -> None:
        broker = MemoryBroker()
        async with (
            member(broker.link("b"), "open/up/+", max_blob=1000) as b,
            member(broker.link("a"), "open/down/+") as a,
        ):
            assert await outcomes([a.send(bytes(1001)), a.send(bytes(10**6))]) == {Outcome.REFUSED}
            assert b.blobs == []

    asyncio.run(run())


def test_what_a_receiver_forgets_is_refused_and_room_is_made_for_the_next() -> None:
    async def run() -> None:
        broker = MemoryBroker()
        async with (
            member(broker.link("b"), "open/up/+") as b,
            member(broker.link("a"), "open/down/+") as a,
        ):
            b.hold_after = 1
            sending = a.send(os.urandom(BLOB))
            await b.until(lambda: b.taken == 1)
            b.transfers.forget("open/up/a")
            b.go.set()
            assert await outcomes([sending]) == {Outcome.REFUSED}

    asyncio.run(run())


def test_beyond_the_bound_a_sender_waits_for_room_and_then_gives_up_its_oldest() -> None:
    async def run() -> None:
        async with member(MemoryBroker().link("a"), "open/down/+") as a:
            sending = [a.send(b"%d" % n) for n in range(MAX_OPEN)]
            await a.transfers.room("open/up/b", 0.0)
            assert not any(one.done() for one in sending)
            await a.transfers.room("open/up/a", 0.01)
            assert await sending[0] is Outcome.CANCELLED
            assert not any(one.done() for one in sending[1:])

    asyncio.run(run())


@pytest.mark.e2e
def test_members_of_either_protocol_send_each_other_blobs(mosquitto: int) -> None:
    async def run() -> None:
        blobs = [os.urandom(size) for size in (0, 1000, BLOB)]
        for ours, theirs in ((False, False), (False, True), (True, False)):
            async with (
                member(link_to(mosquitto, "b", mqtt5=theirs), "open/up/+") as b,
                member(link_to(mosquitto, "a", mqtt5=ours), "open/down/+") as a,
            ):
                sending = [a.send(blob) for blob in blobs]
                assert await outcomes(sending) == {Outcome.DELIVERED}
                assert hashes(b.blobs) == hashes(blobs)
                assert ("MQTT 5" in a.link.state.reason) == ours

    asyncio.run(run())


@pytest.mark.e2e
def test_a_broker_of_the_older_protocol_killed_and_started_anew_loses_no_blob(
    start_mosquitto: Start, free: int
) -> None:
    """No session is kept there: what was under way goes again because its sender asks."""

    async def run() -> None:
        blobs = blobs_of(3, BLOB)
        broker = await asyncio.to_thread(start_mosquitto, free, "")
        async with (
            member(link_to(free, "b", mqtt5=False), "open/up/+") as b,
            member(link_to(free, "a", mqtt5=False), "open/down/+") as a,
        ):
            b.hold_after = 12
            sending = [a.send(blob) for blob in blobs]
            await b.until(lambda: b.taken >= 12)
            broker.kill()
            await asyncio.to_thread(broker.wait, 10)
            b.go.set()
            await asyncio.to_thread(start_mosquitto, free, "")
            assert await outcomes(sending) == {Outcome.DELIVERED}
            assert hashes(b.blobs) == hashes(blobs)

    asyncio.run(run())


# ---- what dies

PROCESS = """
import asyncio, hashlib, os, sys, time
sys.path.insert(0, sys.argv[1])
from edgechoir.transport.mqtt import MqttLink, MqttSettings
from edgechoir.transport.receiver import Receiver
from edgechoir.transport.sender import Sender
from edgechoir.transport.transfer import Transfers

role, port, size = sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
other = {"up": "down", "down": "up"}

def answering(topic):
    _, way, key = topic.split("/")
    return f"open/{other[way]}/{key}"

async def consume(link, transfers):
    async for message in link.messages():
        for blob in transfers.take(message.topic, message.payload):
            print("blob", hashlib.sha256(blob).hexdigest(), flush=True)
        if len(message.payload) > 1000:
            print("chunk", flush=True)

async def run():
    link = MqttLink(MqttSettings("127.0.0.1", port, role, os.urandom(8)))
    transfers = Transfers(link, Sender(0.2, 1.0), Receiver(os.urandom(8), 1 << 27), answering,
                          time.monotonic)
    async with link, asyncio.TaskGroup() as group:
        group.create_task(transfers.run())
        group.create_task(consume(link, transfers))
        await link.subscribe("open/down/+" if role == "sender" else "open/up/+")
        print("ready", flush=True)
        if role == "sender":
            blob = hashlib.shake_256(b"blob").digest(size)
            print((await transfers.start("open/up/a", blob, 60.0)).value, flush=True)

asyncio.run(run())
"""
RUNTIME = str(Path(__file__).parents[2] / "runtime")


@asynccontextmanager
async def process(role: str, port: int, size: int) -> AsyncIterator[asyncio.subprocess.Process]:
    one = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROCESS, RUNTIME, role, str(port), str(size), stdout=subprocess.PIPE
    )
    try:
        yield one
    finally:
        if one.returncode is None:
            one.send_signal(signal.SIGKILL)
        await one.communicate()


async def line_of(one: asyncio.subprocess.Process) -> str:
    assert one.stdout is not None
    async with asyncio.timeout(WAIT_S):
        return (await one.stdout.readline()).decode().strip()


@pytest.mark.e2e
def test_a_sender_killed_and_started_anew_sends_what_is_missing(mosquitto: int) -> None:
    async def run() -> None:
        async with member(link_to(mosquitto, "b"), "open/up/+") as b:
            b.hold_after = 12
            async with process("sender", mosquitto, BLOB) as first:
                assert await line_of(first) == "ready"
                await b.until(lambda: b.taken >= 12)
                first.kill()
                await first.wait()
            b.go.set()
            async with process("sender", mosquitto, BLOB) as second:
                assert await line_of(second) == "ready"
                assert await line_of(second) == "delivered"
            assert hashes(b.blobs) == hashes([hashlib.shake_256(b"blob").digest(BLOB)])
            chunks = -(-BLOB // 130_000)
            assert b.taken + b.receiver.duplicates <= chunks + 16

    asyncio.run(run())


@pytest.mark.e2e
def test_a_receiver_killed_and_started_anew_gets_the_blob(mosquitto: int) -> None:
    async def run() -> None:
        size = 40 << 20
        blob = hashlib.shake_256(b"blob").digest(size)
        async with member(link_to(mosquitto, "a"), "open/down/+") as a:
            async with process("receiver", mosquitto, size) as first:
                assert await line_of(first) == "ready"
                sending = a.send(blob)
                for _ in range(10):
                    assert await line_of(first) == "chunk"
                first.kill()
                await first.wait()
            assert not sending.done()
            async with process("receiver", mosquitto, size) as second:
                assert await line_of(second) == "ready"
                while (line := await line_of(second)) == "chunk":
                    pass
                assert line == f"blob {hashlib.sha256(blob).hexdigest()}"
                assert await outcomes([sending]) == {Outcome.DELIVERED}

    asyncio.run(run())


@pytest.mark.e2e
@CONFIGURATIONS
def test_a_broker_killed_and_started_anew_loses_no_blob(
    start_mosquitto: Start, free: int, config: str
) -> None:
    async def run() -> None:
        blobs = [*blobs_of(2, BLOB), *blobs_of(8, 100)]
        broker = await asyncio.to_thread(start_mosquitto, free, config)
        async with (
            member(link_to(free, "b"), "open/up/+") as b,
            member(link_to(free, "a"), "open/down/+") as a,
        ):
            b.hold_after = 12
            sending = [a.send(blob) for blob in blobs]
            await b.until(lambda: b.taken >= 12)
            broker.kill()
            await asyncio.to_thread(broker.wait, 10)
            b.go.set()
            await asyncio.to_thread(start_mosquitto, free, config)
            assert await outcomes(sending) == {Outcome.DELIVERED}
            assert hashes(b.blobs) == hashes(blobs)

    asyncio.run(run())


# ---- a broker that acknowledges and drops


@pytest.mark.e2e
def test_mosquitto_acknowledges_what_it_drops_from_a_full_queue(
    start_mosquitto: Start, free: int
) -> None:
    """The case that transfers are there for: QoS 1, every publish acknowledged, some lost."""

    async def run() -> None:
        await asyncio.to_thread(start_mosquitto, free, "")
        count = 1200
        async with link_to(free, "a") as a, link_to(free, "b", inbox=8) as b:
            await b.subscribe("open/#")
            for start in range(0, count, 100):
                async with asyncio.TaskGroup() as group:
                    for n in range(start, start + 100):
                        group.create_task(a.publish("open/x", b"%d" % n))
            assert a.counters.messages_up == count  # all acknowledged
            messages = b.messages()
            got: list[bytes] = []
            async with asyncio.timeout(WAIT_S):
                while not got or got[-1] != b"last":
                    if len(got) == 900:  # there is room again
                        await a.publish("open/x", b"last")
                    got.append((await anext(messages)).payload)
            assert len(got) < count

    asyncio.run(run())


@pytest.mark.e2e
@CONFIGURATIONS
def test_nothing_is_lost_to_a_full_queue(start_mosquitto: Start, free: int, config: str) -> None:
    async def run() -> None:
        await asyncio.to_thread(start_mosquitto, free, config)
        senders = 2300 if "max_queued_messages 2048" in config else 1250
        blobs = blobs_of(senders, 64)
        async with (
            member(link_to(free, "b", inbox=8), "open/up/+") as b,
            member(link_to(free, "a"), "open/down/+", retry=1.0) as a,
        ):
            b.hold_after = 1
            sending = [a.send(blob, f"k{n}") for n, blob in enumerate(blobs)]
            async with asyncio.timeout(WAIT_S):
                while a.link.counters.messages_up < len(sending):
                    await a.link.publish("open/elsewhere", b"")
            b.go.set()
            assert await outcomes(sending) == {Outcome.DELIVERED}
            assert hashes(b.blobs) == hashes(blobs)
            assert a.sender.resent > 0  # the queue was full, and some were dropped

    asyncio.run(run())


@pytest.mark.e2e
@CONFIGURATIONS
def test_bulk_to_a_slow_receiver_never_fills_the_queue(
    start_mosquitto: Start, free: int, config: str
) -> None:
    async def run() -> None:
        await asyncio.to_thread(start_mosquitto, free, config)
        blobs = blobs_of(16, 2 << 20)
        async with (
            member(link_to(free, "b", inbox=8), "open/up/+") as b,
            member(link_to(free, "a"), "open/down/+") as a,
        ):
            sending = [a.send(blob, f"k{n}") for n, blob in enumerate(blobs)]
            assert await outcomes(sending) == {Outcome.DELIVERED}
            assert hashes(b.blobs) == hashes(blobs)
            assert (a.sender.resent, b.receiver.duplicates) == (0, 0)

    asyncio.run(run())


# ---- loss and delay


async def read_packet(reader: asyncio.StreamReader) -> bytes:
    """One packet with its fixed header. Raises IncompleteReadError at the end."""
    head = bytearray(await reader.readexactly(2))
    length, shift = head[1] & 127, 7
    while head[-1] & 128:
        head += await reader.readexactly(1)
        length |= (head[-1] & 127) << shift
        shift += 7
    return bytes(head) + await reader.readexactly(length)


def acknowledgement(publish: bytes) -> bytes:
    """The PUBACK for a PUBLISH, b"" for one of QoS 0."""
    if not publish[0] & 0b110:
        return b""
    start = 1
    while publish[start] & 128:
        start += 1
    topic = int.from_bytes(publish[start + 1 : start + 3], "big")
    place = start + 3 + topic
    return b"\x40\x02" + publish[place : place + 2]


@dataclass(slots=True)
class Lossy:
    """`loss`: share of the publishes to the client that vanish. `delay` in seconds, either way."""

    target: int
    loss: float
    delay: float
    rng: Random
    port: int = 0
    lost: int = 0

    async def up(self, client: asyncio.StreamReader, broker: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        while data := await client.read(65536):
            loop.call_later(self.delay, broker.write, data)

    async def down(
        self,
        broker: asyncio.StreamReader,
        client: asyncio.StreamWriter,
        to_broker: asyncio.StreamWriter,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            packet = await read_packet(broker)
            if packet[0] >> 4 == PUBLISH and self.rng.random() < self.loss:
                self.lost += 1
                to_broker.write(acknowledgement(packet))
            else:
                loop.call_later(self.delay, client.write, packet)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_broker, to_broker = await asyncio.open_connection(HOST, self.target)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.up(reader, to_broker))
                group.create_task(self.down(from_broker, writer, to_broker))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            to_broker.close()
            writer.close()


@asynccontextmanager
async def lossy_to(target: int, loss: float, delay: float, seed: int) -> AsyncIterator[Lossy]:
    proxy = Lossy(target, loss, delay, Random(seed))
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, HOST, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


@pytest.mark.e2e
@pytest.mark.parametrize(("seed", "delay"), [(1, 0.005), (2, 0.005), (3, 0.05)])
def test_with_one_message_in_twenty_lost_and_delay_each_blob_arrives_once(
    mosquitto: int, seed: int, delay: float
) -> None:
    """The last has 100 ms from one member to the other: through two proxies."""

    async def run() -> None:
        blobs = [*blobs_of(3, BLOB), *blobs_of(30, 200)]
        async with (
            lossy_to(mosquitto, 0.05, delay, seed) as near_a,
            lossy_to(mosquitto, 0.05, delay, seed + 100) as near_b,
            member(link_to(near_b.port, "b"), "open/up/+") as b,
            member(link_to(near_a.port, "a"), "open/down/+") as a,
        ):
            sending = [a.send(blob, f"k{n % 3}") for n, blob in enumerate(blobs)]
            assert await outcomes(sending) == {Outcome.DELIVERED}
            assert hashes(b.blobs) == hashes(blobs)
            assert near_b.lost > 0
            assert a.sender.resent > 0

    asyncio.run(run())
