"""Documents that wait on the disk while the broker is away."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from edgechoir.store.outbox import Outbox, Record
from edgechoir.transport.link import Link
from edgechoir.transport.memory import MemoryBroker
from edgechoir.transport.spool import BATCH, BATCH_S, MAX_WAITING, Spool

WAIT_S = 20.0


class Trial(Protocol):
    @property
    def link(self) -> Callable[..., Link]: ...
    @property
    def cut(self) -> Callable[[str], None]: ...
    @property
    def mend(self) -> Callable[[str], None]: ...


OpenTrial = Callable[[], AbstractAsyncContextManager[Trial]]


class Watched(Outbox):
    """An outbox that tells when something was written."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        super().__init__(path, max_bytes)
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()

    def add(self, records: Sequence[Record], now: float) -> None:
        super().add(records, now)
        self._loop.call_soon_threadsafe(self._event.set)

    async def written(self, count: int) -> None:
        while len(self) < count:
            self._event.clear()
            await self._event.wait()


@asynccontextmanager
async def running(spool: Spool, *, allowed: bool = True) -> AsyncIterator[asyncio.Event]:
    may = asyncio.Event()
    if allowed:
        may.set()
    task = asyncio.create_task(spool.run(may))
    await asyncio.sleep(0)  # let it begin: one that never began has nothing to leave behind
    try:
        yield may
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()


async def take(link: Link, count: int) -> list[int]:
    messages = link.messages()
    async with asyncio.timeout(WAIT_S):
        return [int((await anext(messages)).payload) for _ in range(count)]


async def disconnected(link: Link) -> None:
    async with asyncio.timeout(WAIT_S):
        async for state in link.changes():
            if not state.connected:
                return


def test_what_came_while_the_broker_was_away_is_published_in_order(
    open_trial: OpenTrial, tmp_path: Path
) -> None:
    async def run() -> None:
        outbox = Outbox(tmp_path / "o", 1 << 20)
        async with open_trial() as trial, trial.link("a") as a, trial.link("b") as b:
            await b.subscribe("open/p")
            spool = Spool(a, outbox, 3600.0, time.time, time.monotonic)
            async with running(spool):
                for n in range(10):
                    spool.put("open/p", b"%d" % n)
                assert await take(b, 10) == list(range(10))
                assert outbox.commits == 0  # nothing is written while there is a broker
                await a.publish("open/other", b"")  # its answer comes behind those to the ten
                trial.cut("a")
                await disconnected(a)
                for n in range(10, 10 + 3 * BATCH):
                    spool.put("open/p", b"%d" % n)
                trial.mend("a")
                spool.put("open/p", b"%d" % (10 + 3 * BATCH))
                assert await take(b, 3 * BATCH + 1) == list(range(10, 11 + 3 * BATCH))
        assert spool.dropped == 0
        outbox.close()

    asyncio.run(run())


def test_a_process_that_ends_leaves_on_the_disk_what_the_next_one_publishes(
    tmp_path: Path,
) -> None:
    async def run() -> None:
        broker = MemoryBroker()
        async with broker.link("b") as b:
            await b.subscribe("open/p")
            outbox = Outbox(tmp_path / "o", 1 << 20)
            async with broker.link("a") as a:
                broker.cut("a")
                spool = Spool(a, outbox, 3600.0, time.time, time.monotonic)
                async with running(spool):
                    for n in range(5):
                        spool.put("open/p", b"%d" % n)
            assert (len(outbox), outbox.commits) == (5, 1)
            outbox.close()
            outbox = Outbox(tmp_path / "o", 1 << 20)
            async with (
                broker.link("a") as a,
                running(Spool(a, outbox, 3600.0, time.time, time.monotonic)),
            ):
                assert await take(b, 5) == list(range(5))
            outbox.close()

    asyncio.run(run())


def test_nothing_is_published_before_it_is_allowed(tmp_path: Path) -> None:
    async def run() -> None:
        broker = MemoryBroker()
        outbox = Outbox(tmp_path / "o", 1 << 20)
        async with broker.link("a") as a, broker.link("b") as b:
            await b.subscribe("open/p")
            spool = Spool(a, outbox, 3600.0, time.time, time.monotonic)
            async with running(spool, allowed=False) as may:
                spool.put("open/p", b"1")
                await b.subscribe("open/q")
                assert b.counters.messages_down == 0
                may.set()
                assert await take(b, 1) == [1]
        outbox.close()

    asyncio.run(run())


def test_a_batch_is_written_after_its_time_and_too_many_are_dropped(tmp_path: Path) -> None:
    async def run() -> None:
        broker, now = MemoryBroker(), [0.0]
        outbox = Watched(tmp_path / "o", 1 << 20)
        async with broker.link("a") as a:
            broker.cut("a")
            spool = Spool(a, outbox, 60.0, lambda: now[0], lambda: now[0])
            for n in range(MAX_WAITING + 3):
                spool.put("open/p", b"%d" % n)
            assert (spool.waiting, spool.dropped) == (MAX_WAITING, 3)
            async with running(spool), asyncio.timeout(WAIT_S):
                await outbox.written(MAX_WAITING)
                spool.put("open/p", b"late")
                now[0] += BATCH_S
                spool.put("open/p", b"later")
                await outbox.written(MAX_WAITING + 2)
            assert outbox.commits == 2
            now[0] += 60.0 + BATCH_S
            outbox.remove([], now[0])
            assert (spool.waiting, spool.dropped) == (0, MAX_WAITING + 5)
        outbox.close()

    asyncio.run(run())


def test_what_the_broker_refuses_is_dropped_and_counted(tmp_path: Path) -> None:
    async def run() -> None:
        broker = MemoryBroker(lambda member, want, topic: topic == "open/p" or want == "read")
        outbox = Outbox(tmp_path / "o", 1 << 20)
        async with broker.link("a") as a, broker.link("b") as b:
            await b.subscribe("open/p")
            spool = Spool(a, outbox, 3600.0, time.time, time.monotonic)
            async with running(spool):
                spool.put("elsewhere", b"0")
                spool.put("open/p", b"1")
                assert await take(b, 1) == [1]
                spool.put("open/p", b"2")
                assert await take(b, 1) == [2]  # the batch before is over
            assert spool.dropped == 1
        outbox.close()

    asyncio.run(run())


def test_a_clock_that_is_set_takes_the_age_of_what_waits_with_it(tmp_path: Path) -> None:
    """A board without a battery starts in the past, and hears the time when there is a network."""

    async def run() -> None:
        broker, now, steady = MemoryBroker(), [0.0], [0.0]
        outbox = Watched(tmp_path / "o", 1 << 20)
        async with broker.link("a") as a, broker.link("b") as b:
            await b.subscribe("open/p")
            broker.cut("a")
            spool = Spool(a, outbox, 60.0, lambda: now[0], lambda: steady[0])
            async with running(spool), asyncio.timeout(WAIT_S):
                for n in range(BATCH + 1):
                    spool.put("open/p", b"%d" % n)
                await outbox.written(BATCH + 1)
                spool.put("open/p", b"%d" % (BATCH + 1))
                now[0] += 1e9
                broker.mend("a")
                assert await take(b, BATCH + 2) == list(range(BATCH + 2))
            assert spool.dropped == 0
        outbox.close()

    asyncio.run(run())
