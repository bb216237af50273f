"""The set-up of an epoch: rosters that cannot be forged, pair secrets that only the pair knows.

Bonawitz et al. 2017, round 0 ("AdvertiseKeys"), with one sealed secret for each ordered pair in
place of a static Diffie-Hellman key. A bundle is signed inside its box by its
sender over roster and both ids: the aggregator, who knows every public key, cannot put a secret of
its own in the place of a member's.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from edgechoir import wire
from edgechoir.errors import BadUpdate, LocalError, Malformed, PolicyViolation, RemoteError
from edgechoir.identity.certificate import Certified
from edgechoir.identity.envelope import Verifier
from edgechoir.identity.keys import SigningKey, sign, verify
from edgechoir.learning.fixed_point import Encoding
from edgechoir.secagg.chains import SECRET_BYTES, Chain, pair_chain
from edgechoir.secagg.sealing import KemKey, check_public, seal, unseal
from edgechoir.types import Address

SIGNATURE_BYTES: Final = 64
M = TypeVar("M", bound=wire.Message)


@dataclass(frozen=True, slots=True)
class Entry:
    """A member as its own signed Join describes it."""

    address: Address
    certificate: Certified
    instance: bytes
    join: wire.Join


def roster_hash(federation: str, parent: Address, roster: wire.Roster) -> bytes:
    """Names an epoch: the same for two members only if they were shown the same roster."""
    head = f"edgechoir roster\0{federation}\0{parent}\0".encode()
    return hashlib.sha256(head + wire.encode(roster)).digest()


def round_context(federation: str, parent: Address, plan: wire.Plan) -> bytes:
    """Names a round: the same for two members only if they were shown the same plan."""
    head = f"edgechoir round\0{federation}\0{parent}\0".encode()
    return hashlib.sha256(head + wire.encode(plan)).digest()


def read_join(envelope: bytes, verifier: Verifier, parent: Address, now: float) -> Entry:
    """Verify a signed Join meant for `parent`. Raises RemoteError."""
    opened = verifier.open(envelope, now)
    join = wire.decode(opened.kind, opened.body)
    if not isinstance(join, wire.Join):
        raise Malformed(f"a roster holds a {type(join).__name__}, expected a Join")
    if join.parent != parent.member:
        raise PolicyViolation(f"{opened.sender} joined {join.parent!r}, not {parent.member!r}")
    check_public(join.kem)
    return Entry(opened.sender, opened.certificate, opened.instance, join)


def read_roster(
    roster: wire.Roster, verifier: Verifier, parent: Address, now: float
) -> dict[str, Entry]:
    """The members of a roster by id. Raises RemoteError if one of them is not what it seems."""
    check_public(roster.kem)
    entries = [read_join(join, verifier, parent, now) for join in roster.joins]
    members = {str(e.address.member): e for e in entries}
    if len(members) != len(entries):
        raise Malformed("a roster names a member twice")
    return members


def make_bundles(
    me: str,
    key: SigningKey,
    secrets: Mapping[str, bytes],
    entries: Mapping[str, Entry],
    epoch: int,
    roster: bytes,
) -> wire.Bundles:
    """Seal my secret for each other member to it, signed inside the box."""
    sealed = []
    for them, secret in sorted(secrets.items()):
        names = _names(roster, me, them)
        box = seal(entries[them].join.kem, secret + sign(key, names + secret), names)
        sealed.append((them, box))
    return wire.Bundles(epoch, roster, tuple(sealed))


def open_bundles(
    me: str,
    kem: KemKey,
    secrets: Mapping[str, bytes],
    entries: Mapping[str, Entry],
    delivery: wire.Delivery,
) -> tuple[dict[str, Chain], list[RemoteError]]:
    """The pair chains that the delivered bundles give, and what was wrong with the others."""
    chains: dict[str, Chain] = {}
    errors: list[RemoteError] = []
    for them, box in delivery.sealed:
        try:
            if them not in entries or them == me or them in chains:
                raise Malformed("its sender has no place in the roster, or has one already")
            names = _names(delivery.roster, them, me)
            inside = unseal(kem, box, names)
            if len(inside) != SECRET_BYTES + SIGNATURE_BYTES:
                raise Malformed(f"it holds {len(inside)} bytes")
            secret, signature = inside[:SECRET_BYTES], inside[SECRET_BYTES:]
            verify(entries[them].certificate.public_key, signature, names + secret)
        except RemoteError as error:
            errors.append(type(error)(f"the bundle of {them!r}: {error}"))
            continue
        chains[them] = pair_chain(secrets[them], secret, me, them, delivery.roster)
    return chains, errors


def upload_info(context: bytes, member: str) -> bytes:
    """What an upload's box is bound to: one member in one turn."""
    return b"edgechoir upload\0" + context + member.encode()


def answer_info(context: bytes, member: str) -> bytes:
    """What an answer's box is bound to: one member in one turn."""
    return b"edgechoir answer\0" + context + member.encode()


def places_of(members: Iterable[str]) -> dict[str, int]:
    """Each member's place in a roster, from 1: the x of its shares."""
    return {name: place for place, name in enumerate(sorted(members), 1)}


def encoding_of(plan: wire.Plan) -> Encoding:
    """The plan's fixed-point code. Raises BadUpdate for one that could overflow."""
    return Encoding(plan.dimension, plan.devices, plan.clip, plan.max_samples, plan.bits)


def slots_of(plan: wire.Plan) -> int:
    """Sums that lie behind each other in the plan's vector: one for each member, or one of all."""
    return len(plan.cohort) if plan.apart == wire.APART else 1


def length_of(plan: wire.Plan) -> int:
    """Ring elements of the vector that a member masks. Raises BadUpdate where it fits nowhere."""
    encoding = encoding_of(plan)
    length = encoding.length * slots_of(plan)
    if length * encoding.dtype.itemsize > wire.MAX_BLOB:
        raise BadUpdate(
            f"{slots_of(plan)} sums of {encoding.length} numbers do not fit into one upload"
        )
    return length


def expect(message: wire.Message, kind: type[M]) -> M:
    """The message as the kind its place in a table promises."""
    if not isinstance(message, kind):
        raise LocalError(f"a {type(message).__name__} stands in the place of a {kind.__name__}")
    return message


def _names(roster: bytes, sender: str, reader: str) -> bytes:
    return b"edgechoir bundle\0" + roster + sender.encode() + b"\0" + reader.encode() + b"\0"
