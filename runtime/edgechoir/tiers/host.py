"""What every tier does alike: connect, listen, step the endpoint, send, and say how it is doing.

One task reads the link and steps the state machines, so no two steps ever overlap. Everything slow
happens beside it: sending has a queue and a task of its own, training and model exchange are tasks
that report back as events. A host that loses its broker goes on with what it can do alone.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, Protocol

from edgechoir.errors import (
    EdgechoirError,
    LinkError,
    LocalError,
    Malformed,
    OperatorError,
    RemoteError,
)
from edgechoir.identity.certificate import Root
from edgechoir.identity.revocation import Revocations
from edgechoir.monitor.status import MemberState, Status
from edgechoir.rounds.endpoint import Endpoint, Outcome, Outgoing
from edgechoir.rounds.events import (
    Event,
    ExpandMask,
    MaskReady,
    Record,
    Refused,
    Tick,
)
from edgechoir.secagg.masking import expand_mask
from edgechoir.store.journal import RoundJournal
from edgechoir.tiers.account import Account
from edgechoir.tiers.claim import Claim
from edgechoir.tiers.letters import Letters
from edgechoir.tiers.own_status import OwnStatus
from edgechoir.tiers.peers import Peers
from edgechoir.tiers.place import Place
from edgechoir.tiers.retained import ByName
from edgechoir.tiers.revoked import Revoked
from edgechoir.transport.blobs import Assembler
from edgechoir.transport.link import Link, Message, Priority
from edgechoir.transport.receiver import Receiver
from edgechoir.transport.sender import Sender
from edgechoir.transport.spool import Spool
from edgechoir.transport.topics import (
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

log: Final = logging.getLogger(__name__)

MAX_BLOB: Final = 256 * 1024 * 1024
REFUSALS_LOGGED: Final = 20
"""Refusals of one reason that are logged in full; after that every hundredth."""


class Keeps(Protocol):
    """What runs beside a host and has something to say in its status."""

    async def run(self) -> None: ...

    def figures(self) -> dict[str, Any]: ...


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
        account: Account,
        root: Root,
        describe: Callable[[], dict[str, Any]],
        handle: Callable[[Outcome], None],
    ) -> None:
        self.place = place
        self.endpoint = endpoint
        self.link = link
        self.journal = journal
        self.account = account
        self.received = 0
        self.upkeep: Keeps | None = None
        """Looks after the certificate, beside everything else."""
        self.tap: Callable[[bytes], None] | None = None
        """Is shown every message that comes up, for a trace."""
        self.spool: Spool | None = None
        """Keeps predictions while the broker is away, where the operator wants that."""
        self._handle = handle
        self._assembler = Assembler(MAX_BLOB, max_open=64, max_total_bytes=2 * MAX_BLOB)
        self.revocations = Revoked(root, place.federation, journal)
        self._transfers = Transfers(
            link,
            Sender(),
            Receiver(place.instance, MAX_BLOB),
            lambda where: str(answering(parse(where), place.me)),
            time.monotonic,
        )
        self.letters = Letters(place, link, self._transfers, journal, endpoint)
        self._claim = Claim()
        self._taken: dict[str, bytes] = {}
        """The hash of the latest blob of each retained channel."""
        self._by_name = ByName(self.subscribe)
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        self._group: asyncio.TaskGroup | None = None
        self._status = OwnStatus(self, self._transfers, describe)
        self._peers = Peers(self, self._transfers, self._claim)

    @property
    def alone(self) -> asyncio.Event:
        """Set once no other process of this identity is known to be alive."""
        return self._claim.alone

    # ---- life

    async def run(self) -> None:
        """Serve until cancelled. Raises OperatorError for a second process of this identity."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            try:
                if self.revocations.held is not None:
                    self._go_by(self.revocations.held)
                if self.upkeep is not None:
                    group.create_task(self.upkeep.run(), name="upkeep")
                group.create_task(self._transfers.run(), name="transfers")
                if self.spool is not None:
                    group.create_task(self.spool.run(self.alone), name="spool")
                group.create_task(self._send(), name="send")
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
        await self._peers.watch(place.me)
        group.create_task(self._claim.settle(place), name="single process")
        group.create_task(self._status.run(), name="status")
        group.create_task(self._restore(), name="restore")
        if place.parent is not None:
            await self._peers.watch(place.parent)
            handed_out = ("model", "roster", "plan", "revoked")
            for channel in handed_out:
                await self.subscribe(
                    channel_filter(place.federation, channel, place.parent).replace("/#", "/+")
                )
            streams = [str(topic(place.federation, place.parent, each)) for each in handed_out]
            group.create_task(self._by_name.run(streams), name="retained")
            await self.subscribe(down_filter(place.federation, place.me.member))
        if self.endpoint.joint.down is not None:
            await self.subscribe(up_filter(place.federation, place.me.member))

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """Run something beside the host; it ends with it."""
        if self._group is None:
            raise LocalError("the host is not running")
        return self._group.create_task(work, name=name)

    def happen(self, event: Event) -> None:
        """Step the state machines by an event of this process's own."""
        self.account.happened(event)
        self._carry_out(self.endpoint.handle(event, time.time()), str(self.place.me))

    def set_alarm(self, name: str, wake: float | None, ring: Callable[[], None]) -> None:
        """Call `ring` at `wake` (unix seconds), in place of what this alarm was set to before."""
        if name in self._alarms:
            self._alarms.pop(name).cancel()
        if wake is not None and self._group is not None:
            delay = max(wake - time.time(), 0.0) + 0.001
            self._alarms[name] = asyncio.get_running_loop().call_later(delay, ring)

    def changed(self) -> None:
        """The status document has something new to say."""
        self._status.changed()

    def status(self, state: MemberState) -> Status:
        """The status document as it would be published now."""
        return self._status.document(state)

    async def farewell(self) -> None:
        """The last status, on a clean stop of the one process that speaks for this member."""
        if not self.alone.is_set():
            return
        try:
            async with asyncio.timeout(2):
                await self._status.say(MemberState.STOPPED)
        except (LinkError, TimeoutError):
            pass  # the broker is away; its last will says `lost`

    # ---- what comes in

    async def _read(self) -> None:
        async for message in self.link.messages():
            try:
                self._take(message)
            except RemoteError as error:
                self.refuse(error, _writer(message.topic))

    def _take(self, message: Message) -> None:
        if not message.payload:
            return  # a retained topic was cleared
        where = parse(message.topic)
        if where.federation != self.place.federation:
            raise Malformed(f"a message of the federation {where.federation!r}")
        if where.channel == "status":
            self._peers.take(where, message)
            return
        if where.channel in PAIR_CHANNELS:
            if where.rest == self.place.me.member:
                for whole in self._transfers.take(message.topic, message.payload):
                    self._receive(where, whole, retained=message.retained)
            return
        if further := self._by_name.hear(where, message.payload):
            self.spawn(self._by_name.ask(where.stream, further), "retained chunks")
        blob = self._assembler.feed(where.stream, message.payload, time.monotonic())
        if blob is None or self._comes_again(where, blob):
            return
        if where.channel == "revoked":
            self.take_revocations(blob, str(where.sender))
        else:
            self._receive(where, blob, retained=message.retained)

    def _receive(self, where: Topic, blob: bytes, *, retained: bool) -> None:
        self.received += len(blob)
        if self.tap is not None and where.channel == "up":
            self.tap(blob)
        outcomes = self.endpoint.receive(blob, time.time(), retained=retained)
        self._carry_out(outcomes, str(where.sender))

    def _comes_again(self, where: Topic, blob: bytes) -> bool:
        """A broker gives what it retains with every new subscription: that is no replay."""
        digest = hashlib.sha256(blob).digest()
        before = self._taken.get(where.stream)
        self._taken[where.stream] = digest
        return before == digest

    def _carry_out(self, outcomes: list[Outcome], peer: str) -> None:
        record: Record | None = None
        for outcome in outcomes:
            self.account.happened(outcome)
            match outcome:
                case Record():
                    record = outcome
                case Outgoing():
                    self.letters.put(outcome, record)
                    record = None
                case ExpandMask():
                    self.spawn(self._expand(outcome), f"mask of round {outcome.round}")
                case Refused(error):
                    self._log_refusal(error, peer)
                case _:
                    self._handle(outcome)
        self.set_alarm("endpoint", self.endpoint.joint.wake, lambda: self.happen(Tick()))
        self._peers.watch_children()
        self.changed()

    def take_revocations(self, data: bytes, source: str) -> None:
        """Go by a list of revoked certificates, if it is the CA's and newer than the one held.

        Raises RemoteError.
        """
        given = self.revocations.take(data)
        if given is None:
            return
        log.info("%d certificates are revoked, says list %d", len(given.serials), given.number)
        self.account.audit.record(
            "revocations", number=given.number, revoked=len(given.serials), source=source
        )
        self.spawn(self.revocations.keep(), "keep revocations")
        self._go_by(given)

    def _go_by(self, held: Revocations) -> None:
        outcomes = self.endpoint.revoke(held.serials, time.time())
        self._carry_out(outcomes, str(self.place.me))
        if self.endpoint.joint.down is not None:
            self.letters.put(Outgoing("revoked", "", held.der))

    async def _expand(self, wanted: ExpandMask) -> None:
        """Make a mask in a thread, while the work that it will cover goes on."""
        width = f"u{wanted.bits // 8}"
        mask = await asyncio.to_thread(
            expand_mask, wanted.seeds, wanted.length, width, wanted.keystream
        )
        self.happen(MaskReady(wanted.round, mask))

    def refuse(self, error: RemoteError, peer: str = "") -> None:
        """Count and log what a peer got wrong; `peer` is the member, where it is known."""
        self.endpoint.drops[error.reason] += 1
        self._log_refusal(error, peer)
        self.changed()

    def _log_refusal(self, error: RemoteError, peer: str) -> None:
        self.account.refused(error, peer)
        count = self.endpoint.drops[error.reason]
        if count <= REFUSALS_LOGGED or count % 100 == 0:
            log.warning("refused (%s, %d so far): %s", error.reason, count, error)

    # ---- what goes out

    async def _send(self) -> None:
        await self.alone.wait()
        if self.endpoint.joint.down is not None:
            await self.letters.clear()
        await self.letters.run()

    async def _restore(self) -> None:
        """Whenever the connection is back, see that the broker retains what it should."""
        await self.alone.wait()
        lost = False
        async for state in self.link.changes():
            if state.connected and lost:
                self.letters.restore()
                self.changed()
            lost = not state.connected

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
            await self.link.publish(
                where, document, qos=qos, priority=Priority.DOCUMENT, timeout=10
            )
        except LinkError as error:
            log.debug("could not publish %s: %s", channel, error)

    async def subscribe(self, pattern: str) -> None:
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


def _writer(text: str) -> str:
    """The member that may write to a topic; nobody for one that is none of ours."""
    try:
        return str(parse(text).sender)
    except Malformed:
        return ""


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
