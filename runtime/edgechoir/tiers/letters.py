"""What a member has to send, in order and within a bound.

Nothing leaves before this process is alone. A round is written down before the upload that spends
its pads leaves; where the queue is too full for an upload, its record goes with it. What a broker
retains for others is published again whenever the connection is back: one without persistence comes
back empty, and who joins then would wait in vain.

Models go beside the rest, the latest alone: on a slow link one takes minutes, and what a round says
meanwhile must not wait for it. Who gets a plan before its model waits for that.
"""

import asyncio
import logging
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final

from edgechoir import wire
from edgechoir.errors import LinkError
from edgechoir.rounds.endpoint import Endpoint, Outgoing
from edgechoir.rounds.events import Record
from edgechoir.store.journal import RoundJournal
from edgechoir.tiers.place import Place
from edgechoir.transport.blobs import send_blob
from edgechoir.transport.link import Link
from edgechoir.transport.sender import Outcome as Sent
from edgechoir.transport.topics import BULK_CHANNELS, PAIR_CHANNELS, topic
from edgechoir.transport.transfer import Transfers

log: Final = logging.getLogger(__name__)

MAX_WAITING: Final = 256
"""Messages that wait to be sent; beyond that the oldest is dropped and counted."""
LETTER_S: Final = 60.0
"""Seconds after which a message is of no use any more; an update lives as long as its round may."""
ROOM_S: Final = 1.0
"""Seconds that messages to others wait for one whose receiver acknowledges nothing."""
UNDELIVERED: Final = {
    Sent.UNSENT: "unsent",
    Sent.EXPIRED: "unacknowledged",
    Sent.REFUSED: "refused_there",
}


@dataclass(frozen=True, slots=True)
class _Letter:
    out: Outgoing
    record: Record | None
    seconds: float


class Letters:
    """Counts in `drops` what was not sent, and in `sent` the bytes of signed messages that were."""

    def __init__(
        self,
        place: Place,
        link: Link,
        transfers: Transfers,
        journal: RoundJournal,
        endpoint: Endpoint,
    ) -> None:
        self._place = place
        self._link = link
        self._transfers = transfers
        self._journal = journal
        self._joint = endpoint.joint
        self._drops = endpoint.drops
        self._letters: asyncio.Queue[_Letter] = asyncio.Queue(MAX_WAITING)
        self._model: Outgoing | None = None
        """The latest that has not begun to leave."""
        self._model_there = asyncio.Event()
        self._retained: dict[str, Outgoing] = {}
        """The latest of each channel that the broker keeps for us."""
        self._chunks: dict[str, int] = {}
        self.sent = 0

    def put(self, out: Outgoing, record: Record | None = None) -> None:
        """Queue a message; `record` is written down before it leaves."""
        if out.channel in BULK_CHANNELS:
            self._retained[out.channel] = out
        if out.channel == "model":
            self._model = out
            self._model_there.set()
            return
        if self._letters.full():
            self._letters.get_nowait()
            self._drops["outbox_full"] += 1
        up = self._joint.up
        turn = None if up is None or record is None else up.turn
        seconds = LETTER_S if turn is None else turn.plan.deadline
        self._letters.put_nowait(_Letter(out, record, seconds))

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._run_models(), name="models")
            while True:
                letter = await self._letters.get()
                await self._connected()
                if letter.record is not None:
                    await self._write_down(letter.record)
                await self._try(self._send(letter))

    async def _run_models(self) -> None:
        while True:
            await self._model_there.wait()
            await self._connected()
            self._model_there.clear()
            if (model := self._model) is not None:
                await self._try(self._retain(model))

    async def _connected(self) -> None:
        async for state in self._link.changes():
            if state.connected:
                return

    async def _try(self, sending: Awaitable[None]) -> None:
        try:
            await sending
        except LinkError as error:
            self._drops["unsent"] += 1
            log.warning("%s", error)

    async def clear(self) -> None:
        """What an earlier process left with the broker belongs to rosters that are gone."""
        for channel in ("roster", "plan"):
            where = f"{topic(self._place.federation, self._place.me, channel)}/0"
            try:
                await self._link.publish(where, b"", retain=True)
            except LinkError as error:
                log.warning("%s", error)

    def restore(self) -> None:
        """Publish again what others find retained."""
        for out in tuple(self._retained.values()):
            self.put(out)

    async def _write_down(self, record: Record) -> None:
        await asyncio.to_thread(
            self._journal.mark_round_used,
            self._place.federation,
            record.epoch,
            record.round,
            0,
            wire.encode(record.upload),
        )

    async def _send(self, letter: _Letter) -> None:
        place, out = self._place, letter.out
        if out.channel not in PAIR_CHANNELS:
            await self._retain(out)
            return
        self.sent += len(out.data)
        peer = place.parent if out.channel == "up" else None
        member = out.member if peer is None else str(peer.member)
        if not member:
            return
        where = str(topic(place.federation, place.me, out.channel, member))
        await self._transfers.room(where, ROOM_S)
        sent = self._transfers.start(where, out.data, letter.seconds)
        sent.add_done_callback(self._count)

    async def _retain(self, out: Outgoing) -> None:
        """Publish to all who take part, now or later."""
        self.sent += len(out.data)
        where = str(topic(self._place.federation, self._place.me, out.channel))
        self._chunks[where] = await send_blob(
            self._link,
            where,
            out.data,
            retain=True,
            per_chunk_topic=True,
            stale_chunks=self._chunks.get(where, 0),
        )

    def _count(self, sent: asyncio.Future[Sent]) -> None:
        reason = None if sent.cancelled() else UNDELIVERED.get(sent.result())
        if reason is not None:
            self._drops[reason] += 1
