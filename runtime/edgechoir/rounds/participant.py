"""A tier's end towards its parent.

    IDLE ─Begin─▶ OUT ─Roster─▶ KEYING ─Delivery─▶ READY ─Call─▶ WAITING ─ModelHeld─▶ WORKING
    ─Contribution─▶ SENT ─Reveal─▶ READY …

A member speaks twice in a turn: its upload, which also carries what it leaves for the next turn,
and its answer to the survivor set; where somebody is missing it signs that set first
(`agreement`). A Roster restarts KEYING from any phase; one that leaves this
member out sends it back to OUT, where it asks again until it is let in.

What holds in every phase, whatever the aggregator says:
- a turn is gone through once, upwards, and a round begun once; its mask covers one vector, and the
  round is written down before the upload leaves;
- one survivor set is signed and answered in a turn, and none but for the context this member took
  part in, where all survivors have signed to have masked for it too; a member that signs or answers
  before its upload never uploads in that turn;
- no vector leaves for a cohort, and no share for a survivor set, below the policy;
- all secrets of an epoch live in memory alone: a process that starts, be it from an old image,
  has none of them and joins with a fresh key.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from edgechoir import wire
from edgechoir.errors import (
    LocalError,
    Malformed,
    OutOfPlace,
    PolicyViolation,
    RemoteError,
    Replayed,
    UnknownMember,
)
from edgechoir.identity.envelope import Verifier
from edgechoir.identity.keys import SigningKey
from edgechoir.identity.policy import Policy
from edgechoir.learning.fixed_point import Encoding
from edgechoir.learning.privacy.terms import terms_of
from edgechoir.learning.slots import place
from edgechoir.learning.task import read_task
from edgechoir.rounds.agreement import check_agreed, check_receipt, make_consent, make_receipt
from edgechoir.rounds.epoch import (
    Entry,
    answer_info,
    encoding_of,
    expect,
    length_of,
    make_bundles,
    open_bundles,
    places_of,
    read_roster,
    roster_hash,
    round_context,
    slots_of,
    upload_info,
)
from edgechoir.rounds.events import (
    Abandon,
    Begin,
    Contribution,
    Effect,
    Event,
    ExpandMask,
    MaskReady,
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
from edgechoir.secagg.boxes import Provision, Shares, open_box, provide
from edgechoir.secagg.chains import SECRET_BYTES, Chain
from edgechoir.secagg.masking import mask_seeds, masked_blocks
from edgechoir.secagg.pads import Keystream, SignedSeed
from edgechoir.secagg.parcel import Parcel
from edgechoir.secagg.sealing import KemKey, new_kem_key, seal
from edgechoir.secagg.threshold import colluders, threshold
from edgechoir.types import Address, Entropy, Ring

JOIN_RETRY_S: Final = 3.0
KEYING_S: Final = 15.0
QUIET_S: Final = 60.0
"""After so long without a word a keyed member offers its next key again: a parent that has dropped
it meanwhile takes that as a Join, any other as nothing new."""
MAX_SKIP: Final = 1024
"""Turns a plan may be ahead of the last one seen."""
MAX_AHEAD: Final = 2**24
"""Rounds a plan may be ahead of the last one spent: what is written down has 32 bits."""
KEYSTREAMS: Final = tuple(Keystream)


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
class Self:
    """What does not change about this member."""

    federation: str
    address: Address
    parent: Address
    key: SigningKey
    verifier: Verifier
    policy: Policy = field(default_factory=Policy)

    @property
    def name(self) -> str:
        return str(self.address.member)


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn this member is in: its plan, the context that names it, the shares it holds, and
    the survivors it has `agreed` on."""

    plan: wire.Plan
    context: bytes
    held: Mapping[str, Shares]
    mask: Ring | None = None
    agreed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Participant:
    """The whole state. `wake` is when a Tick is due; `kem` the key offered for the next roster.

    `seen` is the last turn this member was told of, `uploaded` and `answered` the last it did that
    in; `begun` the last round it was to work in, `last_round` the last it spent pads in;
    `provision` what it has left with others for a turn to come, `present` for the one it is in.
    """

    who: Self
    phase: Phase = Phase.IDLE
    devices: int = 0
    last_round: int = 0
    begun: int = 0
    kem: KemKey | None = None
    model: tuple[int, bytes] | None = None
    epoch: int = 0
    roster: bytes = b""
    threshold: int = 0
    keystream: Keystream = Keystream.AES
    aggregator_kem: bytes = b""
    entries: Mapping[str, Entry] = field(default_factory=dict)
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    chains: Mapping[str, Chain] = field(default_factory=dict)
    provision: Provision | None = None
    present: Provision | None = None
    turn: Turn | None = None
    seen: int = 0
    uploaded: int = 0
    answered: int = 0
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


# ---- joining an epoch


def honest_survivors(s: Participant, plan: wire.Plan) -> int:
    """How many survivors of a plan's round do not collude, at least, by this member's policy.

    Another member is an adversary in any case: it reads the model that comes of the sum, and knows
    its own vector and noise.
    """
    return plan.min_survivors - max(colluders(len(s.entries), s.who.policy.colluders_one_in), 1)


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
    digest = roster_hash(s.who.federation, s.who.parent, message)
    if message.epoch <= s.epoch:
        if message.epoch == s.epoch and digest == s.roster:
            return s, []
        raise Replayed(f"roster of epoch {message.epoch}, already in epoch {s.epoch}")
    entries = read_roster(message, s.who.verifier, s.who.parent, now)
    mine = entries.get(s.who.name)
    if mine is None or s.kem is None or mine.join.kem != s.kem.public:
        s = replace(s, epoch=message.epoch)
        return (s, []) if s.phase is Phase.OUT else _ask_in(s, now, entropy)
    t = _check_roster(s, message, entries)
    effects = _abandon(s, "a new epoch has begun")
    others = sorted(entries.keys() - {s.who.name})
    secrets = {them: entropy(SECRET_BYTES) for them in others}
    bundles = make_bundles(s.who.name, s.who.key, secrets, entries, message.epoch, digest)
    s = replace(
        _forget(s),
        phase=Phase.KEYING,
        epoch=message.epoch,
        roster=digest,
        threshold=t,
        keystream=KEYSTREAMS[message.keystream],
        aggregator_kem=message.kem,
        entries=entries,
        secrets=secrets,
        wake=now + KEYING_S,
    )
    return s, [*effects, ToParent(bundles)]


def _check_roster(s: Participant, roster: wire.Roster, entries: Mapping[str, Entry]) -> int:
    """The roster's threshold. Raises PolicyViolation where it is below this member's policy."""
    policy, n = s.who.policy, len(entries)
    least = threshold(n, colluders(n, policy.colluders_one_in))
    if not least <= roster.threshold <= n:
        raise PolicyViolation(
            f"a roster of {n} with threshold {roster.threshold}; this member's policy asks for "
            f"{least} to {n}"
        )
    if roster.keystream >= len(KEYSTREAMS):
        raise PolicyViolation(f"keystream {roster.keystream} is not known here")
    _check_group(policy, entries, entries.keys(), "a roster")
    return roster.threshold


def _check_group(
    policy: Policy, entries: Mapping[str, Entry], names: Iterable[str], what: str
) -> None:
    """Raises PolicyViolation for a group that is too small to hide in."""
    chosen = [entries[name] for name in names]
    devices = sum(entry.join.devices for entry in chosen)
    if len(chosen) < policy.min_members or devices < policy.min_devices:
        raise PolicyViolation(
            f"{what} of {len(chosen)} members with {devices} devices; this member's policy asks "
            f"for {policy.min_members} and {policy.min_devices}"
        )


def _delivery(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Delivery)
    if (message.epoch, message.roster) != (s.epoch, s.roster) or s.kem is None:
        raise OutOfPlace(f"a delivery for epoch {message.epoch}, this is epoch {s.epoch}")
    chains, errors = open_bundles(s.who.name, s.kem, s.secrets, s.entries, message)
    if not chains:
        raise Malformed("a delivery without one bundle that opens")
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
    s, left = _provide(s, 1, entropy)
    effects += left
    if early is not None:
        try:
            s, more = _call(s, early, now, entropy)
        except RemoteError as error:  # of an earlier epoch: the delivery is good all the same
            more = [Refused(error)]
        effects += more
    return s, effects


def _early_call(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    """A call that overtook the delivery waits for it."""
    return replace(s, early=e), []


# ---- a turn


def _provide(s: Participant, turn: int, entropy: Entropy) -> Step:
    """Leave with the others what `turn` needs from here; a second time, the same bytes.

    Chains move on to that turn: no turn before it can be entered any more.
    """
    if s.provision is None or s.provision.turn < turn:
        chains = {them: chain.at(turn) for them, chain in s.chains.items()}
        places = places_of(s.entries)
        provision = provide(s.who.name, places, chains, s.threshold, entropy)
        s = replace(s, chains=chains, provision=provision)
    return s, [ToParent(_prepare(s))]


def _prepare(s: Participant) -> wire.Prepare:
    left = s.provision
    if left is None:
        raise LocalError("nothing has been left for any turn")
    return wire.Prepare(
        epoch=s.epoch,
        turn=left.turn,
        boxes=left.boxes,
        escrow=left.escrow,
        commit_b=left.commit_b,
        commit_k=left.commit_k,
    )


def _call(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Call)
    plan = wire.decode_as(wire.Plan, message.plan)
    if plan.epoch != s.epoch or plan.roster != s.roster:
        raise OutOfPlace(f"a plan for epoch {plan.epoch}, this is epoch {s.epoch}")
    if s.who.name in dict(message.boxes):
        # Replayed by whoever can: taken for ours, it would leave us without the others' shares.
        raise OutOfPlace("a call for another member, with a box of this one's own in it")
    if plan.turn <= s.seen:
        raise Replayed(f"plan of turn {plan.turn}, turn {s.seen} has been seen")
    if plan.turn > s.seen + MAX_SKIP:
        raise PolicyViolation(f"plan of turn {plan.turn} after turn {s.seen}")
    effects = _abandon(s, f"turn {plan.turn} has begun")
    ours = s.provision
    if s.who.name not in plan.cohort or ours is None or ours.turn != plan.turn:
        s = replace(_ready(s, now), seen=plan.turn)
        s, left = _provide(s, plan.turn + 1, entropy)
        return s, effects + left
    try:
        context = _check_plan(s, plan)
    except RemoteError as error:
        return _decline(s, plan, error, now, entropy, effects)
    held, errors = _open_boxes(s, plan, message, ours)
    s = replace(
        s,
        phase=Phase.WAITING,
        seen=plan.turn,
        begun=plan.round,
        present=ours,
        turn=Turn(plan, context, held),
        wake=now + plan.deadline,
    )
    s, work = _try_work(s)
    return s, [*effects, *(Refused(error) for error in errors), *work]


def _decline(
    s: Participant,
    plan: wire.Plan,
    error: RemoteError,
    now: float,
    entropy: Entropy,
    effects: list[Effect],
) -> Step:
    """Say that this plan is not followed here, and leave what the next turn needs."""
    no = wire.Abort(plan.epoch, plan.turn, wire.reason(str(error)))
    s = replace(_ready(s, now), seen=plan.turn)
    s, left = _provide(s, plan.turn + 1, entropy)
    return s, [*effects, Refused(error), ToParent(no), *left]


def _check_plan(s: Participant, plan: wire.Plan) -> bytes:
    """The plan's context. Raises RemoteError for a plan this member will not follow."""
    others = set(plan.cohort) - {s.who.name}
    if len(plan.cohort) != len(others) + 1:
        raise Malformed("a cohort names a member twice")
    spent = max(s.last_round, s.begun)
    if plan.round <= spent:
        # Also where it was given up: its work or mask may still come, for the plan it had then.
        raise Replayed(f"plan of round {plan.round}, but round {spent} is spent")
    if plan.round > spent + MAX_AHEAD:
        raise PolicyViolation(f"plan of round {plan.round}, but round {spent} was the last")
    unkeyed = sorted(others - s.chains.keys())
    if unkeyed:
        raise PolicyViolation(f"no pair secret with {', '.join(unkeyed)}")
    if len(plan.cohort) < s.threshold:
        raise PolicyViolation(
            f"a cohort of {len(plan.cohort)} is below the threshold {s.threshold}"
        )
    _check_group(s.who.policy, s.entries, plan.cohort, "a cohort")
    _check_clip(s.who.policy, plan)
    if plan.apart:
        _check_apart(s, plan)
    if s.devices > plan.devices:
        raise PolicyViolation(f"{s.devices} devices here, the plan is for {plan.devices} in all")
    length_of(plan)
    return round_context(s.who.federation, s.who.parent, plan)


def _check_clip(policy: Policy, plan: wire.Plan) -> None:
    """A private plan's clip has room for noise, which is none for an update: of that, the norm
    bound is what counts. Raises RemoteError."""
    most = policy.max_clip
    if plan.clip <= most:
        return
    terms = terms_of(read_task(plan.task))
    if terms is None:
        raise PolicyViolation(f"clip {plan.clip} is above this member's {most}")
    if terms.bound > most:
        raise PolicyViolation(f"norm bound {terms.bound} is above this member's {most}")
    room = terms.clip(plan.dimension, plan.devices, plan.bits)
    if plan.clip > room * (1 + 1e-6):
        raise PolicyViolation(f"clip {plan.clip}, but noise takes no more than {room:.6g}")


def _check_apart(s: Participant, plan: wire.Plan) -> None:
    """Raises PolicyViolation where the root must not see the sum of one cohort."""
    policy = s.who.policy
    if not policy.cohorts_apart:
        raise PolicyViolation(
            "the root would see the sums of single cohorts; this member's policy has no "
            "cohorts_apart: sign and pin one that has"
        )
    if plan.apart == wire.APART and s.devices < policy.min_devices:
        raise PolicyViolation(
            f"the root would see a sum of {s.devices} devices; this member's policy asks for "
            f"{policy.min_devices}"
        )


def _open_boxes(
    s: Participant, plan: wire.Plan, call: wire.Call, ours: Provision
) -> tuple[dict[str, Shares], list[RemoteError]]:
    """The shares this member holds of each cohort member in this turn, its own included."""
    held = {s.who.name: ours.own}
    errors: list[RemoteError] = []
    boxes = dict(call.boxes)
    for them in plan.cohort:
        if them == s.who.name:
            continue
        try:
            if them not in boxes:
                raise Malformed("there is none")
            held[them] = open_box(them, s.who.name, s.chains[them], boxes[them])
        except RemoteError as error:
            errors.append(type(error)(f"the box of {them!r}: {error}"))
    return held, errors


def _try_work(s: Participant) -> Step:
    if s.turn is None:
        raise LocalError("no turn to work in")
    plan = s.turn.plan
    if s.model != (plan.model_version, plan.model_hash):
        return s, []
    expand = ExpandMask(
        round=plan.round,
        seeds=_seeds(s, s.turn),
        length=length_of(plan),
        bits=plan.bits,
        keystream=s.keystream,
    )
    return replace(s, phase=Phase.WORKING), [Work(plan), expand]


def _seeds(s: Participant, turn: Turn) -> tuple[SignedSeed, ...]:
    if s.present is None:
        raise LocalError("no self-mask for this turn")
    leaves = {them: s.chains[them].leaf() for them in turn.plan.cohort if them != s.who.name}
    return mask_seeds(s.who.name, s.present.b, leaves, turn.context)


def _model_held(s: Participant, e: ModelHeld, now: float, entropy: Entropy) -> Step:
    s = replace(s, model=(e.version, e.digest))
    return _try_work(s) if s.phase is Phase.WAITING else (s, [])


def _mask_ready(s: Participant, e: MaskReady, now: float, entropy: Entropy) -> Step:
    turn = s.turn
    if turn is None or e.round != turn.plan.round or len(e.mask) != length_of(turn.plan):
        return s, []
    return replace(s, turn=replace(turn, mask=e.mask)), []


def _contribution(s: Participant, e: Contribution, now: float, entropy: Entropy) -> Step:
    turn = s.turn
    if turn is None or e.round != turn.plan.round:
        return s, []  # work on a turn that was given up meanwhile
    plan = turn.plan
    encoding = encoding_of(plan)
    try:
        encoding.within(e.vector, s.devices)
        vector = _in_place(s, plan, encoding, e.vector)
    except RemoteError as error:
        return _give_up(s, str(error), now, entropy)
    seeds = _seeds(s, turn)
    s, _ = _provide(s, plan.turn + 1, entropy)
    sealed = _sealed(s, turn, vector, seeds, entropy)
    receipt = make_receipt(s.who.key, turn.context)
    upload = wire.Upload(plan.epoch, plan.turn, turn.context, receipt, sealed)
    s = replace(
        s,
        phase=Phase.SENT,
        last_round=plan.round,
        uploaded=plan.turn,
        turn=replace(turn, mask=None),
        wake=now + QUIET_S,
    )
    return s, [Record(plan.epoch, plan.round, upload), ToParent(upload)]


def _in_place(s: Participant, plan: wire.Plan, encoding: Encoding, vector: Ring) -> Ring:
    """The vector as it is masked: in this member's slot, where each has one.

    Raises RemoteError for a sum of fewer devices than may be seen apart.
    """
    if plan.apart != wire.APART:
        return vector
    devices, least = encoding.decode(vector).devices, s.who.policy.min_devices
    if devices < least:
        raise PolicyViolation(f"the root would see a sum of {devices} devices, {least} are needed")
    return place(vector, plan.cohort.index(s.who.name), slots_of(plan))


def _sealed(
    s: Participant, turn: Turn, vector: Ring, seeds: tuple[SignedSeed, ...], entropy: Entropy
) -> memoryview:
    """The parcel of `Contents`: each block of the vector is masked and sealed while in the cache.

    The mask is left as it is: a step that fails after this can be taken again.
    """
    head, tail = wire.around_vector(vector.nbytes, wire.encode(_prepare(s)))
    info = upload_info(turn.context, s.who.name)
    parcel = Parcel(s.aggregator_kem, len(head) + vector.nbytes + len(tail), info, entropy)
    parcel.write(head)
    for block in masked_blocks(vector, turn.mask, seeds, s.keystream):
        parcel.write(_little_endian(block))
    parcel.write(tail)
    return parcel.close()


def _little_endian(block: Ring) -> memoryview:
    return block.astype(block.dtype.newbyteorder("<"), copy=False).data.cast("B")


def _no_contribution(s: Participant, e: NoContribution, now: float, entropy: Entropy) -> Step:
    if s.turn is None or e.round != s.turn.plan.round:
        return s, []
    return _give_up(s, e.reason, now, entropy)


def _give_up(s: Participant, reason: str, now: float, entropy: Entropy) -> Step:
    """Tell the parent that this turn gets nothing from here, and leave what the next one needs.

    The turn stays known: shares held for others are still answered with.
    """
    if s.turn is None:
        raise LocalError("no turn to give up")
    plan = s.turn.plan
    no = wire.Abort(plan.epoch, plan.turn, wire.reason(reason))
    turn = replace(s.turn, mask=None)
    s = replace(s, phase=Phase.READY, turn=turn, present=None, wake=now + QUIET_S)
    s, left = _provide(s, plan.turn + 1, entropy)
    return s, [ToParent(no), *left]


def _reveal(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Reveal)
    turn = s.turn
    if turn is None or (message.epoch, message.turn) != (turn.plan.epoch, turn.plan.turn):
        if (message.epoch, message.turn) <= (s.epoch, s.seen):
            return s, []  # of a turn this member had no part in
        raise OutOfPlace(f"a reveal of turn {message.turn}, turn {s.seen} is the last seen")
    _check_reveal(s, turn, message)
    if not message.consents and set(message.survivors) != set(turn.plan.cohort):
        return _agree(s, turn, message, now, entropy)
    survivors = set(message.survivors)
    shares = tuple(
        (them, held.b if them in survivors else held.k) for them, held in sorted(turn.held.items())
    )
    opened = wire.encode(wire.Opened(shares))
    sealed = seal(s.aggregator_kem, opened, answer_info(turn.context, s.who.name))
    answer = wire.Answer(message.epoch, message.turn, turn.context, sealed)
    effects = _abandon(s, "the turn goes on without this member")
    late = s.uploaded < message.turn and not turn.agreed
    # From here on nothing of this turn may be sent again: neither another answer nor an upload.
    s = replace(_ready(s, now), answered=message.turn)
    effects.append(ToParent(answer))
    if late:
        s, left = _provide(s, message.turn + 1, entropy)
        effects += left
    return s, effects


def _agree(s: Participant, turn: Turn, reveal: wire.Reveal, now: float, entropy: Entropy) -> Step:
    """Sign the survivors, and wait for a threshold to have done so; nothing is uploaded any more.

    Asked again for the same set it gives the same bytes.
    """
    signature = make_consent(s.who.key, turn.context, reveal.survivors)
    consent = wire.Consent(reveal.epoch, reveal.turn, turn.context, signature)
    effects = [*_abandon(s, "the turn goes on without this member"), ToParent(consent)]
    late = s.uploaded < reveal.turn and not turn.agreed
    turn = replace(turn, mask=None, agreed=reveal.survivors)
    s = replace(s, phase=Phase.READY, turn=turn, present=None, wake=now + QUIET_S)
    if late:
        s, left = _provide(s, reveal.turn + 1, entropy)
        effects += left
    return s, effects


def _check_reveal(s: Participant, turn: Turn, reveal: wire.Reveal) -> None:
    """Raises RemoteError for a survivor set this member must not answer."""
    plan, survivors = turn.plan, set(reveal.survivors)
    if reveal.context != turn.context:
        raise PolicyViolation(f"a reveal of turn {plan.turn} under another plan than this member's")
    if reveal.turn <= s.answered:
        raise Replayed(f"a second reveal of turn {reveal.turn}")
    if len(survivors) != len(reveal.survivors) or not survivors <= set(plan.cohort):
        raise Malformed("a survivor set names a member twice, or one outside of the cohort")
    if len(survivors) < max(s.threshold, plan.min_survivors):
        raise PolicyViolation(
            f"{len(survivors)} survivors, {max(s.threshold, plan.min_survivors)} are needed"
        )
    _check_group(s.who.policy, s.entries, survivors, "a survivor set")
    if s.who.name in survivors and s.uploaded < reveal.turn:
        raise PolicyViolation("a survivor set counts this member, which has not uploaded")
    if turn.agreed and set(turn.agreed) != survivors:
        raise PolicyViolation("a survivor set other than the one this member has signed")
    if len(reveal.receipts) != len(survivors):
        raise Malformed(f"{len(reveal.receipts)} receipts of {len(survivors)} survivors")
    for name, receipt in zip(reveal.survivors, reveal.receipts, strict=True):
        check_receipt(s.entries[name], receipt, turn.context)
    if reveal.consents:
        check_agreed(
            s.entries, plan.cohort, reveal.consents, s.threshold, turn.context, reveal.survivors
        )


def _abort(s: Participant, e: Received, now: float, entropy: Entropy) -> Step:
    message = expect(e.message, wire.Abort)
    turn = s.turn
    if turn is None or (message.epoch, message.turn) != (turn.plan.epoch, turn.plan.turn):
        return s, []
    effects = _abandon(s, message.reason)
    late = s.uploaded < message.turn
    s = replace(_ready(s, now), answered=max(s.answered, message.turn))
    if late:
        s, left = _provide(s, message.turn + 1, entropy)
        effects += left
    return s, effects


# ---- time


def _late(s: Participant, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake or s.turn is None:
        return s, []
    plan = s.turn.plan
    if s.phase is Phase.WAITING:
        reason = f"model version {plan.model_version} did not arrive before the deadline"
    else:
        reason = f"the work was not done within {plan.deadline:g} s"
    effects = _abandon(s, reason)
    s, said = _give_up(s, reason, now, entropy)
    return s, effects + said


def _tick_out(s: Participant, e: Tick, now: float, entropy: Entropy) -> Step:
    return _ask_again(s, e, now, entropy) if s.wake is not None and now >= s.wake else (s, [])


def _tick_keying(s: Participant, e: Tick, now: float, entropy: Entropy) -> Step:
    return _ask_in(s, now, entropy) if s.wake is not None and now >= s.wake else (s, [])


def _quiet(s: Participant, e: Tick, now: float, entropy: Entropy) -> Step:
    if s.wake is None or now < s.wake:
        return s, []
    effects: list[Effect] = [ToParent(_join(s, renew=1))]
    if s.provision is not None:
        effects.append(ToParent(_prepare(s)))
    return replace(s, wake=now + QUIET_S), effects


def _rest(s: Participant, e: Event, now: float, entropy: Entropy) -> Step:
    return s, []


def _ready(s: Participant, now: float) -> Participant:
    return replace(s, phase=Phase.READY, turn=None, present=None, wake=now + QUIET_S)


def _abandon(s: Participant, reason: str) -> list[Effect]:
    if s.turn is None or s.phase not in (Phase.WAITING, Phase.WORKING):
        return []
    return [Abandon(s.turn.plan.round, reason)]


def _forget(s: Participant) -> Participant:
    """Drop every secret of the epoch."""
    return replace(
        s,
        roster=b"",
        entries={},
        secrets={},
        chains={},
        provision=None,
        present=None,
        turn=None,
        seen=0,
        uploaded=0,
        answered=0,
        early=None,
    )


Move = Callable[..., Step]
_LISTENING: Final = (Phase.OUT, Phase.KEYING, Phase.READY, Phase.WAITING, Phase.WORKING, Phase.SENT)
_KEYED: Final = (Phase.READY, Phase.WAITING, Phase.WORKING, Phase.SENT)

MOVES: Final[dict[tuple[Phase, type], Move]] = {
    **{(phase, Begin): _begin for phase in Phase},
    **{(phase, ModelHeld): _model_held for phase in Phase},
    **{(phase, Contribution): _rest for phase in Phase},
    **{(phase, NoContribution): _rest for phase in Phase},
    **{(phase, MaskReady): _rest for phase in Phase},
    **{(phase, Tick): _rest for phase in Phase},
    **{(phase, Withdraw): _withdraw for phase in _LISTENING},
    **{(phase, wire.Roster): _roster for phase in _LISTENING},
    **{(phase, wire.Call): _call for phase in _KEYED},
    **{(phase, wire.Reveal): _rest for phase in Phase},
    **{(phase, wire.Reveal): _reveal for phase in _KEYED},
    **{(phase, wire.Abort): _rest for phase in Phase},
    **{(phase, wire.Abort): _abort for phase in _KEYED},
    (Phase.IDLE, Withdraw): _rest,
    (Phase.IDLE, wire.Roster): _rest,
    (Phase.OUT, Tick): _tick_out,
    (Phase.KEYING, Tick): _tick_keying,
    (Phase.KEYING, wire.Call): _early_call,
    (Phase.KEYING, wire.Delivery): _delivery,
    (Phase.READY, Tick): _quiet,
    (Phase.SENT, Tick): _quiet,
    (Phase.WAITING, Tick): _late,
    (Phase.WORKING, Tick): _late,
    (Phase.WORKING, MaskReady): _mask_ready,
    (Phase.WORKING, Contribution): _contribution,
    (Phase.WORKING, NoContribution): _no_contribution,
}
"""What may happen in which phase. `_rest`: expected there, and nothing to do."""
