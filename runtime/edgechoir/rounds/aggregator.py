"""A tier's end towards its children.

    GATHERING ─enough Joins─▶ KEYING ─Bundles of all─▶ READY ─Order─▶ COLLECTING ─Uploads─▶
    UNMASKING ─Answers─▶ READY …

An epoch begins when children wait to be let in and no turn runs, or when too few are left of it to
reach the threshold. A turn is run with those who have left for it what it needs (`Prepare`). When
all of them have uploaded, or those who have not are known to be away, or the time for it is over,
the survivors are named and asked for what opens their sum; the threshold of answers is enough.
Where somebody is missing, the threshold must have signed the survivors before (`agreement`). A turn
ends as done, or as failed with a reason; it never waits beyond its deadline.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from edgechoir import wire
from edgechoir.errors import (
    BadUpdate,
    LocalError,
    Malformed,
    OutOfPlace,
    PolicyViolation,
    UnknownMember,
)
from edgechoir.identity.envelope import Verifier
from edgechoir.learning.fixed_point import MAX_DEVICES
from edgechoir.rounds.agreement import check_consent, check_receipt
from edgechoir.rounds.cohort import (
    Turn,
    begin_turn,
    check_sum,
    count_in,
    lay_bare,
    masked_vector,
    open_answer,
    open_upload,
)
from edgechoir.rounds.epoch import (
    Entry,
    expect,
    read_join,
    roster_hash,
    round_context,
    slots_of,
)
from edgechoir.rounds.events import (
    Back,
    Cancel,
    Effect,
    Event,
    Gone,
    Membership,
    Order,
    Received,
    Refused,
    RoundDone,
    RoundFailed,
    Tick,
    ToAll,
    ToChild,
)
from edgechoir.secagg.boxes import BOX_BYTES
from edgechoir.secagg.chains import SECRET_BYTES
from edgechoir.secagg.pads import Keystream
from edgechoir.secagg.sealing import KemKey, new_kem_key
from edgechoir.secagg.threshold import colluders, threshold
from edgechoir.types import Address, Entropy

BELOW: Final = {
    "node": ("device",),
    "edge-cloud": ("device", "node"),
    "cloud": ("device", "node", "edge-cloud"),
}
"""Which tiers may join which."""
MAX_AHEAD: Final = 2**24
LAST: Final = 2**31
"""How far a child may move our rounds and epochs, at once and at all: their numbers are 32 bits."""


class Phase(Enum):
    """Where an aggregator stands; the value is the word shown in its status."""

    GATHERING = "gathering"
    KEYING = "keying"
    READY = "ready"
    COLLECTING = "collecting"
    UNMASKING = "unmasking"


@dataclass(frozen=True, slots=True)
class Limits:
    """How many members a cohort needs and may have, and how long it waits for them, in seconds.

    With `expected` children waiting, an epoch begins at once. A sum needs `min_members` survivors
    and, up to one in `colluders_one_in` members colluding, the threshold that follows from it. The
    uploads have `collecting` of a turn's time, the answers what is left.
    """

    min_members: int = 2
    colluders_one_in: int = 4
    max_members: int = wire.MAX_MEMBERS
    expected: int = wire.MAX_MEMBERS
    join_wait: float = 5.0
    keying: float = 10.0
    preparing: float = 2.0
    collecting: float = 0.75


@dataclass(frozen=True, slots=True)
class Self:
    """What does not change about this tier."""

    federation: str
    address: Address
    verifier: Verifier
    limits: Limits = field(default_factory=Limits)
    keystream: Keystream = Keystream.AES


@dataclass(frozen=True, slots=True)
class Child:
    """A child, the envelope of the Join it came with, and the one it left for the next epoch."""

    entry: Entry
    envelope: bytes
    renewal: tuple[Entry, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Aggregator:
    """The whole state. `wake` is when a Tick is due.

    `names` is the roster of the epoch, of whom `members` are still there and `away` may come back;
    `seen` the last turn begun, `prepared` what members have left for the one after it.
    """

    who: Self
    phase: Phase = Phase.GATHERING
    members: Mapping[str, Child] = field(default_factory=dict)
    pending: Mapping[str, Child] = field(default_factory=dict)
    away: Mapping[str, Child] = field(default_factory=dict)
    kem: KemKey | None = None
    epoch: int = 0
    last_round: int = 0
    roster: bytes = b""
    names: tuple[str, ...] = ()
    threshold: int = 0
    bundles: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    prepared: Mapping[str, wire.Prepare] = field(default_factory=dict)
    seen: int = 0
    order: Order | None = None
    turn: Turn | None = None
    wake: float | None = None

    @property
    def needed(self) -> int:
        """Survivors that a sum must have."""
        return max(self.threshold, self.who.limits.min_members)

    @property
    def stuck(self) -> bool:
        """Whether too few are left of the epoch for a sum."""
        return self.phase is Phase.READY and len(self.members) < self.needed


Step = tuple[Aggregator, list[Effect]]


def step(state: Aggregator, event: Event, now: float, entropy: Entropy) -> Step:
    """Advance by one event. Raises RemoteError (state unchanged) or LocalError."""
    what: type = type(event.message) if isinstance(event, Received) else type(event)
    move = MOVES.get((state.phase, what))
    if move is None:
        if isinstance(event, Received):
            raise OutOfPlace(f"a {what.__name__} has no place while {state.phase.value}")
        raise LocalError(f"{what.__name__} has no place while {state.phase.value}")
    return move(state, event, now, entropy)


# ---- who takes part


def _join(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    if e.sender.tier not in BELOW[s.who.address.tier]:
        raise UnknownMember(f"a {e.sender.tier} cannot join a {s.who.address.tier}")
    entry = read_join(e.envelope, s.who.verifier, s.who.address, now)
    name = str(e.sender.member)
    _believe(s, name, entry.join)
    current = s.members.get(name)
    if entry.join.renew and current is not None and current.entry.instance == e.instance:
        child = replace(current, renewal=(entry, e.envelope))
        return _gather(replace(s, members={**s.members, name: child}), now, entropy)
    known = {**s.members, **s.pending}
    if name not in known and len(known) >= s.who.limits.max_members:
        raise UnknownMember(f"no place for {e.sender}: {len(known)} members is the limit here")
    if current is not None and current.entry.join.kem == entry.join.kem:
        return s, []
    s = replace(s, pending={**s.pending, name: Child(entry, e.envelope)})
    if current is not None and s.turn is not None:
        # It has forgotten the epoch, so it will neither upload nor answer in this turn.
        s = replace(s, members=_without(s.members, name))
        return _will_not_come(s, name, "joined anew", now, entropy)
    return _gather(s, now, entropy)


def _believe(s: Aggregator, name: str, join: wire.Join) -> None:
    """Raises PolicyViolation for numbers in a Join that would carry ours beyond their fields."""
    for what, claimed, ours in (
        ("round", join.last_round, s.last_round),
        ("epoch", join.last_epoch, s.epoch),
    ):
        if claimed > min(ours + MAX_AHEAD, LAST):
            raise PolicyViolation(f"{name} claims {what} {claimed}, here it is {ours}")
    entries = [child.entry for child in (*s.members.values(), *s.pending.values())]
    entries += [child.renewal[0] for child in s.members.values() if child.renewal]
    others = sum(one.join.devices for one in entries if one.address.member != name)
    if others + join.devices > MAX_DEVICES:
        raise PolicyViolation(f"{name} claims {join.devices} devices, more than can be added up")


def _gather(s: Aggregator, now: float, entropy: Entropy) -> Step:
    """Begin an epoch now, later or not yet, when no round or set-up is under way.

    The key of a member's Join is used up with its first epoch: who is in one now is waited for
    until it has offered the next, else the new roster would find it without the key to be in it.
    """
    if s.phase not in (Phase.GATHERING, Phase.READY) or not _wanted(s):
        return s, []
    limits = s.who.limits
    there = len({**s.members, **s.pending})
    if there < limits.min_members:
        return replace(s, wake=None), []
    if len(_renewed(s)) == there and (s.stuck or there >= min(limits.expected, limits.max_members)):
        return _open_epoch(s, now, entropy)
    return (s, []) if s.wake is not None else (replace(s, wake=now + limits.join_wait), [])


def _wanted(s: Aggregator) -> bool:
    """Whether a new epoch is wanted: somebody waits to be let in, or this one cannot go on."""
    return bool(s.pending) or s.stuck


def _renewed(s: Aggregator) -> dict[str, Child]:
    """Who has a key to offer for the next epoch."""
    stay = {name: Child(*one.renewal) for name, one in s.members.items() if one.renewal}
    return {**stay, **s.pending}


def _ready_due(s: Aggregator, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake:
        return s, []
    s = replace(s, wake=None)
    if _wanted(s) and len({**s.members, **s.pending}) >= s.who.limits.min_members:
        return _open_epoch(s, now, entropy)
    if s.order is not None and s.phase is Phase.READY:
        return _start(s, now, entropy)
    return s, []


def _open_epoch(s: Aggregator, now: float, entropy: Entropy) -> Step:
    chosen = _renewed(s)
    if len(chosen) < s.who.limits.min_members:  # the others find themselves out, and ask anew
        chosen = {**s.members, **chosen}
    members = dict(sorted(chosen.items()))
    joins = [child.entry.join for child in members.values()]
    epoch = max(s.epoch, *(join.last_epoch for join in joins)) + 1
    last_round = max(s.last_round, *(join.last_round for join in joins))
    kem = new_kem_key(entropy)
    envelopes = tuple(child.envelope for child in members.values())
    n = len(members)
    t = threshold(n, colluders(n, s.who.limits.colluders_one_in))
    cipher = list(Keystream).index(s.who.keystream)
    roster = wire.Roster(epoch, t, cipher, kem.public, envelopes)
    s = replace(
        s,
        phase=Phase.KEYING,
        members=members,
        pending={},
        away={},
        kem=kem,
        epoch=epoch,
        last_round=last_round,
        roster=roster_hash(s.who.federation, s.who.address, roster),
        names=tuple(members),
        threshold=t,
        bundles={},
        prepared={},
        seen=0,
        wake=now + s.who.limits.keying,
    )
    return s, [ToAll(roster)]


def _bundles(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Bundles)
    name = _member(s, e)
    if (message.epoch, message.roster) != (s.epoch, s.roster):
        raise OutOfPlace(f"bundles for epoch {message.epoch}, this is epoch {s.epoch}")
    sealed = dict(message.sealed)
    unsealed = sorted(s.members.keys() - sealed.keys() - {name})
    if unsealed:
        raise Malformed(f"{name} sealed nothing to {', '.join(unsealed)}")
    s = replace(s, bundles={**s.bundles, name: sealed})
    return _close_keying(s, now, entropy) if s.members.keys() <= s.bundles.keys() else (s, [])


def _close_keying(s: Aggregator, now: float, entropy: Entropy) -> Step:
    """Hand every member what the others sealed to it; who sealed nothing is out."""
    keyed = {name: child for name, child in s.members.items() if name in s.bundles}
    if len(keyed) < s.who.limits.min_members:
        return _too_few(replace(s, members=keyed), now, entropy)
    effects: list[Effect] = []
    for reader in keyed:
        boxes = [(by, s.bundles[by][reader]) for by in keyed if reader in s.bundles[by]]
        effects.append(ToChild(reader, wire.Delivery(s.epoch, s.roster, tuple(boxes))))
    s = replace(s, phase=Phase.READY, members=keyed, bundles={}, wake=None)
    s, more = _settle(s, now, entropy)
    return s, effects + more


def _keying_due(s: Aggregator, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake:
        return s, []
    return _close_keying(s, now, entropy)


def _too_few(s: Aggregator, now: float, entropy: Entropy) -> Step:
    """Below the minimum: end the epoch with an empty roster, on which everyone joins anew."""
    left, order = len(s.members), s.order
    kem = new_kem_key(entropy)
    roster = wire.Roster(s.epoch + 1, 0, 0, kem.public, ())
    s = replace(
        s,
        phase=Phase.GATHERING,
        members={},
        away={},
        bundles={},
        prepared={},
        names=(),
        threshold=0,
        kem=kem,
        epoch=s.epoch + 1,
        roster=b"",
        order=None,
        wake=None,
    )
    effects: list[Effect] = [ToAll(roster), membership(s)]
    if order is not None:
        reason = f"{left} members are left, {s.who.limits.min_members} are needed"
        effects.append(RoundFailed(order.round, reason))
    s, more = _gather(s, now, entropy)
    return s, effects + more


def _gone(s: Aggregator, e: Gone, now: float, entropy: Entropy) -> Step:
    def stays(name: str, child: Child) -> bool:
        return name != e.member or child.entry.instance != e.instance

    s = replace(s, pending={n: c for n, c in s.pending.items() if stays(n, c)})
    if all(stays(n, c) for n, c in s.members.items()):
        return s, []
    if s.phase in _KEYED:
        s = replace(s, away={**s.away, e.member: s.members[e.member]})
    s = replace(s, members=_without(s.members, e.member))
    if s.turn is not None:
        return _will_not_come(s, e.member, e.reason, now, entropy)
    if s.phase is Phase.KEYING:
        if len(s.members) < s.who.limits.min_members:
            return _too_few(s, now, entropy)
        if s.members.keys() <= s.bundles.keys():
            return _close_keying(s, now, entropy)
        return s, []
    return _settle(s, now, entropy)


def _back(s: Aggregator, e: Back, now: float, entropy: Entropy) -> Step:
    """Still of this epoch: the next call reaches it, and it sings from the turn after that."""
    child = s.away.get(e.member)
    if child is None or child.entry.instance != e.instance or e.member in s.pending:
        return s, []
    members = dict(sorted({**s.members, e.member: child}.items()))
    return replace(s, members=members, away=_without(s.away, e.member)), []


def _without(members: Mapping[str, Child], *names: str) -> dict[str, Child]:
    return {name: child for name, child in members.items() if name not in names}


def _leave(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Leave)
    gone = Gone(str(e.sender.member), e.instance, f"left ({message.reason})")
    return _gone(s, gone, now, entropy)


def _settle(s: Aggregator, now: float, entropy: Entropy) -> Step:
    """Between turns, after a change: go on, begin an epoch, or gather again."""
    if s.phase is Phase.GATHERING:
        return s, []
    if len(s.members) < s.needed:
        if len({**s.members, **s.pending}) >= s.who.limits.min_members:
            return _gather(s, now, entropy)  # the threshold falls with the roster
        return _too_few(s, now, entropy)
    effects: list[Effect] = [membership(s)]
    s, more = _gather(s, now, entropy)
    effects += more
    if s.phase is Phase.READY and s.order is not None:
        s, more = _try_start(s, now, entropy)
        effects += more
    return s, effects


def membership(s: Aggregator) -> Membership:
    """Who is keyed and ready in this state."""
    between = (Phase.GATHERING, Phase.KEYING)
    ready = {} if s.phase in between else s.members
    joins = [child.entry.join for child in s.members.values()]
    return Membership(
        epoch=s.epoch,
        members=tuple(ready),
        devices=sum(child.entry.join.devices for child in ready.values()),
        last_round=max(s.last_round, *(join.last_round for join in joins), 0),
    )


# ---- a turn begins


def _prepare(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Prepare)
    name = _member(s, e)
    if (message.epoch, message.turn) <= (s.epoch, s.seen):
        return _late(s, e, now, entropy)
    s = _keep_prepared(s, name, message)
    if s.phase is Phase.READY and s.order is not None:
        return _try_start(s, now, entropy)
    return s, []


def _keep_prepared(s: Aggregator, name: str, prepare: wire.Prepare) -> Aggregator:
    """Take in what a member leaves for the next turn. Raises RemoteError."""
    if (prepare.epoch, prepare.turn) != (s.epoch, s.seen + 1):
        raise OutOfPlace(
            f"{name} prepares turn {prepare.turn} of epoch {prepare.epoch}, the next is turn "
            f"{s.seen + 1} of epoch {s.epoch}"
        )
    readers = [reader for reader, _ in prepare.boxes]
    if readers != sorted(set(readers)) or not set(readers) <= set(s.names) - {name}:
        raise Malformed(f"{name} prepares boxes for others than the roster")
    if any(len(box) != BOX_BYTES for _, box in prepare.boxes):
        raise Malformed(f"{name} prepares a box that is not {BOX_BYTES} bytes long")
    if len(prepare.escrow) != SECRET_BYTES * len(readers) + 16:
        raise Malformed(f"{name} prepares an escrow of {len(prepare.escrow)} bytes")
    return replace(s, prepared={**s.prepared, name: prepare})


def _ordered(s: Aggregator, e: Order, now: float, entropy: Entropy) -> Step:
    s, _ = _order_later(s, e, now, entropy)
    if s.pending and s.members.keys() <= _renewed(s).keys():
        return _open_epoch(s, now, entropy)  # let in who waits before the turn begins
    return _try_start(s, now, entropy)


def _order_later(s: Aggregator, e: Order, now: float, entropy: Entropy) -> Step:
    if s.order is not None:
        raise LocalError(f"round {e.round} is ordered while round {s.order.round} waits to begin")
    return replace(s, order=e), []


def _order_refused(s: Aggregator, e: Order, now: float, entropy: Entropy) -> Step:
    reason = f"{len(s.members)} members are keyed, {s.who.limits.min_members} are needed"
    return s, [RoundFailed(e.round, reason)]


def _try_start(s: Aggregator, now: float, entropy: Entropy) -> Step:
    """Begin when everyone is prepared; else wait a little for those who are not."""
    if s.members.keys() <= s.prepared.keys():
        return _start(s, now, entropy)
    due = now + s.who.limits.preparing
    return (s, []) if s.wake is not None else (replace(s, wake=due), [])


def _start(s: Aggregator, now: float, entropy: Entropy) -> Step:
    order = s.order
    if order is None:
        raise LocalError("no round is ordered")
    s = replace(s, order=None, wake=None)
    cohort = _cohort(s)
    beneath = {name: s.members[name].entry.join.devices for name in cohort}
    devices = sum(beneath.values())
    if order.round <= s.last_round:
        reason = f"round {order.round} is spent here, the next is {s.last_round + 1}"
        return s, [RoundFailed(order.round, reason)]
    if devices > order.devices:
        reason = f"{devices} devices are beneath, the order is for {order.devices} in all"
        return s, [membership(s), RoundFailed(order.round, reason)]  # the next one is to know
    alone = [name for name in cohort if s.members[name].entry.address.tier == "device"]
    if order.apart == wire.APART and alone:
        reason = f"{alone[0]} is a device, whose vector would be seen alone: put it under a node"
        return s, [RoundFailed(order.round, reason)]
    if len(cohort) < s.needed:
        # Who has left nothing for this turn cannot be in it: the epoch is stuck without them.
        reason = f"{len(cohort)} members are prepared, {s.needed} are needed"
        s = replace(s, members={name: s.members[name] for name in cohort})
        s, effects = _settle(s, now, entropy)
        return s, [RoundFailed(order.round, reason), *effects]
    plan = wire.Plan(
        epoch=s.epoch,
        turn=s.seen + 1,
        roster=s.roster,
        min_survivors=s.needed,
        cohort=cohort,
        **{name: getattr(order, name) for name in Order.__slots__},
    )
    try:
        turn = begin_turn(
            plan,
            round_context(s.who.federation, s.who.address, plan),
            {name: s.prepared[name] for name in cohort},
            beneath,
            s.names,
            s.threshold,
            s.who.keystream,
            now + order.deadline,
        )
    except BadUpdate as error:
        return s, [RoundFailed(order.round, str(error))]
    calls: list[Effect] = [ToChild(name, _call_of(name, turn)) for name in s.members]
    s = replace(
        s,
        phase=Phase.COLLECTING,
        turn=turn,
        seen=plan.turn,
        prepared={},
        last_round=order.round,
        wake=now + order.deadline * s.who.limits.collecting,
    )
    return s, calls


def _cohort(s: Aggregator) -> tuple[str, ...]:
    """The members who have left for the next turn what each of the others needs, sorted."""
    chosen = sorted(s.members.keys() & s.prepared.keys())
    boxes = {name: {reader for reader, _ in s.prepared[name].boxes} for name in chosen}
    while True:
        lacking = {name: len(set(chosen) - boxes[name]) - 1 for name in chosen}
        worst = max(chosen, key=lacking.__getitem__, default=None)
        if worst is None or lacking[worst] == 0:
            return tuple(chosen)
        chosen.remove(worst)


def _call_of(reader: str, turn: Turn) -> wire.Call:
    boxes = [
        (by, box)
        for by, provision in turn.provisions.items()
        for name, box in provision.boxes
        if name == reader
    ]
    return wire.Call(wire.encode(turn.plan), tuple(boxes))


# ---- a turn goes on


def _upload(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Upload)
    name = _member(s, e)
    turn, kem = _running(s)
    _of_this_turn(turn, message, name)
    if name not in turn.plan.cohort or name in turn.arrived or name in turn.absent:
        raise OutOfPlace(f"{name} has no upload to make in turn {turn.plan.turn}")
    contents = open_upload(kem, message, name)
    vector = masked_vector(contents, turn.encoding, name, slots_of(turn.plan))
    check_receipt(s.members[name].entry, message.receipt, turn.context)
    s = _keep_prepared(s, name, wire.decode_as(wire.Prepare, contents.prepare))
    s = replace(s, turn=count_in(turn, name, vector, message.receipt))
    return _go_on(s, now, entropy)


def _late_upload(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    """Its pads may be revealed already, so it is never counted; what it leaves for later is."""
    message = expect(e.message, wire.Upload)
    name = _member(s, e)
    turn, kem = _running(s)
    _of_this_turn(turn, message, name)
    contents = open_upload(kem, message, name)
    s = _keep_prepared(s, name, wire.decode_as(wire.Prepare, contents.prepare))
    late = OutOfPlace(f"the upload of {name} came after turn {turn.plan.turn} had its survivors")
    return s, [Refused(late)]


def _of_this_turn(turn: Turn, message: wire.Upload | wire.Consent | wire.Answer, name: str) -> None:
    plan = turn.plan
    if (message.epoch, message.turn) != (plan.epoch, plan.turn) or message.context != turn.context:
        kind = type(message).__name__.lower()
        raise OutOfPlace(f"an {kind} of {name} for turn {message.turn}, this is {plan.turn}")


def _running(s: Aggregator) -> tuple[Turn, KemKey]:
    if s.turn is None or s.kem is None:
        raise LocalError("no turn is running")
    return s.turn, s.kem


def _will_not_come(s: Aggregator, name: str, reason: str, now: float, entropy: Entropy) -> Step:
    """A member is known to be away, or to have given up: nobody waits for it in this turn."""
    turn, _ = _running(s)
    if name in turn.plan.cohort and name not in turn.arrived:
        turn = replace(turn, absent={**turn.absent, name: reason})
        s = replace(s, turn=turn)
    return _go_on(s, now, entropy)


def _go_on(s: Aggregator, now: float, entropy: Entropy) -> Step:
    """The next step of the turn, if it is time for one."""
    turn, _ = _running(s)
    if s.phase is Phase.COLLECTING:
        possible = len(turn.plan.cohort) - len(turn.absent)
        if possible < s.needed:
            return _fail(s, _missing(turn, s.needed), now, entropy)
        return _name_survivors(s, now, entropy) if turn.settled else (s, [])
    answering = turn.answers.keys() | (s.members.keys() & set(turn.plan.cohort))
    if len(answering) < turn.threshold:
        reason = f"{len(answering)} can answer, {turn.threshold} answers are needed"
        return _fail(s, reason, now, entropy)
    return s, []


def _missing(turn: Turn, needed: int) -> str:
    """Why a turn has too few survivors."""
    late = sorted(set(turn.plan.cohort) - turn.arrived - turn.absent.keys())
    reasons = [f"{name} {reason}" for name, reason in sorted(turn.absent.items())]
    if late:
        reasons.append(f"{', '.join(late)} had not uploaded")
    return f"{len(turn.arrived)} uploads, {needed} are needed: " + "; ".join(reasons)


def _name_survivors(s: Aggregator, now: float, entropy: Entropy) -> Step:
    turn, _ = _running(s)
    if len(turn.arrived) < s.needed:
        return _fail(s, _missing(turn, s.needed), now, entropy)
    survivors = tuple(sorted(turn.arrived))
    s = replace(
        s,
        phase=Phase.UNMASKING,
        turn=replace(turn, survivors=survivors),
        wake=turn.deadline,
    )
    return s, [ToAll(_reveal_of(s))]


def _reveal_of(s: Aggregator) -> wire.Reveal:
    turn, _ = _running(s)
    return wire.Reveal(
        epoch=turn.plan.epoch,
        turn=turn.plan.turn,
        context=turn.context,
        survivors=turn.survivors,
        receipts=tuple(turn.receipts[name] for name in turn.survivors),
        consents=tuple(sorted(turn.consents.items())),
    )


def _consent(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Consent)
    name = _member(s, e)
    turn, _ = _running(s)
    if (message.epoch, message.turn) < (turn.plan.epoch, turn.plan.turn):
        return _late(s, e, now, entropy)
    _of_this_turn(turn, message, name)
    if name not in turn.plan.cohort or turn.complete:
        raise OutOfPlace(f"{name} has no consent to give in turn {turn.plan.turn}")
    if name in turn.consents or len(turn.consents) == turn.threshold:
        return s, []  # there are enough
    check_consent(s.members[name].entry, message.signature, turn.context, turn.survivors)
    turn = replace(turn, consents={**turn.consents, name: message.signature})
    s = replace(s, turn=turn)
    return s, [ToAll(_reveal_of(s))] if len(turn.consents) == turn.threshold else []


def _answer(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Answer)
    name = _member(s, e)
    turn, kem = _running(s)
    if (message.epoch, message.turn) < (turn.plan.epoch, turn.plan.turn):
        return _late(s, e, now, entropy)
    _of_this_turn(turn, message, name)
    if name not in turn.plan.cohort or name in turn.answers:
        raise OutOfPlace(f"{name} has no answer to give in turn {turn.plan.turn}")
    turn = open_answer(turn, kem, message, name)
    s = replace(s, turn=turn)
    if len(turn.answers) < turn.threshold:
        return s, []
    total = lay_bare(turn)
    if total is None:
        return s, []  # more answers may mend it; the deadline ends it otherwise
    try:
        check_sum(turn, total)
    except BadUpdate as error:
        s, effects = _fail(s, f"the masks do not come off: {error}", now, entropy)
        return s, [Refused(error), *effects]
    s, effects = _after_turn(s, now, entropy)
    return s, [RoundDone(turn.plan, turn.survivors, total), *effects]


def _abort(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Abort)
    name = _member(s, e)
    turn = s.turn
    if turn is None or (message.epoch, message.turn) != (turn.plan.epoch, turn.plan.turn):
        return s, []
    if name in turn.arrived:
        raise OutOfPlace(f"{name} gives up turn {message.turn} after its upload")
    return _will_not_come(s, name, f"gave up ({message.reason})", now, entropy)


def _collecting_due(s: Aggregator, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake:
        return s, []
    return _name_survivors(s, now, entropy)


def _unmasking_due(s: Aggregator, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake:
        return s, []
    turn, _ = _running(s)
    silent = sorted(set(turn.plan.cohort) - turn.answers.keys() - turn.consents.keys())
    reason = f"{len(turn.answers)} answers, {turn.threshold} are needed"
    if not turn.complete and len(turn.consents) < turn.threshold:
        reason = f"{len(turn.consents)} agree on the survivors, {turn.threshold} must"
    if len(turn.answers) >= turn.threshold:
        reason = "the shares in the answers do not open the sum"
    if silent:
        reason += f"; silent: {', '.join(silent)}"
    return _fail(s, reason, now, entropy)


def _fail(s: Aggregator, reason: str, now: float, entropy: Entropy) -> Step:
    turn, _ = _running(s)
    plan, reason = turn.plan, wire.reason(reason)
    s, effects = _after_turn(s, now, entropy)
    abort = wire.Abort(plan.epoch, plan.turn, reason)
    return s, [ToAll(abort), RoundFailed(plan.round, reason), *effects]


def _after_turn(s: Aggregator, now: float, entropy: Entropy) -> Step:
    s = replace(s, phase=Phase.READY, turn=None, wake=None)
    return _settle(s, now, entropy)


def _cancel(s: Aggregator, e: Cancel, now: float, entropy: Entropy) -> Step:
    if s.order is not None and s.order.round == e.round:
        return replace(s, order=None), [RoundFailed(e.round, e.reason)]
    if s.turn is None or s.turn.plan.round != e.round:
        return s, []
    return _fail(s, e.reason, now, entropy)


def _late(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    """Of a turn that did not need it any more: no fault of the sender, and nothing to do."""
    _member(s, e)
    return s, []


def _rest(s: Aggregator, e: Event, now: float, entropy: Entropy) -> Step:
    return s, []


def _member(s: Aggregator, e: Received) -> str:
    """The sender's id. Raises UnknownMember unless it speaks with the key it joined with."""
    name = str(e.sender.member)
    child = s.members.get(name)
    if child is None or child.entry.address != e.sender:
        raise UnknownMember(f"{e.sender} is not in epoch {s.epoch} of {s.who.address}")
    if child.entry.instance != e.instance:
        raise UnknownMember(f"{e.sender} joined as another process than the one that speaks")
    return name


Move = Callable[..., Step]
_KEYED: Final = (Phase.READY, Phase.COLLECTING, Phase.UNMASKING)
MOVES: Final[dict[tuple[Phase, type], Move]] = {
    **{(phase, wire.Join): _join for phase in Phase},
    **{(phase, wire.Leave): _leave for phase in Phase},
    **{(phase, wire.Abort): _late for phase in Phase},
    **{(phase, wire.Consent): _late for phase in Phase},
    **{(phase, wire.Answer): _late for phase in Phase},
    **{(phase, Gone): _gone for phase in Phase},
    **{(phase, Back): _back for phase in Phase},
    **{(phase, Cancel): _cancel for phase in Phase},
    **{(phase, wire.Prepare): _prepare for phase in _KEYED},
    (Phase.GATHERING, Tick): _ready_due,
    (Phase.GATHERING, Order): _order_refused,
    (Phase.KEYING, Tick): _keying_due,
    (Phase.KEYING, Order): _order_later,
    (Phase.KEYING, wire.Bundles): _bundles,
    (Phase.KEYING, wire.Prepare): _late,
    (Phase.READY, Tick): _ready_due,
    (Phase.READY, Order): _ordered,
    (Phase.COLLECTING, Tick): _collecting_due,
    (Phase.COLLECTING, wire.Upload): _upload,
    (Phase.COLLECTING, wire.Abort): _abort,
    (Phase.UNMASKING, Tick): _unmasking_due,
    (Phase.UNMASKING, wire.Upload): _late_upload,
    (Phase.UNMASKING, wire.Consent): _consent,
    (Phase.UNMASKING, wire.Answer): _answer,
}
"""What may happen in which phase."""
