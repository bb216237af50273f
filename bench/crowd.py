"""Many members at once: all upload 100 KB to one aggregator, and a model goes out to 100.

Broker, aggregator and members (all of them in one process, each with a connection of its own) are
processes on this machine. Losses are uploads that the aggregator does not have at the end, or that
their senders do not know to have arrived.
"""

import asyncio
import os
import resource
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from bench.brokers import Broker, broker
from bench.figures import Figure
from bench.receiver import transfers_of
from bench.transport import WAIT_S, Far, far
from edgechoir.errors import OperatorError
from edgechoir.transport.blobs import Assembler, send_blob
from edgechoir.transport.mqtt import MqttLink
from edgechoir.transport.sender import Outcome
from edgechoir.transport.transfer import Transfers

UPLOAD: Final = 100_000
MEMBERS: Final = (200, 1000)
MODEL: Final = 4 << 20
READERS: Final = 100
SPARE_FILES: Final = 256
CONNECTING: Final = 50
"""Connections made at once: more would be refused by the queue of the broker's socket."""


def measure() -> list[Figure]:
    found = []
    for members in MEMBERS:
        with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as target:
            found += asyncio.run(_uploads(target, members))
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as target:
        found += asyncio.run(_fan_out(target))
    return found


def allow_files(count: int) -> None:
    """Raise the limit of open files. Raises OperatorError where that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard < count:
        raise OperatorError(
            f"{count} open files are needed, the limit is {hard}: raise it with `ulimit -n {count}`"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def resident(pid: int, *, peak: bool = False) -> float:
    """Memory of a process in RAM, now or at its most [MB, 10^6]."""
    name = "VmHWM:" if peak else "VmRSS:"
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise OperatorError(f"process {pid} has ended")


async def _links(stack: AsyncExitStack, target: Broker, count: int) -> list[MqttLink]:
    allow_files(count + SPARE_FILES)
    links: list[MqttLink] = []
    while len(links) < count:
        some = [
            await stack.enter_async_context(MqttLink(target.settings(f"m{len(links) + n}")))
            for n in range(min(CONNECTING, count - len(links)))
        ]
        await asyncio.gather(*(link.connected(WAIT_S) for link in some))
        links += some
    return links


async def _uploads(target: Broker, members: int) -> list[Figure]:
    with far("transfer", target.plain, 0, None) as aggregator:
        await asyncio.to_thread(aggregator.line)
        async with AsyncExitStack() as stack:
            links = await _links(stack, target, members)
            group = await stack.enter_async_context(asyncio.TaskGroup())
            tasks: list[asyncio.Task[None]] = []
            all_transfers: list[Transfers] = []

            async def consume(number: int) -> None:
                async for message in links[number].messages():
                    all_transfers[number].take(message.topic, message.payload)

            for number, link in enumerate(links):
                all_transfers.append(transfers_of(link))
                tasks += [
                    group.create_task(all_transfers[number].run()),
                    group.create_task(consume(number)),
                ]
                await link.subscribe(f"down/m{number}")
            before = [resident(pid) for pid in (aggregator.pid, target.pid, os.getpid())]
            blobs = [os.urandom(UPLOAD) for _ in range(members)]
            arrived = asyncio.create_task(asyncio.to_thread(_count, aggregator, members))
            began = time.perf_counter()
            outcomes = await asyncio.gather(
                *(
                    transfers.start(f"up/m{number}", blobs[number], WAIT_S)
                    for number, transfers in enumerate(all_transfers)
                )
            )
            seconds = time.perf_counter() - began
            there = await arrived
            lost = members - min(there, sum(one is Outcome.DELIVERED for one in outcomes))
            after = [resident(pid, peak=True) for pid in (aggregator.pid, target.pid, os.getpid())]
            for task in tasks:
                task.cancel()
    who = f"{members:,} members, 100 KB each"
    names = ("the aggregator", "the broker", "all members' process")
    return [
        Figure(f"{who}: all there", seconds, "s"),
        Figure(f"{who}: rate", members * UPLOAD / 1e6 / seconds, "MB/s"),
        Figure(f"{who}: lost", lost, ""),
        *(
            Figure(f"{who}: {name} grows to", now, "MB", "MB before", was)
            for name, now, was in zip(names, after, before, strict=True)
        ),
    ]


def _count(aggregator: Far, members: int) -> int:
    there = 0
    while there < members:
        aggregator.line()
        there += 1
    return there


async def _fan_out(target: Broker) -> list[Figure]:
    """A retained model in chunks, to members that are there and to one that comes later."""
    model = os.urandom(MODEL)
    async with AsyncExitStack() as stack:
        sender = await stack.enter_async_context(MqttLink(target.settings("cloud")))
        links = await _links(stack, target, READERS)
        await sender.connected(WAIT_S)
        for link in links:
            await link.subscribe("model/+")

        async def read(link: MqttLink) -> None:
            assembler = Assembler(MODEL)
            async for message in link.messages():
                if assembler.feed("model", message.payload, 0.0) is not None:
                    return

        reading = [asyncio.create_task(read(link)) for link in links]
        began = time.perf_counter()
        await send_blob(sender, "model", model, retain=True, per_chunk_topic=True)
        published = time.perf_counter() - began
        await asyncio.gather(*reading)
        seconds = time.perf_counter() - began
        late = await stack.enter_async_context(MqttLink(target.settings("late")))
        await late.connected(WAIT_S)
        began = time.perf_counter()
        await late.subscribe("model/+")
        await read(late)
        waited = time.perf_counter() - began
        peak = resident(target.pid, peak=True)
    return [
        Figure(f"4 MiB model to {READERS} members: published", published, "s"),
        Figure(f"4 MiB model to {READERS} members: all have it", seconds, "s"),
        Figure(f"4 MiB model to {READERS} members: rate", READERS * MODEL / 1e6 / seconds, "MB/s"),
        Figure(f"4 MiB model to {READERS} members: the broker grows to", peak, "MB"),
        Figure("a late subscriber has the retained 4 MiB after", waited * 1e3, "ms"),
    ]
