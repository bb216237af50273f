"""The sending end of transfers, without I/O: what to send next, and when to ask.

The blobs of one key go one after the other, in the order of their start, so they arrive in it too,
whatever is sent again; those of other keys do not wait for them.

A blob of several chunks is offered first; the receiver says what it has of it and how many chunks
may be under way. A blob of one chunk goes at once. Chunks go in order, those that are missing
first. One counts as lost when the receiver has answered an offer made after it, or has three
that were sent after it; it goes again. When nothing is heard the sender asks, at intervals that
double, and never repeats data unasked: `Ack` always says all, so an answer that was lost does no
harm. A transfer ends once: delivered, refused, cancelled, unsent or expired.

What the receiver said may be taken back: a receiver that was started anew has nothing. Only `done`
is final. A process that was started anew offers the same blob and goes on where the old one was.
"""

import math
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from edgechoir.errors import LocalError
from edgechoir.transport.blobs import LIMIT, Chunks
from edgechoir.transport.control import Ack, Cancel, Offer, Refuse, encode

MAX_OPEN: Final = 64
"""Transfers under one key, the one under way and those behind it."""
REORDERED: Final = 3
"""So many later chunks must have arrived before an earlier one counts as lost (RFC 9002, 6.1.1)."""
RETRY_FIRST: Final = 1.0
RETRY_LAST: Final = 15.0


class Outcome(Enum):
    """How a transfer ended."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    UNSENT = "unsent"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Name:
    """A transfer: `key` is the topic of its chunks."""

    key: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Parcel:
    """Bytes to publish for a transfer."""

    name: Name
    payload: bytes
    bulk: bool = False
    """One chunk of several."""


@dataclass(frozen=True, slots=True)
class Progress:
    """A blob of several chunks under way: bytes that are there, of all, and since when."""

    key: str
    arrived: int
    total: int
    since: float


@dataclass(frozen=True, slots=True)
class Ended:
    """A transfer is over."""

    name: Name
    outcome: Outcome


@dataclass(slots=True)
class _Transfer:
    chunks: Chunks
    expires: float
    began: float
    quiet: float
    """When something was last sent or heard."""
    window: int
    ask_due: bool
    have: int = 0
    flying: dict[int, int] = field(default_factory=dict)
    """Chunk -> its number among what was sent for this blob."""
    flying_mask: int = 0
    number: int = 0
    asked: int = 0
    """The number of the last offer."""
    asks: int = 0
    """Offers since anything was heard."""
    busy: int = 0
    """Parcels given out and not yet taken over by the broker."""
    instance: bytes = b""
    sequence: int = -1

    @property
    def next_missing(self) -> int:
        """The first chunk that is neither there nor on its way."""
        taken = self.have | self.flying_mask
        return (~taken & (taken + 1)).bit_length() - 1

    def land(self, index: int) -> int:
        self.flying_mask &= ~(1 << index)
        return self.flying.pop(index)


class Sender:
    """See the module. Times in seconds on one clock, the caller's."""

    def __init__(
        self,
        retry_first: float = RETRY_FIRST,
        retry_last: float = RETRY_LAST,
        limit: int = LIMIT,
    ) -> None:
        self._retry_first, self._retry_last, self._limit = retry_first, retry_last, limit
        self._open: dict[Name, _Transfer] = {}
        self._ready: OrderedDict[Name, None] = OrderedDict()
        """Those that may have something to send, the one that waits longest in front."""
        self._lanes: dict[str, deque[Name]] = {}
        """By key; the first is under way."""
        self.resent = 0
        """Chunks that were sent again."""

    def __len__(self) -> int:
        return len(self._open)

    def names(self, key: str) -> list[Name]:
        """The open transfers under a key, in their order."""
        return list(self._lanes.get(key, ()))

    def progress(self) -> list[Progress]:
        """How far those of several chunks are whose turn it is."""
        return [
            Progress(
                key,
                transfer.have.bit_count() * transfer.chunks.total // transfer.chunks.count,
                transfer.chunks.total,
                transfer.began,
            )
            for key, lane in self._lanes.items()
            if (transfer := self._open[lane[0]]).chunks.count > 1
        ]

    def is_full(self, key: str) -> bool:
        """Are MAX_OPEN transfers open under this key?"""
        return len(self._lanes.get(key, ())) >= MAX_OPEN

    def start(self, key: str, data: bytes, now: float, expires: float) -> Name:
        """Begin a transfer that is of no use after `expires`. Starting an open one again only
        changes its end. Raises LocalError when `is_full`."""
        chunks = Chunks(data, self._limit)
        name = Name(key, chunks.digest)
        if (transfer := self._open.get(name)) is not None:
            transfer.expires = expires
            return name
        if self.is_full(key):
            raise LocalError(f"{MAX_OPEN} transfers to {key} are open, no more may be started")
        single = chunks.count == 1
        self._open[name] = _Transfer(chunks, expires, now, now, int(single), ask_due=not single)
        lane = self._lanes.setdefault(key, deque())
        lane.append(name)
        self._ready.setdefault(lane[0])
        return name

    def next(self, now: float) -> Parcel | None:
        """What to publish next, from each transfer in turn; None when nothing may be sent now."""
        while self._ready:
            name, _ = self._ready.popitem(last=False)
            transfer = self._open[name]
            asks = transfer.ask_due
            payload = self._payload(name, transfer, now)
            if payload is not None:
                transfer.busy += 1
                transfer.quiet = now
                self._ready[name] = None
                return Parcel(name, payload, bulk=not asks and transfer.chunks.count > 1)
        return None

    def _payload(self, name: Name, transfer: _Transfer, now: float) -> bytes | None:
        chunks = transfer.chunks
        if transfer.ask_due:
            transfer.ask_due = False
            transfer.number += 1
            transfer.asked = transfer.number
            left = transfer.expires - now
            return encode(Offer(name.digest, transfer.asked, chunks.count, chunks.total, left))
        index = transfer.next_missing
        if index >= chunks.count or len(transfer.flying) >= transfer.window:
            return None
        transfer.number += 1
        transfer.flying[index] = transfer.number
        transfer.flying_mask |= 1 << index
        return chunks[index]

    def seconds_left(self, name: Name, now: float) -> float:
        """Until a transfer expires; 0 when it is over."""
        transfer = self._open.get(name)
        return 0.0 if transfer is None else max(transfer.expires - now, 0.0)

    def sent(self, parcel: Parcel, now: float) -> None:
        """The broker has taken a parcel over: from now on an answer may be expected."""
        if (transfer := self._open.get(parcel.name)) is not None:
            transfer.busy -= 1
            transfer.quiet = now

    def end(self, name: Name, outcome: Outcome) -> list[Ended]:
        """Give a transfer up, or count it as delivered; nothing happens if it is over."""
        if self._open.pop(name, None) is None:
            return []
        self._ready.pop(name, None)
        lane = self._lanes[name.key]
        lane.remove(name)
        if lane:
            self._ready.setdefault(lane[0])
        else:
            del self._lanes[name.key]
        return [Ended(name, outcome)]

    def cancel(self, name: Name) -> tuple[list[Ended], Parcel]:
        """Give a transfer up; the parcel tells the receiver, which may or may not hear it."""
        return self.end(name, Outcome.CANCELLED), Parcel(name, encode(Cancel(name.digest)))

    def receive(self, key: str, control: Ack | Refuse, now: float) -> list[Ended]:
        """Take an answer to what was sent under `key`; one about an unknown blob is ignored."""
        name = Name(key, control.digest)
        transfer = self._open.get(name)
        if transfer is None:
            return []
        if isinstance(control, Refuse):
            return self.end(name, Outcome.REFUSED)
        if control.done:
            return self.end(name, Outcome.DELIVERED)
        if self._is_news(transfer, control):
            self._heed(transfer, control, now)
            self._ready.setdefault(name)
        return []

    def _is_news(self, transfer: _Transfer, ack: Ack) -> bool:
        """Was it said after what is known? Another process of the receiver is believed only if it
        has heard the last offer: what a dead one said may still be under way."""
        if ack.instance != transfer.instance:
            if ack.ask < transfer.asked:
                return False
            transfer.instance, transfer.sequence = ack.instance, -1
        if ack.sequence <= transfer.sequence:
            return False
        transfer.sequence = ack.sequence
        return True

    def _heed(self, transfer: _Transfer, ack: Ack, now: float) -> None:
        transfer.have = ack.have & ((1 << transfer.chunks.count) - 1)
        transfer.window = ack.window
        transfer.quiet = now
        if ack.window:
            transfer.asks = 0
        arrived = [index for index in transfer.flying if transfer.have >> index & 1]
        latest = max((transfer.land(index) for index in arrived), default=0) - REORDERED
        lost = [i for i, n in transfer.flying.items() if n < ack.ask or n < latest]
        for index in lost:
            transfer.land(index)
        self.resent += len(lost)

    def tick(self, now: float) -> list[Ended]:
        """Time has passed: end what has expired, ask where nothing was heard."""
        ended: list[Ended] = []
        for name, transfer in tuple(self._open.items()):
            if now >= transfer.expires:
                ended += self.end(name, Outcome.EXPIRED)
            elif transfer.busy or transfer.ask_due:
                continue
            elif now >= self._asks_at(transfer):
                transfer.ask_due = True
                transfer.asks += 1
                self._ready.setdefault(name)
        return ended

    def _asks_at(self, transfer: _Transfer) -> float:
        if not transfer.number:
            return math.inf  # it has not had its turn
        pause = min(self._retry_first * 2.0 ** min(transfer.asks, 16), self._retry_last)
        return transfer.quiet + pause

    @property
    def wake(self) -> float | None:
        """When `tick` may have something to do; None while nothing is open."""
        return min(
            (min(transfer.expires, self._asks_at(transfer)) for transfer in self._open.values()),
            default=None,
        )
