"""A tier's end towards its children.

    GATHERING ──enough Joins──▶ KEYING ──Bundles of all──▶ READY ──Order──▶ COLLECTING ──▶ READY …

An epoch begins when children wait to be let in and no round runs; in between, whoever is gone is
left out of the cohort, for which no new keys are needed. A round ends as done when every member of
its cohort has uploaded, else as failed with a reason: a member lost, refusing, or late. It never
waits beyond its deadline. Whoever let a deadline pass is out until it joins again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

import numpy as np

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
from edgechoir.learning.fixed_point import MAX_DEVICES, Encoding
from edgechoir.rounds.epoch import (
    Entry,
    expect,
    read_join,
    roster_hash,
    round_context,
    upload_info,
)
from edgechoir.rounds.events import (
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
from edgechoir.secagg.sealing import KemKey, new_kem_key, unseal
from edgechoir.types import Address, Entropy, Ring

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


@dataclass(frozen=True, slots=True)
class Limits:
    """How many members a cohort needs and may have, and how long it waits for them, in seconds.

    With `expected` children waiting, an epoch begins at once.
    """

    min_members: int = 2
    max_members: int = wire.MAX_MEMBERS
    expected: int = wire.MAX_MEMBERS
    join_wait: float = 5.0
    keying: float = 10.0


@dataclass(frozen=True, slots=True)
class Self:
    """What does not change about this tier."""

    federation: str
    address: Address
    verifier: Verifier
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Child:
    """A child, the envelope of the Join it came with, and the one it left for the next epoch."""

    entry: Entry
    envelope: bytes
    renewal: tuple[Entry, bytes] | None = None


@dataclass(frozen=True, slots=True)
class Aggregator:
    """The whole state. `wake` is when a Tick is due."""

    who: Self
    phase: Phase = Phase.GATHERING
    members: Mapping[str, Child] = field(default_factory=dict)
    pending: Mapping[str, Child] = field(default_factory=dict)
    kem: KemKey | None = None
    epoch: int = 0
    first_round: int = 1
    last_round: int = 0
    roster: bytes = b""
    bundles: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    order: Order | None = None
    plan: wire.Plan | None = None
    context: bytes = b""
    total: Ring | None = None
    arrived: frozenset[str] = frozenset()
    wake: float | None = None


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
        return replace(s, members={**s.members, name: child}), []
    known = {**s.members, **s.pending}
    if name not in known and len(known) >= s.who.limits.max_members:
        raise UnknownMember(f"no place for {e.sender}: {len(known)} members is the limit here")
    if current is not None and current.entry.join.kem == entry.join.kem:
        return s, []
    s = replace(s, pending={**s.pending, name: Child(entry, e.envelope)})
    if s.plan is not None and name in s.plan.cohort and name not in s.arrived:
        s = replace(s, members={n: c for n, c in s.members.items() if n != name})
        return _fail(s, f"{name} joined anew before it uploaded", now, entropy)
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
    """Begin an epoch now, later or not yet, when no round or set-up is under way."""
    if s.phase not in (Phase.GATHERING, Phase.READY) or not s.pending:
        return s, []
    limits = s.who.limits
    there = len({**s.members, **s.pending})
    if there < limits.min_members:
        return replace(s, wake=None), []
    if there >= min(limits.expected, limits.max_members):
        return _open_epoch(s, now, entropy)
    return (s, []) if s.wake is not None else (replace(s, wake=now + limits.join_wait), [])


def _gather_due(s: Aggregator, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake:
        return s, []
    s = replace(s, wake=None)
    if s.pending and len({**s.members, **s.pending}) >= s.who.limits.min_members:
        return _open_epoch(s, now, entropy)
    return s, []


def _open_epoch(s: Aggregator, now: float, entropy: Entropy) -> Step:
    stay = {
        name: Child(*child.renewal) if child.renewal else child for name, child in s.members.items()
    }
    members = dict(sorted({**stay, **s.pending}.items()))
    joins = [child.entry.join for child in members.values()]
    epoch = max(s.epoch, *(join.last_epoch for join in joins)) + 1
    last_round = max(s.last_round, *(join.last_round for join in joins))
    kem = new_kem_key(entropy)
    envelopes = tuple(child.envelope for child in members.values())
    roster = wire.Roster(epoch, last_round + 1, kem.public, envelopes)
    s = replace(
        s,
        phase=Phase.KEYING,
        members=members,
        pending={},
        kem=kem,
        epoch=epoch,
        first_round=last_round + 1,
        last_round=last_round,
        roster=roster_hash(s.who.federation, s.who.address, roster),
        bundles={},
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
    effects.append(_membership(s))
    s, more = _gather(s, now, entropy)
    effects += more
    if s.phase is Phase.READY and s.order is not None:
        s, more = _start(s, s.order, now, entropy)
        effects += more
    return s, effects


def _keying_due(s: Aggregator, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake:
        return s, []
    return _close_keying(s, now, entropy)


def _too_few(s: Aggregator, now: float, entropy: Entropy) -> Step:
    """Below the minimum: end the epoch with an empty roster, on which everyone joins anew."""
    left, order = len(s.members), s.order
    kem = new_kem_key(entropy)
    roster = wire.Roster(s.epoch + 1, s.last_round + 1, kem.public, ())
    s = replace(
        s,
        phase=Phase.GATHERING,
        members={},
        bundles={},
        kem=kem,
        epoch=s.epoch + 1,
        roster=b"",
        order=None,
        wake=None,
    )
    effects: list[Effect] = [ToAll(roster), _membership(s)]
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
    waiting_for = s.plan is not None and e.member in s.plan.cohort and e.member not in s.arrived
    s = replace(s, members={n: c for n, c in s.members.items() if n != e.member})
    if s.phase is Phase.COLLECTING:
        if waiting_for:
            return _fail(s, f"{e.member} {e.reason} before it uploaded", now, entropy)
        return s, []
    if s.phase is Phase.KEYING:
        if len(s.members) < s.who.limits.min_members:
            return _too_few(s, now, entropy)
        if s.members.keys() <= s.bundles.keys():
            return _close_keying(s, now, entropy)
        return s, []
    return _settle(s, now, entropy)


def _leave(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Leave)
    gone = Gone(str(e.sender.member), e.instance, f"left ({message.reason})")
    return _gone(s, gone, now, entropy)


def _settle(s: Aggregator, now: float, entropy: Entropy) -> Step:
    """After a change outside of a round: go on, or gather again."""
    if s.phase is Phase.GATHERING:
        return s, []
    if len(s.members) < s.who.limits.min_members:
        return _too_few(s, now, entropy)
    s, more = _gather(s, now, entropy)
    return s, [_membership(s), *more]


def _membership(s: Aggregator) -> Membership:
    ready = s.members if s.phase in (Phase.READY, Phase.COLLECTING) else {}
    joins = [child.entry.join for child in s.members.values()]
    return Membership(
        epoch=s.epoch,
        members=tuple(ready),
        devices=sum(child.entry.join.devices for child in ready.values()),
        last_round=max(s.last_round, *(join.last_round for join in joins), 0),
    )


# ---- a round


def _ordered(s: Aggregator, e: Order, now: float, entropy: Entropy) -> Step:
    if s.pending:  # let in who waits before the round begins
        s, effects = _open_epoch(s, now, entropy)
        return replace(s, order=e), effects
    return _start(s, e, now, entropy)


def _order_later(s: Aggregator, e: Order, now: float, entropy: Entropy) -> Step:
    return replace(s, order=e), []


def _order_refused(s: Aggregator, e: Order, now: float, entropy: Entropy) -> Step:
    reason = f"{len(s.members)} members are keyed, {s.who.limits.min_members} are needed"
    return s, [RoundFailed(e.round, reason)]


def _start(s: Aggregator, order: Order, now: float, entropy: Entropy) -> Step:
    s = replace(s, order=None)
    devices = sum(child.entry.join.devices for child in s.members.values())
    if order.round < s.first_round or order.round <= s.last_round:
        reason = f"round {order.round} is spent here, the next is {s.last_round + 1}"
        return s, [RoundFailed(order.round, reason)]
    if devices > order.devices:
        reason = f"{devices} devices are beneath, the order is for {order.devices} in all"
        return s, [RoundFailed(order.round, reason)]
    plan = wire.Plan(
        epoch=s.epoch,
        roster=s.roster,
        cohort=tuple(s.members),
        **{name: getattr(order, name) for name in Order.__slots__},
    )
    try:
        encoding = _encoding(plan)
    except BadUpdate as error:
        return s, [RoundFailed(order.round, str(error))]
    s = replace(
        s,
        phase=Phase.COLLECTING,
        plan=plan,
        context=round_context(s.who.federation, s.who.address, plan),
        total=np.zeros(encoding.length, np.uint32),
        arrived=frozenset(),
        last_round=order.round,
        wake=now + order.deadline,
    )
    return s, [ToAll(plan)]


def _upload(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Upload)
    name = _member(s, e)
    plan, kem, total = s.plan, s.kem, s.total
    if plan is None or kem is None or total is None:
        raise LocalError("collecting without a plan")
    if (message.epoch, message.round) != (plan.epoch, plan.round) or message.context != s.context:
        raise OutOfPlace(f"an upload of {name} for round {message.round}, this is {plan.round}")
    if name not in plan.cohort or name in s.arrived:
        raise OutOfPlace(f"{name} has no upload to make in round {plan.round}")
    vector = open_upload(kem, message, name, len(total))
    s = replace(s, total=total + vector, arrived=s.arrived | {name})
    return _done(s, now, entropy) if s.arrived == set(plan.cohort) else (s, [])


def open_upload(kem: KemKey, upload: wire.Upload, member: str, length: int) -> Ring:
    """The masked vector [length] in an upload. Raises RemoteError."""
    raw = unseal(kem, upload.sealed, upload_info(upload.context, member))
    if len(raw) != length * 4:
        raise BadUpdate(f"{member} sent {len(raw)} bytes, expected {length * 4}")
    return np.frombuffer(raw, dtype="<u4").astype(np.uint32, copy=False)


def _done(s: Aggregator, now: float, entropy: Entropy) -> Step:
    plan, total = s.plan, s.total
    if plan is None or total is None:
        raise LocalError("no round to end")
    try:
        _encoding(plan).decode(total)
    except BadUpdate as error:
        s, effects = _fail(s, f"the masks do not cancel: {error}", now, entropy)
        return s, [Refused(error), *effects]
    s, effects = _after_round(s, now, entropy)
    return s, [RoundDone(plan, total), *effects]


def _fail(s: Aggregator, reason: str, now: float, entropy: Entropy) -> Step:
    if s.plan is None:
        raise LocalError("no round to fail")
    round_, reason = s.plan.round, wire.reason(reason)
    s, effects = _after_round(s, now, entropy)
    return s, [ToAll(wire.Abort(round_, reason)), RoundFailed(round_, reason), *effects]


def _after_round(s: Aggregator, now: float, entropy: Entropy) -> Step:
    s = replace(s, phase=Phase.READY, plan=None, total=None, arrived=frozenset(), wake=None)
    return _settle(s, now, entropy)


def _abort(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Abort)
    name = _member(s, e)
    if s.plan is None or message.round != s.plan.round or name not in s.plan.cohort:
        return s, []
    if name in s.arrived:
        raise OutOfPlace(f"{name} gives up round {message.round} after its upload")
    return _fail(s, f"{name}: {message.reason}", now, entropy)


def _round_due(s: Aggregator, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake or s.plan is None:
        return s, []
    missing = sorted(set(s.plan.cohort) - s.arrived)
    reason = f"no upload from {', '.join(missing)} within {s.plan.deadline:g} s"
    s = replace(s, members={n: c for n, c in s.members.items() if n not in missing})
    return _fail(s, reason, now, entropy)


def _cancel(s: Aggregator, e: Cancel, now: float, entropy: Entropy) -> Step:
    if s.order is not None and s.order.round == e.round:
        return replace(s, order=None), [RoundFailed(e.round, e.reason)]
    if s.plan is None or s.plan.round != e.round:
        return s, []
    return _fail(s, e.reason, now, entropy)


def _late_abort(s: Aggregator, e: Received, now: float, entropy: Entropy) -> Step:
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


def _encoding(plan: wire.Plan) -> Encoding:
    return Encoding(plan.dimension, plan.devices, plan.clip, plan.max_samples)


Move = Callable[..., Step]
MOVES: Final[dict[tuple[Phase, type], Move]] = {
    **{(phase, wire.Join): _join for phase in Phase},
    **{(phase, wire.Leave): _leave for phase in Phase},
    **{(phase, wire.Abort): _late_abort for phase in Phase},
    **{(phase, Gone): _gone for phase in Phase},
    **{(phase, Cancel): _cancel for phase in Phase},
    (Phase.GATHERING, Tick): _gather_due,
    (Phase.GATHERING, Order): _order_refused,
    (Phase.KEYING, Tick): _keying_due,
    (Phase.KEYING, Order): _order_later,
    (Phase.KEYING, wire.Bundles): _bundles,
    (Phase.READY, Tick): _gather_due,
    (Phase.READY, Order): _ordered,
    (Phase.COLLECTING, Tick): _round_due,
    (Phase.COLLECTING, wire.Upload): _upload,
    (Phase.COLLECTING, wire.Abort): _abort,
}
"""What may happen in which phase."""
