"""A turn as an aggregator sees it: uploads in, survivors named, answers in, the sum laid bare."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from edgechoir import wire
from edgechoir.errors import BadUpdate, Malformed, RemoteError
from edgechoir.learning.fixed_point import Encoding
from edgechoir.learning.slots import slots
from edgechoir.rounds.epoch import (
    answer_info,
    encoding_of,
    length_of,
    places_of,
    slots_of,
    upload_info,
)
from edgechoir.secagg.boxes import commitment, open_escrow
from edgechoir.secagg.masking import sum_seeds
from edgechoir.secagg.pads import Keystream, add_pads
from edgechoir.secagg.parcel import open_parcel
from edgechoir.secagg.sealing import KemKey, unseal
from edgechoir.secagg.shamir import combine
from edgechoir.types import Ring


@dataclass(frozen=True, slots=True)
class Turn:
    """The turn that runs: what each cohort member has left for it, and what has come in.

    `provisions` are those of this turn, `devices` counts those beneath each cohort member,
    `arrived` who is in `total`, `absent` who will not come and why, `survivors` who is in the sum
    once that is said, `consents` the signatures under them, `answers` the shares by who gave them.
    """

    plan: wire.Plan
    context: bytes
    provisions: Mapping[str, wire.Prepare]
    devices: Mapping[str, int]
    roster: tuple[str, ...]
    threshold: int
    keystream: Keystream
    total: Ring
    arrived: frozenset[str] = frozenset()
    absent: Mapping[str, str] = field(default_factory=dict)
    survivors: tuple[str, ...] = ()
    receipts: Mapping[str, bytes] = field(default_factory=dict)
    consents: Mapping[str, bytes] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    deadline: float = 0.0

    @property
    def encoding(self) -> Encoding:
        return encoding_of(self.plan)

    @property
    def settled(self) -> bool:
        """Whether nobody is waited for any more."""
        return self.arrived | self.absent.keys() >= set(self.plan.cohort)

    @property
    def complete(self) -> bool:
        """Whether the whole cohort is in the sum, so that no K is asked for."""
        return self.survivors == self.plan.cohort


def begin_turn(
    plan: wire.Plan,
    context: bytes,
    provisions: Mapping[str, wire.Prepare],
    devices: Mapping[str, int],
    roster: tuple[str, ...],
    threshold: int,
    keystream: Keystream,
    deadline: float,
) -> Turn:
    """A turn with nothing in it yet. Raises BadUpdate for a plan that could overflow."""
    encoding = encoding_of(plan)
    return Turn(
        plan=plan,
        context=context,
        provisions=provisions,
        devices=devices,
        roster=roster,
        threshold=threshold,
        keystream=keystream,
        total=np.zeros(length_of(plan), encoding.dtype),
        deadline=deadline,
    )


def open_upload(kem: KemKey, upload: wire.Upload, member: str) -> wire.Contents:
    """What is inside an upload, its vector in memory of its own. Raises RemoteError."""
    inside = open_parcel(kem, upload.sealed, upload_info(upload.context, member))
    return wire.decode_as(wire.Contents, inside)


def masked_vector(contents: wire.Contents, encoding: Encoding, member: str, sums: int = 1) -> Ring:
    """The masked vector [sums * length] in an upload. Raises BadUpdate."""
    expected = sums * encoding.length * encoding.dtype.itemsize
    if len(contents.vector) != expected:
        raise BadUpdate(f"{member} sent {len(contents.vector)} bytes, expected {expected}")
    if encoding.bits == 8:
        return np.frombuffer(contents.vector, np.uint8)
    if encoding.bits == 16:
        return np.frombuffer(contents.vector, "<u2").astype(np.uint16, copy=False)
    return np.frombuffer(contents.vector, "<u4").astype(np.uint32, copy=False)


def count_in(turn: Turn, member: str, vector: Ring, receipt: bytes) -> Turn:
    """Add a member's masked vector to the sum.

    The vector becomes the new sum where it can be written to, so that no third one is made; the
    sum of `turn` stays what it is.
    """
    out = vector if vector.flags.writeable else None
    total: Ring = np.add(turn.total, vector, out=out)
    return replace(
        turn,
        total=total,
        arrived=turn.arrived | {member},
        receipts={**turn.receipts, member: receipt},
    )


def open_answer(turn: Turn, kem: KemKey, answer: wire.Answer, member: str) -> Turn:
    """Take in a member's shares. Raises RemoteError."""
    inside = unseal(kem, answer.sealed, answer_info(answer.context, member))
    opened = wire.decode_as(wire.Opened, inside)
    shares = dict(opened.shares)
    if len(shares) != len(opened.shares) or not shares.keys() <= set(turn.plan.cohort):
        raise Malformed(f"the answer of {member} has shares of others than the cohort")
    return replace(turn, answers={**turn.answers, member: shares})


def lay_bare(turn: Turn) -> Ring | None:
    """The plain sum over the survivors; None while answers are too few or do not fit."""
    places = places_of(turn.roster)
    survivors: dict[str, bytes] = {}
    missing: dict[str, Mapping[str, bytes]] = {}
    for member in turn.plan.cohort:
        provision = turn.provisions[member]
        survives = member in turn.survivors
        label, committed = (b"b", provision.commit_b) if survives else (b"K", provision.commit_k)
        secret = _recover(turn, member, places, label, committed)
        if secret is None:
            return None
        if survives:
            survivors[member] = secret
        else:
            others = [name for name, _ in provision.boxes]
            try:
                leaves = open_escrow(secret, provision.escrow, others)
            except RemoteError:
                return None  # it committed to a key that does not open what it left
            missing[member] = {them: leaves[them] for them in turn.survivors}
    total: Ring = np.empty_like(turn.total)
    add_pads(turn.total, sum_seeds(survivors, missing, turn.context), turn.keystream, total)
    return total


def _recover(
    turn: Turn, member: str, places: Mapping[str, int], label: bytes, committed: bytes
) -> bytes | None:
    """A secret from its shares, checked against its commitment.

    With more answers than needed, one false share is got around by leaving each out in turn.
    """
    shares = {places[by]: given[member] for by, given in turn.answers.items() if member in given}
    xs, t = sorted(shares), turn.threshold
    if len(xs) < t:
        return None
    tries = [xs[:t]] + [[x for x in xs if x != left][:t] for left in xs[:t] if len(xs) > t]
    for chosen in tries:
        try:
            secret = combine({x: shares[x] for x in chosen})
        except RemoteError:
            continue
        if commitment(label, secret) == committed:
            return secret
    return None


def check_sum(turn: Turn, total: Ring) -> None:
    """Raises BadUpdate where a sum over the survivors cannot be right.

    Where each survivor is one device, the constant coordinate must say exactly how many there are;
    higher up a survivor may have lost some of the devices it had when it joined.
    """
    if turn.plan.apart != wire.APART:
        _check_one(turn, total, turn.survivors)
        return
    for name, own in zip(turn.plan.cohort, slots(total, slots_of(turn.plan)), strict=True):
        if name in turn.survivors:
            _check_one(turn, own, (name,))
        elif own.any():
            raise BadUpdate(f"the slot of {name}, which is not in the sum, is not empty")


def _check_one(turn: Turn, total: Ring, names: tuple[str, ...]) -> None:
    devices = sum(turn.devices[name] for name in names)
    decoded = turn.encoding.decode(total)
    exact = devices == len(names)
    if decoded.devices > devices or (exact and decoded.devices != devices):
        raise BadUpdate(f"the sum counts {decoded.devices} devices, {devices} are in it")
