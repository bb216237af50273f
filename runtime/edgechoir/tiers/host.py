"""What every tier does alike: connect, listen, step the endpoint, send, and say how it is doing.

One task reads the link and steps the state machines, so no two steps ever overlap. Everything slow
happens beside it: sending has a queue and a task of its own, training and model exchange are tasks
that report back as events. A host that loses its broker goes on with what it can do alone.
"""

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgechoir.errors import (
    DuplicateIdentity,
    EdgechoirError,
    LinkError,
    LocalError,
    Malformed,
    OperatorError,
    RemoteError,
)
from edgechoir.monitor.health import health, usage
from edgechoir.monitor.status import MemberState, Status, parse_at
from edgechoir.rounds.endpoint import Endpoint, Outcome, Outgoing
from edgechoir.rounds.events import (
    Begin,
    Event,
    ExpandMask,
    Gone,
    MaskReady,
    Record,
    Refused,
    Tick,
)
from edgechoir.rounds.participant import Phase
from edgechoir.secagg.masking import expand_mask
from edgechoir.store.journal import RoundJournal
from edgechoir.transport.blobs import Assembler, send_blob
from edgechoir.transport.link import Link, Message
from edgechoir.transport.receiver import Receiver
from edgechoir.transport.sender import Outcome as Sent
from edgechoir.transport.sender import Sender
from edgechoir.transport.spool import Spool
from edgechoir.transport.topics import (
    BULK_CHANNELS,
    PAIR_CHANNELS,
    Topic,
    answering,
    channel_filter,
    down_filter,
    parse,
    topic,
    up_filter,
)
from edgechoir.transport.transfer import Transfers
from edgechoir.types import Address

log: Final = logging.getLogger(__name__)

STATUS_S: Final = 5.0
"""Seconds between two status documents when nothing changes."""
SETTLE_S: Final = 0.5
"""Seconds that changes are gathered into one status document."""
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
MAX_BLOB: Final = 256 * 1024 * 1024
REFUSALS_LOGGED: Final = 20
"""Refusals of one reason that are logged in full; after that every hundredth."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where this process stands in the federation."""

    federation: str
    me: Address
    parent: Address | None
    instance: bytes
    keep_alive: float


@dataclass(frozen=True, slots=True)
class _Letter:
    """What waits to be sent, of use for so many seconds. `record` is written down before it leaves,
    and goes if it goes."""

    out: Outgoing
    record: Record | None
    seconds: float = LETTER_S


class Host:
    """The parts of a tier's process that do not depend on the tier.

    `describe` fills the tier's own fields of the status document; `handle` takes the outcomes that
    are not for sending.
    """

    def __init__(
        self,
        place: Place,
        link: Link,
        endpoint: Endpoint,
        journal: RoundJournal,
        describe: Callable[[], dict[str, Any]],
        handle: Callable[[Outcome], None],
    ) -> None:
        self.place = place
        self.endpoint = endpoint
        self.link = link
        self.journal = journal
        self.started = time.time()
        self._began = time.monotonic()
        self._usage = usage(self._began)
        self.sent = 0
        """Bytes of signed messages handed to the broker, of whatever kind but JSON."""
        self.received = 0
        self.alone = asyncio.Event()
        """Set once no other process of this identity is known to be alive."""
        self.tap: Callable[[bytes], None] | None = None
        """Is shown every message that comes up, for a trace."""
        self.spool: Spool | None = None
        """Keeps predictions while the broker is away, where the operator wants that."""
        self._describe = describe
        self._handle = handle
        self._assembler = Assembler(MAX_BLOB, max_open=64, max_total_bytes=2 * MAX_BLOB)
        self._transfers = Transfers(
            link,
            Sender(),
            Receiver(place.instance, MAX_BLOB),
            lambda where: str(answering(parse(where), place.me)),
            time.monotonic,
        )
        self._outbox: asyncio.Queue[_Letter] = asyncio.Queue(MAX_WAITING)
        self._retained: dict[str, Outgoing] = {}
        """The latest of each channel that the broker keeps for us."""
        self._taken: dict[str, bytes] = {}
        """The hash of the latest blob of each such channel of the parent."""
        self._changed = asyncio.Event()
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        self._group: asyncio.TaskGroup | None = None
        self._watched: set[Address] = set()
        self._peers: dict[Address, tuple[str, bytes]] = {}
        self._retained_chunks: dict[str, int] = {}
        self._own_status: asyncio.Queue[tuple[Status, bool]] = asyncio.Queue(64)

    # ---- life

    async def run(self) -> None:
        """Serve until cancelled. Raises OperatorError for a second process of this identity."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                group.create_task(self._transfers.run(), name="transfers")
                if self.spool is not None:
                    group.create_task(self.spool.run(self.alone), name="spool")
                group.create_task(self._send_all(), name="send")
                group.create_task(self._read(), name="read")
                await self._listen(group)
                await asyncio.Event().wait()  # until cancelled, or a task has failed
            finally:
                self._group = None
                for alarm in self._alarms.values():
                    alarm.cancel()

    async def _listen(self, group: asyncio.TaskGroup) -> None:
        """Subscribe to what concerns this member; say that it is here once no other process is."""
        place = self.place
        await self._watch(place.me)
        group.create_task(self._become_alone(), name="single process")
        group.create_task(self._publish_status(), name="status")
        group.create_task(self._restore(), name="restore")
        if place.parent is not None:
            await self._watch(place.parent)
            for channel in ("model", "roster", "plan"):
                await self._subscribe(
                    channel_filter(place.federation, channel, place.parent).replace("/#", "/+")
                )
            await self._subscribe(down_filter(place.federation, place.me.member))
        if self.endpoint.joint.down is not None:
            await self._subscribe(up_filter(place.federation, place.me.member))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something beside the host; it ends with it."""
        if self._group is None:
            raise LocalError("the host is not running")
        return self._group.create_task(work, name=name)

    def happen(self, event: Event) -> None:
        """Step the state machines by an event of this process's own."""
        self._carry_out(self.endpoint.handle(event, time.time()))

    def set_alarm(self, name: str, wake: float | None, ring: Callable[[], None]) -> None:
        """Call `ring` at `wake` (unix seconds), in place of what this alarm was set to before."""
        if name in self._alarms:
            self._alarms.pop(name).cancel()
        if wake is not None and self._group is not None:
            delay = max(wake - time.time(), 0.0) + 0.001
            self._alarms[name] = asyncio.get_running_loop().call_later(delay, ring)

    def changed(self) -> None:
        """The status document has something new to say."""
        self._changed.set()

    async def farewell(self) -> None:
        """The last status, on a clean stop of the one process that speaks for this member."""
        if not self.alone.is_set():
            return
        try:
            async with asyncio.timeout(2):
                await self._say(MemberState.STOPPED)
        except (LinkError, TimeoutError):
            pass  # the broker is away; its last will says `lost`

    # ---- what comes in

    async def _read(self) -> None:
        async for message in self.link.messages():
            try:
                self._take(message)
            except RemoteError as error:
                self.refuse(error)

    def _take(self, message: Message) -> None:
        if not message.payload:
            return  # a retained topic was cleared
        where = parse(message.topic)
        if where.federation != self.place.federation:
            raise Malformed(f"a message of the federation {where.federation!r}")
        if where.channel == "status":
            self._take_status(where, message)
            return
        if where.channel in PAIR_CHANNELS:
            if where.rest == self.place.me.member:
                for whole in self._transfers.take(message.topic, message.payload):
                    self._receive(where, whole, retained=message.retained)
            return
        blob = self._assembler.feed(where.stream, message.payload, time.time())
        if blob is not None and not self._comes_again(where, blob):
            self._receive(where, blob, retained=message.retained)

    def _receive(self, where: Topic, blob: bytes, *, retained: bool) -> None:
        self.received += len(blob)
        if self.tap is not None and where.channel == "up":
            self.tap(blob)
        self._carry_out(self.endpoint.receive(blob, time.time(), retained=retained))

    def _comes_again(self, where: Topic, blob: bytes) -> bool:
        """A broker gives what it retains with every new subscription: that is no replay."""
        digest = hashlib.sha256(blob).digest()
        before = self._taken.get(where.stream)
        self._taken[where.stream] = digest
        return before == digest

    def _carry_out(self, outcomes: list[Outcome]) -> None:
        record: Record | None = None
        for outcome in outcomes:
            match outcome:
                case Record():
                    record = outcome
                case Outgoing():
                    self._enqueue(outcome, record)
                    record = None
                case ExpandMask():
                    self.spawn(self._expand(outcome), f"mask of round {outcome.round}")
                case Refused(error):
                    self._log_refusal(error)
                case _:
                    self._handle(outcome)
        self.set_alarm("endpoint", self.endpoint.joint.wake, lambda: self.happen(Tick()))
        self._watch_children()
        self.changed()

    async def _expand(self, wanted: ExpandMask) -> None:
        """Make a mask in a thread, while the work that it will cover goes on."""
        width = np.uint16 if wanted.bits == 16 else np.uint32
        mask = await asyncio.to_thread(
            expand_mask, wanted.seeds, wanted.length, width, wanted.keystream
        )
        self.happen(MaskReady(wanted.round, mask))

    def refuse(self, error: RemoteError) -> None:
        """Count and log what a peer got wrong."""
        self.endpoint.drops[error.reason] += 1
        self._log_refusal(error)
        self.changed()

    def _log_refusal(self, error: RemoteError) -> None:
        count = self.endpoint.drops[error.reason]
        if count <= REFUSALS_LOGGED or count % 100 == 0:
            log.warning("refused (%s, %d so far): %s", error.reason, count, error)

    # ---- peers

    def _watch_children(self) -> None:
        down = self.endpoint.joint.down
        if down is None:
            return
        children = {
            child.entry.address for child in (*down.members.values(), *down.pending.values())
        }
        for child in children - self._watched:
            self._watched.add(child)
            self.spawn(self._watch(child), f"watch {child}")

    async def _watch(self, peer: Address) -> None:
        self._watched.add(peer)
        await self._subscribe(channel_filter(self.place.federation, "status", peer))

    def _take_status(self, where: Topic, message: Message) -> None:
        status = parse_at(where, message.payload)
        peer = where.sender
        instance = bytes.fromhex(status.instance)
        if peer == self.place.me:
            self._take_own_status(status, instance, message.retained)
            return
        before = self._peers.get(peer)
        if status.state is MemberState.STOPPED or (before and before[1] != instance):
            self._forget_transfers(peer)
        self._peers[peer] = (str(status.state.value), instance)
        if status.state is not MemberState.ONLINE:
            self.endpoint.release(peer, instance)
            down = self.endpoint.joint.down
            if down is not None and peer != self.place.parent:
                word = "was lost" if status.state is MemberState.LOST else "stopped"
                self.happen(Gone(str(peer.member), instance, word))
            return
        self.endpoint.reclaim(peer, instance)
        if peer == self.place.parent and before is not None and before[1] != instance:
            log.info("parent %s is another process now; joining it anew", peer)
            self.rejoin()

    def _forget_transfers(self, peer: Address) -> None:
        """What was under way from or to a peer's process that is gone is of no use to the next."""
        place = self.place
        ours, theirs = ("up", "down") if peer == place.parent else ("down", "up")
        me = str(place.me.member)
        self._transfers.forget(str(topic(place.federation, peer, theirs, me)))
        to = topic(place.federation, place.me, ours, str(peer.member))
        self._transfers.cancel_all(str(to))

    def rejoin(self) -> None:
        """Ask the parent for a place again, if this tier takes part at all."""
        up = self.endpoint.joint.up
        if up is not None and up.phase is not Phase.IDLE:
            self.happen(Begin(up.devices, up.last_round))

    # ---- a second process of this identity

    def _take_own_status(self, status: Status, instance: bytes, retained: bool) -> None:
        if instance == self.place.instance:
            if status.state is MemberState.LOST:
                # The broker had lost us and said so: to the parent we are gone.
                log.info("back after the connection was lost")
                self.rejoin()
                self.changed()
            return
        if not self.alone.is_set():
            if not self._own_status.full():
                self._own_status.put_nowait((status, retained))
            return
        if status.state is MemberState.ONLINE and not retained:
            self.refuse(
                DuplicateIdentity(
                    f"another process ({instance.hex()}) runs as {self.place.me}: "
                    "stop it, or enrol it under an id of its own"
                )
            )
        self.changed()  # say again who is here

    async def _become_alone(self) -> None:
        """Give way to a process of this identity that is alive; wait until a dead one is known so.

        A process killed without its connection noticing still counts as on line at the broker for
        one and a half keep-alives (MQTT 5, 3.1.2.10).
        """
        patience = 1.5 * self.place.keep_alive + 2.0
        try:
            async with asyncio.timeout(1.0):
                status, retained = await self._own_status.get()
            async with asyncio.timeout(patience):
                while status.state is MemberState.ONLINE:
                    if not retained:
                        raise OperatorError(
                            f"another process already runs as {self.place.me} (instance "
                            f"{status.instance}): stop it first, or enrol this one under its own id"
                        )
                    log.info("waiting to see whether an earlier process of %s lives", self.place.me)
                    status, retained = await self._own_status.get()
        except TimeoutError:
            pass
        self.alone.set()
        self.changed()

    # ---- what goes out

    def send(self, out: Outgoing) -> None:
        """Queue something to send."""
        self._enqueue(out, None)

    def _enqueue(self, out: Outgoing, record: Record | None) -> None:
        if out.channel in BULK_CHANNELS:
            self._retained[out.channel] = out
        if self._outbox.full():
            self._outbox.get_nowait()
            self.endpoint.drops["outbox_full"] += 1
        up = self.endpoint.joint.up
        turn = None if up is None or record is None else up.turn
        seconds = LETTER_S if turn is None else turn.plan.deadline
        self._outbox.put_nowait(_Letter(out, record, seconds))

    async def _send_all(self) -> None:
        await self.alone.wait()
        if self.endpoint.joint.down is not None:
            await self._clear()
        while True:
            letter = await self._outbox.get()
            async for state in self.link.changes():
                if state.connected:
                    break
            if letter.record is not None:
                await self._write_down(letter.record)
            try:
                await self._send(letter)
            except LinkError as error:
                self.endpoint.drops["unsent"] += 1
                log.warning("%s", error)

    async def _write_down(self, record: Record) -> None:
        await asyncio.to_thread(
            self.journal.mark_round_used,
            self.place.federation,
            record.epoch,
            record.round,
            0,
            record.upload,
        )

    async def _clear(self) -> None:
        """What an earlier process left with the broker belongs to rosters that are gone."""
        for channel in ("roster", "plan"):
            where = f"{topic(self.place.federation, self.place.me, channel)}/0"
            try:
                await self.link.publish(where, b"", retain=True)
            except LinkError as error:
                log.warning("%s", error)

    async def _restore(self) -> None:
        """Publish again what others find retained, whenever the connection is back.

        A broker without persistence comes back empty, and who joins then would wait in vain.
        """
        await self.alone.wait()
        lost = False
        async for state in self.link.changes():
            if state.connected and lost:
                for out in tuple(self._retained.values()):
                    self._enqueue(out, None)
                self.changed()
            lost = not state.connected

    async def _send(self, letter: _Letter) -> None:
        place, out = self.place, letter.out
        self.sent += len(out.data)
        if out.channel in PAIR_CHANNELS:
            peer = place.parent if out.channel == "up" else None
            member = out.member if peer is None else str(peer.member)
            if not member:
                return
            where = str(topic(place.federation, place.me, out.channel, member))
            await self._transfers.room(where, ROOM_S)
            sent = self._transfers.start(where, out.data, letter.seconds)
            sent.add_done_callback(self._count_sent)
        else:
            where = str(topic(place.federation, place.me, out.channel))
            self._retained_chunks[where] = await send_blob(
                self.link,
                where,
                out.data,
                retain=True,
                per_chunk_topic=True,
                stale_chunks=self._retained_chunks.get(where, 0),
            )

    def _count_sent(self, sent: asyncio.Future[Sent]) -> None:
        reason = None if sent.cancelled() else UNDELIVERED.get(sent.result())
        if reason is not None:
            self.endpoint.drops[reason] += 1
            self.changed()

    async def publish_json(self, channel: str, document: bytes, *, qos: int = 0) -> None:
        """Publish a document for people; dropped while there is no broker, or no right to speak,
        unless it is of a kind that is kept."""
        where = str(topic(self.place.federation, self.place.me, channel))
        if self.spool is not None and channel == "predictions":
            self.spool.put(where, document)
            return
        if not self.alone.is_set():
            return
        try:
            await self.link.publish(where, document, qos=qos, timeout=10)
        except LinkError as error:
            log.debug("could not publish %s: %s", channel, error)

    async def _subscribe(self, pattern: str) -> None:
        """Subscribe now or, with the broker away, when it is back."""
        while True:
            before = (self.link.state.connected, self.link.counters.reconnects)
            try:
                await self.link.subscribe(pattern)
                return
            except LinkError as error:
                # Over one unbroken connection the answer was a refusal.
                if before == (True, self.link.counters.reconnects) and self.link.state.connected:
                    raise OperatorError(f"{error}; check the broker's access list") from None
                log.warning("no subscription yet: %s", error)

    # ---- status

    async def _publish_status(self) -> None:
        await self.alone.wait()
        while True:
            self._changed.clear()
            try:
                await self._say(MemberState.ONLINE)
            except LinkError as error:
                log.debug("status not published: %s", error)
            await asyncio.sleep(SETTLE_S)
            try:
                async with asyncio.timeout(STATUS_S - SETTLE_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _say(self, state: MemberState) -> None:
        where = str(topic(self.place.federation, self.place.me, "status"))
        await self.link.publish(where, self.status(state).to_json(), retain=True, timeout=10)

    def status(self, state: MemberState) -> Status:
        """The status document as it would be published now."""
        counters = self.link.counters
        before, self._usage = self._usage, usage(time.monotonic())
        return Status.model_validate(
            {
                **base_status(self.place, state, self.started),
                **self._describe(),
                "drops": dict(self.endpoint.drops),
                "broker": {
                    "reconnects": counters.reconnects,
                    "bytes_up": counters.bytes_up,
                    "bytes_down": counters.bytes_down,
                },
                "spool": None if self.spool is None else self.spool.figures(),
                "health": health(self._began, before, self._usage),
            }
        )


def base_status(place: Place, state: MemberState, since: float) -> dict[str, Any]:
    """What every status document has, and all that a last will has."""
    return {
        "federation": place.federation,
        "tier": place.me.tier,
        "member": str(place.me.member),
        "instance": place.instance.hex(),
        "state": state,
        "since": since,
        "updated": time.time(),
        "parent": None if place.parent is None else str(place.parent.member),
    }


@asynccontextmanager
async def fatal_is_plain() -> AsyncIterator[None]:
    """A task group's error as the one error it holds, so that a command can print one line."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, EdgechoirError | OSError):
            raise error from None
        raise


def new_instance() -> bytes:
    """Names this process among all that ever run under its identity."""
    return os.urandom(8)
