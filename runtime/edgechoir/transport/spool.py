"""Documents for people on their way out, through an outbox on the disk while the broker is away.

While there is a broker they are published with QoS 1, in order. While there is none they are
gathered in memory and written in batches of BATCH, or what came in BATCH_S seconds: so much is lost
by `kill -9`, nothing of what was written. When the broker is back the oldest go first and newer
ones wait behind them. A process that dies between the broker's acknowledgement and the removal
from the disk publishes that batch twice.

Ages on the disk are by the system's clock, which may be set: a board without a battery starts in
the past. What waits then moves with it.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Final

from edgechoir.errors import LinkError, OperatorError
from edgechoir.store.outbox import Outbox, Record
from edgechoir.transport.link import Link, Priority

log: Final = logging.getLogger(__name__)

BATCH: Final = 64
BATCH_S: Final = 5.0
MAX_WAITING: Final = 1024
PUBLISH_S: Final = 30.0
SET_S: Final = 60.0
"""A clock that differs by so much was set."""


class Spool:
    """See the module. Records are of use for `keep` seconds. `clock` gives unix seconds, `steady`
    seconds on a clock that nobody sets."""

    def __init__(
        self,
        link: Link,
        outbox: Outbox,
        keep: float,
        clock: Callable[[], float],
        steady: Callable[[], float],
    ) -> None:
        self._link, self._outbox = link, outbox
        self._keep, self._clock, self._steady = keep, clock, steady
        self._start = clock() - steady()
        self._waiting: deque[Record] = deque()
        self._wake = asyncio.Event()
        self._due = 0.0
        self._dropped = 0

    @property
    def waiting(self) -> int:
        """Documents that the broker has not taken yet, on the disk and in memory."""
        return len(self._outbox) + len(self._waiting)

    @property
    def dropped(self) -> int:
        """Documents lost for want of room, by age, or to a broker that refused them."""
        return self._dropped + self._outbox.dropped + self._outbox.expired

    def figures(self) -> dict[str, int]:
        """For the status document."""
        return {
            "waiting": self.waiting,
            "dropped": self.dropped,
            "bytes": self._outbox.bytes,
            "commits": self._outbox.commits,
        }

    def put(self, topic: str, payload: bytes) -> None:
        """Take a document; the oldest in memory is dropped when MAX_WAITING are there."""
        now = self._clock()
        if not self._waiting:
            self._due = self._steady() + BATCH_S
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popleft()
            self._dropped += 1
        self._waiting.append(Record(topic, payload, now + self._keep))
        self._wake.set()

    async def run(self, allowed: asyncio.Event) -> None:
        """Store, and publish once it is `allowed`, until cancelled; what is in memory then goes to
        the disk."""
        try:
            while True:
                self._wake.clear()
                await self._follow_clock()
                if allowed.is_set() and self._link.state.connected:
                    await self._send()
                elif self._waiting and (len(self._waiting) >= BATCH or self._steady() >= self._due):
                    await self._store()
                else:
                    await self._until_due(allowed)
        finally:
            if self._waiting:
                self._outbox.add(tuple(self._waiting), self._clock())
                self._waiting.clear()

    async def _follow_clock(self) -> None:
        """Where the clock was set, move the end of what waits with it."""
        start = self._clock() - self._steady()
        if abs(jump := start - self._start) < SET_S:
            return
        log.warning("the clock was set by %+.0f s; documents that wait keep their age", jump)
        self._start = start
        self._waiting = deque(replace(one, expires=one.expires + jump) for one in self._waiting)
        try:
            await asyncio.to_thread(self._outbox.shift, jump)
        except OperatorError as error:
            log.error("%s", error)

    async def _until_due(self, allowed: asyncio.Event) -> None:
        """Wait for a document, a connection, or the time to write."""
        pause = max(self._due - self._steady(), 0.0) if self._waiting else BATCH_S

        async def open_way() -> None:
            await allowed.wait()
            await self._link.connected(BATCH_S)

        tasks = [asyncio.create_task(open_way()), asyncio.create_task(self._wake.wait())]
        try:
            await asyncio.wait(tasks, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send(self) -> None:
        """The next batch, from the disk as long as anything is there."""
        now = self._clock()
        if len(self._outbox):
            records = await asyncio.to_thread(self._outbox.first, BATCH, now)
            gone = await self._publish(records)
            await asyncio.to_thread(self._outbox.remove, [r.id for r in gone], self._clock())
            if len(self._waiting) >= BATCH:
                await self._store()
        elif self._waiting:
            gone = await self._publish(list(islice(self._waiting, BATCH)))
            over = set(map(id, gone))  # two documents may say the same
            self._waiting = deque(record for record in self._waiting if id(record) not in over)
        else:
            await self._wake.wait()

    async def _publish(self, records: Sequence[Record]) -> list[Record]:
        """Those that are done with: taken over by the broker, or refused by it."""
        before = self._link.counters.reconnects
        results = await asyncio.gather(
            *(
                self._link.publish(
                    record.topic,
                    record.payload,
                    qos=1,
                    priority=Priority.DOCUMENT,
                    timeout=PUBLISH_S,
                )
                for record in records
            ),
            return_exceptions=True,
        )
        gone: list[Record] = []
        steady = self._link.state.connected and self._link.counters.reconnects == before
        for record, result in zip(records, results, strict=True):
            if result is None:
                gone.append(record)
            elif not isinstance(result, LinkError):
                raise result
            elif steady:  # over one unbroken connection it was a refusal
                log.warning("%s", result)
                self._dropped += 1
                gone.append(record)
        return gone

    async def _store(self) -> None:
        """What is in memory, in one commit; a disk that takes nothing costs the batch."""
        batch = tuple(self._waiting)
        self._waiting.clear()
        writing = asyncio.ensure_future(asyncio.to_thread(self._outbox.add, batch, self._clock()))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait([writing])  # it cannot be stopped, and the file is closed after us
            raise
        except OperatorError as error:
            self._dropped += len(batch)
            log.error("%d documents are lost: %s", len(batch), error)
