"""A roster holds only what its members signed, and a pair secret only what its sender sealed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest

from edgechoir import wire
from edgechoir.errors import (
    BadCertificate,
    BadSignature,
    LocalError,
    Malformed,
    PolicyViolation,
    RemoteError,
)
from edgechoir.identity.keys import sign
from edgechoir.rounds.epoch import (
    Entry,
    expect,
    make_bundles,
    open_bundles,
    places_of,
    read_join,
    read_roster,
    roster_hash,
    round_context,
)
from edgechoir.secagg.sealing import KemKey, new_kem_key, seal
from edgechoir.sim.chance import entropy_of
from edgechoir.types import Address, MemberId

if TYPE_CHECKING:
    from tests.rounds.conftest import Identity, IdentityOf, Stage, Wrap

PARENT = Address("node", MemberId("node-1"))
NAMES = ("dev-1", "dev-2", "dev-3")


@dataclass(frozen=True, slots=True)
class Members:
    """Three members with keys of their own, and the roster of their Joins."""

    identities: dict[str, Identity]
    kems: dict[str, KemKey]
    joins: dict[str, bytes]
    roster: wire.Roster
    secrets: dict[str, dict[str, bytes]]


@pytest.fixture
def members(identify: IdentityOf, seal_up: Wrap) -> Members:
    entropy = entropy_of(5, "members")
    identities = {name: identify("device", name) for name in NAMES}
    kems = {name: new_kem_key(entropy) for name in NAMES}
    joins = {
        name: seal_up(identities[name], 1, wire.encode(join_of(kems[name])), bytes(8), 0)
        for name in NAMES
    }
    roster = wire.Roster(1, 2, 0, new_kem_key(entropy).public, tuple(joins.values()))
    secrets = {me: {them: entropy(32) for them in NAMES if them != me} for me in NAMES}
    return Members(identities, kems, joins, roster, secrets)


def join_of(kem: KemKey, parent: str = "node-1") -> wire.Join:
    return wire.Join(parent, kem.public, 1, 0, 0, 0)


@pytest.fixture
def read(stage: Stage) -> Callable[[wire.Roster], dict[str, Entry]]:
    return lambda roster: read_roster(roster, stage.verifier(), PARENT, stage.now)


Read = Callable[[wire.Roster], dict[str, Entry]]


# ---- rosters


def test_a_roster_gives_each_member_with_its_own_key(members: Members, read: Read) -> None:
    entries = read(members.roster)
    assert tuple(entries) == NAMES
    for name, entry in entries.items():
        assert entry.join.kem == members.kems[name].public
        assert entry.address == Address("device", MemberId(name))


def test_a_key_exchanged_in_a_roster_is_refused(members: Members, read: Read) -> None:
    """The aggregator puts a key of its own into a member's Join."""
    own = new_kem_key(entropy_of(6, "aggregator")).public
    forged = members.joins["dev-2"].replace(members.kems["dev-2"].public, own)
    joins = (members.joins["dev-1"], forged, members.joins["dev-3"])
    with pytest.raises(BadSignature):
        read(replace(members.roster, joins=joins))


def test_a_join_signed_by_another_member_is_not_the_members(
    members: Members, read: Read, seal_up: Wrap
) -> None:
    """A colluding member signs a Join for the aggregator: it stands under its own name only."""
    own = new_kem_key(entropy_of(6, "aggregator"))
    colluding = seal_up(members.identities["dev-3"], 1, wire.encode(join_of(own)), bytes(8), 0)
    joins = (members.joins["dev-1"], colluding, members.joins["dev-3"])
    with pytest.raises(Malformed, match="names a member twice"):
        read(replace(members.roster, joins=joins))
    assert "dev-2" not in read(replace(members.roster, joins=(members.joins["dev-1"], colluding)))


def test_a_join_of_another_fleet_is_refused(
    members: Members, read: Read, identify: IdentityOf, seal_up: Wrap
) -> None:
    foreign = identify("device", "dev-2", "another fleet")
    join = seal_up(foreign, 1, wire.encode(join_of(members.kems["dev-2"])), bytes(8), 0)
    with pytest.raises(BadCertificate):
        read(replace(members.roster, joins=(join,)))


def test_a_join_meant_for_another_parent_is_refused(
    members: Members, read: Read, seal_up: Wrap
) -> None:
    """An aggregator cannot show the members of another one as its own."""
    body = wire.encode(join_of(members.kems["dev-2"], parent="node-2"))
    join = seal_up(members.identities["dev-2"], 1, body, bytes(8), 0)
    with pytest.raises(PolicyViolation, match="joined 'node-2', not 'node-1'"):
        read(replace(members.roster, joins=(join,)))


def test_only_a_join_can_stand_in_a_roster(members: Members, seal_up: Wrap, stage: Stage) -> None:
    leave = seal_up(members.identities["dev-2"], 9, wire.encode(wire.Leave("bye")), bytes(8), 0)
    with pytest.raises(Malformed, match="holds a Leave, expected a Join"):
        read_join(leave, stage.verifier(), PARENT, stage.now)


def test_keys_that_cannot_be_sealed_to_are_refused(
    members: Members, read: Read, seal_up: Wrap
) -> None:
    for bad in (b"", bytes(1216), b"\xff" * 1216, members.kems["dev-1"].public[:-32] + bytes(32)):
        with pytest.raises(Malformed, match="KEM key"):
            read(replace(members.roster, kem=bad))
        join = replace(join_of(members.kems["dev-2"]), kem=bad)
        envelope = seal_up(members.identities["dev-2"], 1, wire.encode(join), bytes(8), 0)
        with pytest.raises(Malformed, match="KEM key"):
            read(replace(members.roster, joins=(envelope,)))


# ---- what names an epoch and a round


def test_every_detail_of_a_roster_changes_its_hash(members: Members) -> None:
    roster, joins = members.roster, members.roster.joins
    hashes = {
        roster_hash("alps", PARENT, roster),
        roster_hash("alpsn", PARENT, roster),
        roster_hash("alps", replace(PARENT, tier="cloud"), roster),
        roster_hash("alps", replace(PARENT, member=MemberId("node-2")), roster),
        roster_hash("alps", PARENT, replace(roster, epoch=2)),
        roster_hash("alps", PARENT, replace(roster, threshold=3)),
        roster_hash("alps", PARENT, replace(roster, keystream=1)),
        roster_hash("alps", PARENT, replace(roster, kem=members.kems["dev-1"].public)),
        roster_hash("alps", PARENT, replace(roster, joins=joins[:2])),
        roster_hash("alps", PARENT, replace(roster, joins=joins[::-1])),
    }
    assert len(hashes) == 10


def test_every_field_of_a_plan_changes_the_context_of_its_round() -> None:
    plan = wire.Plan(
        1, 2, 3, bytes(32), 2, 16, ("a", "b"), 3, bytes(32), b"{}", 4, 5, 1.5, 6, 7, 8, 0.5, 9, 10.0
    )
    changes: dict[str, object] = {
        "roster": b"r" * 32,
        "model_hash": b"m" * 32,
        "task": b"[]",
        "cohort": ("a", "c"),
    }
    contexts = {round_context("alps", PARENT, plan), round_context("alp", PARENT, plan)}
    contexts.add(round_context("alps", replace(PARENT, member=MemberId("node-2")), plan))
    for name in wire.Plan.FIELDS:
        value = changes.get(name, getattr(plan, name) if name in changes else None)
        if value is None:
            value = getattr(plan, name) + 1
        contexts.add(round_context("alps", PARENT, replace(plan, **{name: value})))  # type: ignore[arg-type]
    assert len(contexts) == 3 + len(wire.Plan.FIELDS)


# ---- bundles


@dataclass(frozen=True, slots=True)
class Reader:
    """dev-1, about to open what was delivered to it."""

    members: Members
    entries: dict[str, Entry]
    roster: bytes

    def open(
        self, *sealed: tuple[str, bytes], roster: bytes | None = None
    ) -> tuple[dict[str, bytes], list[RemoteError]]:
        delivery = wire.Delivery(1, self.roster if roster is None else roster, sealed)
        chains, errors = open_bundles(
            "dev-1",
            self.members.kems["dev-1"],
            self.members.secrets["dev-1"],
            self.entries,
            delivery,
        )
        assert all(chain.turn == 1 for chain in chains.values())
        return {them: chain.key for them, chain in chains.items()}, errors

    def box_of(self, sender: str, reader: str = "dev-1", roster: bytes | None = None) -> bytes:
        bundles = make_bundles(
            sender,
            self.members.identities[sender].key,
            self.members.secrets[sender],
            self.entries,
            1,
            self.roster if roster is None else roster,
        )
        return dict(bundles.sealed)[reader]

    def names(self, sender: str) -> bytes:
        return b"edgechoir bundle\0" + self.roster + sender.encode() + b"\0dev-1\0"


@pytest.fixture
def reader(members: Members, read: Read) -> Reader:
    return Reader(members, read(members.roster), roster_hash("alps", PARENT, members.roster))


def test_bundles_give_both_ends_the_same_chain(reader: Reader) -> None:
    chains, errors = reader.open(
        ("dev-2", reader.box_of("dev-2")), ("dev-3", reader.box_of("dev-3"))
    )
    assert not errors
    assert set(chains) == {"dev-2", "dev-3"}
    there, _ = open_bundles(
        "dev-2",
        reader.members.kems["dev-2"],
        reader.members.secrets["dev-2"],
        reader.entries,
        wire.Delivery(1, reader.roster, (("dev-1", reader.box_of("dev-1", "dev-2")),)),
    )
    assert there["dev-1"].key == chains["dev-2"]


def test_a_secret_of_the_aggregators_own_is_refused_and_its_alleged_sender_named(
    reader: Reader, identify: IdentityOf
) -> None:
    """Sealed right, to the right key and context, but it has not the sender's signing key."""
    names, secret = reader.names("dev-2"), bytes(32)
    node = identify("node", "node-1")
    for signer in (node, reader.members.identities["dev-3"]):
        inside = secret + sign(signer.key, names + secret)
        forged = seal(reader.members.kems["dev-1"].public, inside, names)
        chains, (error,) = reader.open(("dev-2", forged), ("dev-3", reader.box_of("dev-3")))
        assert isinstance(error, BadSignature)
        assert str(error).startswith("the bundle of 'dev-2': the signature does not fit")
        assert set(chains) == {"dev-3"}, "the others are good all the same"


def test_a_secret_signed_for_another_reader_or_roster_is_refused(reader: Reader) -> None:
    """The aggregator has a box opened by a colluding reader and seals its inside to dev-1."""
    secret = reader.members.secrets["dev-2"]["dev-3"]
    key = reader.members.identities["dev-2"].key
    names = reader.names("dev-2")
    for signed in (
        names.replace(b"\0dev-1\0", b"\0dev-3\0"),
        names.replace(reader.roster, bytes(32)),
    ):
        inside = secret + sign(key, signed + secret)
        box = seal(reader.members.kems["dev-1"].public, inside, names)
        chains, (error,) = reader.open(("dev-2", box))
        assert isinstance(error, BadSignature)
        assert not chains


def test_boxes_exchanged_between_senders_do_not_open(reader: Reader) -> None:
    chains, errors = reader.open(
        ("dev-2", reader.box_of("dev-3")), ("dev-3", reader.box_of("dev-2"))
    )
    assert not chains
    assert [str(e).split(":")[0] for e in errors] == [
        "the bundle of 'dev-2'",
        "the bundle of 'dev-3'",
    ]
    assert {type(e) for e in errors} == {Malformed}


def test_a_box_for_another_reader_does_not_open(reader: Reader) -> None:
    chains, (error,) = reader.open(("dev-2", reader.box_of("dev-2", "dev-3")))
    assert not chains
    assert isinstance(error, Malformed)


def test_a_box_of_another_epoch_does_not_open(reader: Reader) -> None:
    chains, (error,) = reader.open(("dev-2", reader.box_of("dev-2", roster=bytes(32))))
    assert not chains
    assert isinstance(error, Malformed)


@pytest.mark.parametrize("sender", ["dev-1", "dev-9", ""])
def test_a_bundle_of_nobody_in_the_roster_is_refused(reader: Reader, sender: str) -> None:
    chains, (error,) = reader.open((sender, reader.box_of("dev-2")))
    assert not chains
    assert f"the bundle of {sender!r}: its sender has no place" in str(error)


def test_a_second_bundle_of_a_member_is_refused(reader: Reader) -> None:
    box = reader.box_of("dev-2")
    chains, (error,) = reader.open(("dev-2", box), ("dev-2", box))
    assert set(chains) == {"dev-2"}
    assert "or has one already" in str(error)


@pytest.mark.parametrize("length", [0, 64, 95, 97])
def test_a_bundle_holds_a_secret_and_a_signature_and_no_more(reader: Reader, length: int) -> None:
    box = seal(reader.members.kems["dev-1"].public, bytes(length), reader.names("dev-2"))
    chains, (error,) = reader.open(("dev-2", box))
    assert not chains
    assert str(error) == f"the bundle of 'dev-2': it holds {length} bytes"


def test_a_message_in_the_place_of_another_is_our_own_error() -> None:
    leave = wire.Leave("bye")
    assert expect(leave, wire.Leave) is leave
    with pytest.raises(LocalError, match="a Leave stands in the place of a Join"):
        expect(leave, wire.Join)


def test_places_follow_the_names_from_one_however_they_are_listed() -> None:
    """Both ends of a share must count alike, and nobody may stand at 0, where the secret is."""
    assert places_of(["dev-2", "dev-10", "dev-1"]) == {"dev-1": 1, "dev-10": 2, "dev-2": 3}
