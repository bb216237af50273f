"""What a member leaves for a turn opens for those it is for, in that turn, and binds it."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import Malformed
from edgechoir.secagg.boxes import (
    BOX_BYTES,
    Provision,
    Shares,
    commitment,
    open_box,
    open_escrow,
    provide,
)
from edgechoir.secagg.chains import Chain, pair_chain
from edgechoir.secagg.shamir import combine
from edgechoir.sim.chance import entropy_of

NAMES = ("dev-1", "dev-2", "dev-3", "dev-4")
PLACES = {name: place for place, name in enumerate(NAMES, 1)}
THRESHOLD = 3


def links_of(me: str, turn: int = 1) -> dict[str, Chain]:
    """The same from both ends: the secrets follow from the names."""

    def secret(sender: str, reader: str) -> bytes:
        return entropy_of(1, f"{sender} {reader}")(32)

    return {
        them: pair_chain(secret(me, them), secret(them, me), me, them, bytes(32)).at(turn)
        for them in NAMES
        if them != me
    }


@pytest.fixture
def left() -> Provision:
    """What dev-2 leaves for turn 7."""
    return provide("dev-2", PLACES, links_of("dev-2", 7), THRESHOLD, entropy_of(2, "dev-2"))


def opened(left: Provision) -> dict[str, Shares]:
    """Every member's shares of dev-2, dev-2's own included."""
    boxes = dict(left.boxes)
    shares = {
        name: open_box("dev-2", name, links_of(name, 7)["dev-2"], boxes[name])
        for name in NAMES
        if name != "dev-2"
    }
    return {**shares, "dev-2": left.own}


def test_a_provision_is_for_the_turn_of_its_links_and_all_the_others(left: Provision) -> None:
    assert left.turn == 7
    assert [name for name, _ in left.boxes] == ["dev-1", "dev-3", "dev-4"]
    assert all(len(box) == BOX_BYTES for _, box in left.boxes)


@pytest.mark.parametrize("absent", NAMES)
def test_any_t_members_recover_what_was_committed_to(left: Provision, absent: str) -> None:
    shares = {PLACES[name]: held for name, held in opened(left).items() if name != absent}
    assert len(shares) == THRESHOLD
    b = combine({x: held.b for x, held in shares.items()})
    k = combine({x: held.k for x, held in shares.items()})
    assert b == left.b
    assert commitment(b"b", b) == left.commit_b
    assert commitment(b"K", k) == left.commit_k
    assert k != b


def test_fewer_recover_neither(left: Provision) -> None:
    shares = {PLACES[name]: held for name, held in opened(left).items() if name in NAMES[:2]}
    for values, committed, label in (
        ({x: held.b for x, held in shares.items()}, left.commit_b, b"b"),
        ({x: held.k for x, held in shares.items()}, left.commit_k, b"K"),
    ):
        with suppress(Malformed):
            assert commitment(label, combine(values)) != committed


def test_the_escrow_holds_the_leaf_towards_each_other(left: Provision) -> None:
    k = combine({PLACES[name]: held.k for name, held in list(opened(left).items())[:THRESHOLD]})
    leaves = open_escrow(k, left.escrow, ["dev-1", "dev-3", "dev-4"])
    assert leaves == {them: link.leaf() for them, link in links_of("dev-2", 7).items()}
    for them, leaf in leaves.items():
        assert links_of(them, 7)["dev-2"].leaf() == leaf, "the other end of the pair has the same"


def test_an_escrow_opens_with_its_own_key_alone(left: Provision) -> None:
    for key in (bytes(32), left.b):
        with pytest.raises(Malformed, match="escrow do not open"):
            open_escrow(key, left.escrow, ["dev-1", "dev-3", "dev-4"])


def test_an_escrow_for_another_number_of_members_is_malformed(left: Provision) -> None:
    k = combine({PLACES[name]: held.k for name, held in list(opened(left).items())[:THRESHOLD]})
    with pytest.raises(Malformed, match="holds 96 bytes for 2 members"):
        open_escrow(k, left.escrow, ["dev-1", "dev-3"])


def test_a_box_opens_for_its_reader_sender_and_turn_alone(left: Provision) -> None:
    box = dict(left.boxes)["dev-1"]
    link = links_of("dev-1", 7)["dev-2"]
    assert isinstance(open_box("dev-2", "dev-1", link, box), Shares)
    for sender, reader, key in (
        ("dev-1", "dev-2", link),
        ("dev-3", "dev-1", links_of("dev-1", 7)["dev-3"]),
        ("dev-2", "dev-3", links_of("dev-3", 7)["dev-2"]),
        ("dev-2", "dev-1", links_of("dev-1", 6)["dev-2"]),
        ("dev-2", "dev-1", links_of("dev-1", 8)["dev-2"]),
    ):
        with pytest.raises(Malformed, match="shares do not open: not of this turn"):
            open_box(sender, reader, key, box)


@settings(deadline=None)
@given(at=st.integers(0, BOX_BYTES - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_at_any_place_of_a_box_is_malformed(at: int, bit: int) -> None:
    left = provide("dev-2", PLACES, links_of("dev-2", 7), THRESHOLD, entropy_of(2, "dev-2"))
    box = bytearray(dict(left.boxes)["dev-1"])
    box[at] ^= 1 << bit
    with pytest.raises(Malformed):
        open_box("dev-2", "dev-1", links_of("dev-1", 7)["dev-2"], bytes(box))


@given(junk=st.binary(max_size=200))
def test_junk_is_no_box_and_no_escrow(junk: bytes) -> None:
    with pytest.raises(Malformed):
        open_box("dev-2", "dev-1", Chain(bytes(32), 1), junk)
    with pytest.raises(Malformed):
        open_escrow(bytes(32), junk, ["dev-1"])


def test_two_turns_have_nothing_in_common() -> None:
    entropy = entropy_of(2, "dev-2")
    first = provide("dev-2", PLACES, links_of("dev-2", 7), THRESHOLD, entropy)
    second = provide("dev-2", PLACES, links_of("dev-2", 8), THRESHOLD, entropy)
    assert first.b != second.b
    assert not {first.commit_b, first.commit_k} & {second.commit_b, second.commit_k}
    assert not {box for _, box in first.boxes} & {box for _, box in second.boxes}


def test_a_commitment_says_what_it_is_of() -> None:
    assert commitment(b"b", bytes(32)) != commitment(b"K", bytes(32))
    assert commitment(b"b", bytes(32)) != commitment(b"b", b"1" * 32)
