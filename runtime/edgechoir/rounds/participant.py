"""A tier's end towards its parent.

    IDLE ──Begin──▶ OUT ──Roster──▶ KEYING ──Delivery──▶ READY ──Plan──▶ WAITING ──ModelHeld──▶
    WORKING ──Contribution──▶ SENT ──Plan──▶ WAITING …

A Roster restarts KEYING from any phase; one that leaves this member out sends it back to OUT, where
it asks again until it is let in. Rules that hold in every phase: a round is used once and only
upwards (`last_round`, written down before the upload leaves); no vector leaves unmasked or for a
cohort below `min_cohort`; a plan can tighten this member's policy but not loosen it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from edgechoir import wire
from edgechoir.errors import (
    BadUpdate,
    LocalError,
    Malformed,
    OutOfPlace,
    PolicyViolation,
    RemoteError,
    Replayed,
    UnknownMember,
)
from edgechoir.identity.envelope import Verifier
from edgechoir.learning.fixed_point import Encoding
from edgechoir.rounds.epoch import (
    Entry,
    expect,
    make_bundles,
    open_bundles,
    read_roster,
    roster_hash,
    round_context,
    upload_info,
)
from edgechoir.rounds.events import (
    Abandon,
    Begin,
    Contribution,
    Effect,
    Event,
    ModelHeld,
    NoContribution,
    Received,
    Record,
    Refused,
    Tick,
    ToParent,
    Withdraw,
    Work,
)
from edgechoir.secagg.chains import SECRET_BYTES, Chain
from edgechoir.secagg.masking import mask
from edgechoir.secagg.sealing import KemKey, new_kem_key, seal
from edgechoir.types import Address, Entropy

JOIN_RETRY_S: Final = 3.0
KEYING_S: Final = 15.0
QUIET_S: Final = 60.0
"""After so long without a word a keyed member offers its next key again: a parent that has dropped
it meanwhile takes that as a Join, any other as nothing new."""


class Phase(Enum):
    """Where a participant stands; the value is the word shown in its status."""

    IDLE = "idle"
    OUT = "joining"
    KEYING = "keying"
    READY = "ready"
    WAITING = "waiting for the model"
    WORKING = "working"
    SENT = "sent"


@dataclass(frozen=True, slots=True)
class Policy:
    """The least protection this member accepts, whatever a plan says."""

    min_cohort: int = 2
    max_clip: float = 100.0


@dataclass(frozen=True, slots=True)
class Self:
    """What does not change about this member."""

    federation: str
    address: Address
    parent: Address
    key: EllipticCurvePrivateKey
    verifier: Verifier
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class Participant:
    """The whole state. `wake` is when a Tick is due; `kem` the key offered for the next roster."""

    who: Self
    phase: Phase = Phase.IDLE
    devices: int = 0
    last_round: int = 0
    kem: KemKey | None = None
    model: tuple[int, bytes] | None = None
    epoch: int = 0
    roster: bytes = b""
    first_round: int = 0
    aggregator_kem: bytes = b""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    chains: Mapping[str, Chain] = field(default_factory=dict)
    plan: wire.Plan | None = None
    early: Received | None = None
    wake: float | None = None
    tries: int = 0


Step = tuple[Participant, list[Effect]]


def step(state: Participant, event: Event, now: float, entropy: Entropy) -> Step:
    """Advance by one event. Raises RemoteError (state unchanged) or LocalError."""
    if isinstance(event, Received):
        if event.sender != state.who.parent:
            raise UnknownMember(f"{event.sender} is not this member's parent {state.who.parent}")
        what: type = type(event.message)
    else:
        what = type(event)
    move = MOVES.get((state.phase, what))
    if move is None:
        if isinstance(event, Received):
            raise OutOfPlace(f"a {what.__name__} has no place while {state.phase.value}")
        raise LocalError(f"{what.__name__} has no place while {state.phase.value}")
    return move(state, event, now, entropy)


def _begin(s: Participant, e: Begin, now: float, entropy: Entropy) -> Step:
    last = max(s.last_round, e.last_round)
    return _ask_in(replace(s, devices=e.devices, last_round=last), now, entropy)


def _withdraw(s: Participant, e: Withdraw, now: float, entropy: Entropy) -> Step:
    effects = _abandon(s, e.reason)
    effects.append(ToParent(wire.Leave(wire.reason(e.reason))))
    return _forget(replace(s, phase=Phase.IDLE, kem=None, wake=None)), effects


def _ask_in(s: Participant, now: float, entropy: Entropy) -> Step:
    """Leave whatever epoch this is and ask for a place in the next, with a fresh key."""
    effects = _abandon(s, "this member is joining anew")
    s = replace(_forget(s), phase=Phase.OUT, kem=new_kem_key(entropy), tries=0)
    s, asked = _ask_again(s, Tick(), now, entropy)
    return s, effects + asked


def _ask_again(s: Participant, e: Tick, now: float, entropy: Entropy) -> Step:
    delay = JOIN_RETRY_S * min(2**s.tries, 16)
    return replace(s, wake=now + delay, tries=s.tries + 1), [ToParent(_join(s, renew=0))]


def _join(s: Participant, renew: int) -> wire.Join:
    if s.kem is None:
        raise LocalError("no key to join with")
    return wire.Join(
        parent=str(s.who.parent.member),
        kem=s.kem.public,
        devices=s.devices,
        last_round=s.last_round,
        last_epoch=s.epoch,
        renew=renew,
    )


def _roster(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Roster)
    if message.epoch <= s.epoch:
        digest = roster_hash(s.who.federation, s.who.parent, message)
        if message.epoch == s.epoch and digest == s.roster:
            return s, []
        raise Replayed(f"roster of epoch {message.epoch}, already in epoch {s.epoch}")
    entries = read_roster(message, s.who.verifier, s.who.parent, now)
    me = str(s.who.address.member)
    mine = entries.get(me)
    if mine is None or s.kem is None or mine.join.kem != s.kem.public:
        s = replace(s, epoch=message.epoch)
        return (s, []) if s.phase is Phase.OUT else _ask_in(s, now, entropy)
    if len(entries) < s.who.policy.min_cohort:
        raise PolicyViolation(
            f"a roster of {len(entries)} is below this member's minimum {s.who.policy.min_cohort}"
        )
    if message.first_round <= s.last_round:
        raise Replayed(f"roster starts at round {message.first_round}, {s.last_round} is spent")
    effects = _abandon(s, "a new epoch has begun")
    digest = roster_hash(s.who.federation, s.who.parent, message)
    secrets = {them: entropy(SECRET_BYTES) for them in sorted(entries) if them != me}
    bundles = make_bundles(me, s.who.key, secrets, entries, message.epoch, digest)
    s = replace(
        _forget(s),
        phase=Phase.KEYING,
        epoch=message.epoch,
        roster=digest,
        first_round=message.first_round,
        aggregator_kem=message.kem,
        entries=entries,
        secrets=secrets,
        wake=now + KEYING_S,
    )
    return s, [*effects, ToParent(bundles)]


def _delivery(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Delivery)
    if (message.epoch, message.roster) != (s.epoch, s.roster) or s.kem is None:
        raise OutOfPlace(f"a delivery for epoch {message.epoch}, this is epoch {s.epoch}")
    me = str(s.who.address.member)
    chains, errors = open_bundles(me, s.kem, s.secrets, s.entries, message, s.first_round)
    early = s.early
    # The opened key has done its work: what it read must stay closed to a later thief.
    s = replace(
        s,
        phase=Phase.READY,
        chains=chains,
        secrets={},
        kem=new_kem_key(entropy),
        wake=now + QUIET_S,
        early=None,
    )
    effects: list[Effect] = [Refused(error) for error in errors]
    effects.append(ToParent(_join(s, renew=1)))
    if early is not None:
        try:
            s, more = _plan(s, early, now, entropy)
        except RemoteError as error:  # of an earlier epoch: the delivery is good all the same
            more = [Refused(error)]
        effects += more
    return s, effects


def _early_plan(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    """A plan that overtook the delivery waits for it."""
    return replace(s, early=e), []


def _plan(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    plan = expect(e.message, wire.Plan)
    if plan == s.plan:
        return s, []
    if plan.epoch != s.epoch or plan.roster != s.roster:
        raise OutOfPlace(f"a plan for epoch {plan.epoch}, this is epoch {s.epoch}")
    if plan.round <= s.last_round:
        raise Replayed(f"plan of round {plan.round}, but round {s.last_round} is spent")
    if str(s.who.address.member) not in plan.cohort:
        return _ask_in(s, now, entropy)
    effects = _abandon(s, f"round {plan.round} has begun")
    try:
        _check(s, plan)
    except RemoteError as error:
        no = wire.Abort(plan.round, wire.reason(str(error)))
        return _ready(s, now), [*effects, Refused(error), ToParent(no)]
    s = replace(s, phase=Phase.WAITING, plan=plan, wake=now + plan.deadline)
    s, work = _try_work(s)
    return s, effects + work


def _check(s: Participant, plan: wire.Plan) -> None:
    """Raises RemoteError for a plan this member will not follow."""
    policy = s.who.policy
    others = set(plan.cohort) - {str(s.who.address.member)}
    if len(plan.cohort) != len(others) + 1:
        raise Malformed("a cohort names a member twice")
    if len(plan.cohort) < policy.min_cohort:
        raise PolicyViolation(
            f"a cohort of {len(plan.cohort)} is below this member's minimum {policy.min_cohort}"
        )
    if plan.clip > policy.max_clip:
        raise PolicyViolation(f"clip {plan.clip} is above this member's {policy.max_clip}")
    unkeyed = sorted(others - s.chains.keys())
    if unkeyed:
        raise PolicyViolation(f"no pair secret with {', '.join(unkeyed)}")
    for them in others:
        s.chains[them].steps_to(plan.round)
    if s.devices > plan.devices:
        raise PolicyViolation(f"{s.devices} devices here, the plan is for {plan.devices} in all")
    _encoding(plan)


def _try_work(s: Participant) -> Step:
    if s.plan is None or s.model != (s.plan.model_version, s.plan.model_hash):
        return s, []
    return replace(s, phase=Phase.WORKING), [Work(s.plan)]


def _model_held(s: Participant, e: ModelHeld, now: float, entropy: Entropy) -> Step:
    s = replace(s, model=(e.version, e.digest))
    return _try_work(s) if s.phase is Phase.WAITING else (s, [])


def _contribution(s: Participant, e: Contribution, now: float, entropy: Entropy) -> Step:
    plan = s.plan
    if plan is None or e.round != plan.round:
        return s, []  # work on a round that was given up meanwhile
    encoding = _encoding(plan)
    try:
        encoding.within(e.vector, s.devices)
    except BadUpdate as error:
        return _give_up(s, str(error), now)
    me = str(s.who.address.member)
    context = round_context(s.who.federation, s.who.parent, plan)
    links = {them: s.chains[them].at(plan.round) for them in plan.cohort if them != me}
    masked = mask(e.vector, me, {them: link.pad_seed(context) for them, link in links.items()})
    box = seal(s.aggregator_kem, masked.astype("<u4").tobytes(), upload_info(context, me))
    upload = wire.Upload(plan.epoch, plan.round, context, box)
    spent = {them: chain.at(plan.round + 1) for them, chain in links.items()}
    s = replace(
        s,
        phase=Phase.SENT,
        last_round=plan.round,
        chains={**s.chains, **spent},
        wake=now + QUIET_S,
    )
    return s, [Record(plan.epoch, plan.round, wire.encode(upload)), ToParent(upload)]


def _no_contribution(s: Participant, e: NoContribution, now: float, entropy: Entropy) -> Step:
    if s.plan is None or e.round != s.plan.round:
        return s, []
    return _give_up(s, e.reason, now)


def _give_up(s: Participant, reason: str, now: float) -> Step:
    """Tell the parent that this round gets nothing from here."""
    if s.plan is None:
        raise LocalError("no round to give up")
    no = wire.Abort(s.plan.round, wire.reason(reason))
    return _ready(s, now), [ToParent(no)]


def _ready(s: Participant, now: float) -> Participant:
    return replace(s, phase=Phase.READY, plan=None, wake=now + QUIET_S)


def _abort(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Abort)
    if s.plan is None or message.round != s.plan.round:
        return s, []
    return _ready(s, now), _abandon(s, message.reason)


def _late(s: Participant, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake or s.plan is None:
        return s, []
    if s.phase is Phase.WAITING:
        reason = f"model version {s.plan.model_version} did not arrive before the deadline"
    else:
        reason = f"the work was not done within {s.plan.deadline:g} s"
    effects = _abandon(s, reason)
    s, said = _give_up(s, reason, now)
    return s, effects + said


def _tick_out(s: Participant, e: Tick, now: float, entropy: Entropy) -> Step:
    return _ask_again(s, e, now, entropy) if s.wake is not None and now >= s.wake else (s, [])


def _tick_keying(s: Participant, e: Tick, now: float, entropy: Entropy) -> Step:
    return _ask_in(s, now, entropy) if s.wake is not None and now >= s.wake else (s, [])


def _quiet(s: Participant, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake:
        return s, []
    return replace(s, wake=now + QUIET_S), [ToParent(_join(s, renew=1))]


def _rest(s: Participant, e: Event, now: float, entropy: Entropy) -> Step:
    return s, []


def _abandon(s: Participant, reason: str) -> list[Effect]:
    if s.plan is None or s.phase not in (Phase.WAITING, Phase.WORKING):
        return []
    return [Abandon(s.plan.round, reason)]


def _forget(s: Participant) -> Participant:
    """Drop every secret of the epoch."""
    return replace(s, roster=b"", entries={}, secrets={}, chains={}, plan=None, early=None)


def _encoding(plan: wire.Plan) -> Encoding:
    return Encoding(plan.dimension, plan.devices, plan.clip, plan.max_samples)


Move = Callable[..., Step]
_LISTENING: Final = (Phase.OUT, Phase.KEYING, Phase.READY, Phase.WAITING, Phase.WORKING, Phase.SENT)
_KEYED: Final = (Phase.READY, Phase.WAITING, Phase.WORKING, Phase.SENT)

MOVES: Final[dict[tuple[Phase, type], Move]] = {
    **{(phase, Begin): _begin for phase in Phase},
    **{(phase, ModelHeld): _model_held for phase in Phase},
    **{(phase, Contribution): _rest for phase in Phase},
    **{(phase, NoContribution): _rest for phase in Phase},
    **{(phase, Tick): _rest for phase in Phase},
    **{(phase, Withdraw): _withdraw for phase in _LISTENING},
    **{(phase, wire.Roster): _roster for phase in _LISTENING},
    **{(phase, wire.Plan): _plan for phase in _KEYED},
    **{(phase, wire.Abort): _rest for phase in Phase},
    (Phase.IDLE, Withdraw): _rest,
    (Phase.IDLE, wire.Roster): _rest,
    (Phase.IDLE, wire.Plan): _rest,
    (Phase.OUT, wire.Plan): _rest,
    (Phase.OUT, Tick): _tick_out,
    (Phase.KEYING, Tick): _tick_keying,
    (Phase.KEYING, wire.Plan): _early_plan,
    (Phase.KEYING, wire.Delivery): _delivery,
    (Phase.READY, Tick): _quiet,
    (Phase.SENT, Tick): _quiet,
    (Phase.WAITING, Tick): _late,
    (Phase.WAITING, wire.Abort): _abort,
    (Phase.WORKING, Tick): _late,
    (Phase.WORKING, wire.Abort): _abort,
    (Phase.WORKING, Contribution): _contribution,
    (Phase.WORKING, NoContribution): _no_contribution,
    (Phase.SENT, wire.Abort): _abort,
}
"""What may happen in which phase. `_rest`: expected there, and nothing to do."""
