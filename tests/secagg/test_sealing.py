"""A box opens for the one key, context and bytes it was made of."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import Malformed
from edgechoir.secagg.sealing import (
    MLKEM_BYTES,
    OVERHEAD,
    PUBLIC_BYTES,
    KemKey,
    check_public,
    new_kem_key,
    seal,
    unseal,
)
from edgechoir.sim.chance import entropy_of

LOW_ORDER = [
    bytes(32),
    (1).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
]
"""X25519 points that give the same shared secret for every private key (RFC 7748, section 6.1)."""


@pytest.fixture(scope="module")
def key() -> KemKey:
    return new_kem_key(entropy_of(1, "key"))


@pytest.fixture(scope="module")
def box(key: KemKey) -> bytes:
    return seal(key.public, b"sotto voce", b"info")


@settings(deadline=None, max_examples=50)
@given(plaintext=st.binary(max_size=5000), info=st.binary(max_size=200))
def test_a_box_gives_back_what_was_put_in(key: KemKey, plaintext: bytes, info: bytes) -> None:
    box = seal(key.public, plaintext, info)
    assert unseal(key, box, info) == plaintext
    assert len(box) == len(plaintext) + OVERHEAD


def test_two_boxes_of_the_same_words_differ(key: KemKey, box: bytes) -> None:
    again = seal(key.public, b"sotto voce", b"info")
    assert again != box
    assert unseal(key, again, b"info") == unseal(key, box, b"info")


def test_another_key_opens_nothing(box: bytes) -> None:
    other = new_kem_key(entropy_of(2, "key"))
    with pytest.raises(Malformed, match="does not open"):
        unseal(other, box, b"info")


@pytest.mark.parametrize("info", [b"", b"inf", b"info\0", b"Info"])
def test_another_context_opens_nothing(key: KemKey, box: bytes, info: bytes) -> None:
    with pytest.raises(Malformed, match="does not open"):
        unseal(key, box, info)


def test_a_flipped_bit_at_any_place_is_refused(key: KemKey, box: bytes) -> None:
    for at in range(len(box)):
        flipped = bytearray(box)
        flipped[at] ^= 1 << (at % 8)
        with pytest.raises(Malformed):
            unseal(key, bytes(flipped), b"info")


def test_a_box_cut_at_any_length_is_refused(key: KemKey, box: bytes) -> None:
    for length in itertools.chain(range(0, OVERHEAD, 37), range(OVERHEAD - 2, len(box))):
        with pytest.raises(Malformed):
            unseal(key, box[:length], b"info")
    with pytest.raises(Malformed):
        unseal(key, box + b"\0", b"info")


@settings(deadline=None)
@given(data=st.binary(max_size=2000))
def test_arbitrary_bytes_do_not_open(key: KemKey, data: bytes) -> None:
    with pytest.raises(Malformed):
        unseal(key, data, b"info")


def test_a_key_pair_follows_from_its_entropy() -> None:
    first, same = (new_kem_key(entropy_of(3, "key")) for _ in range(2))
    assert first.public == same.public
    assert unseal(same, seal(first.public, b"x", b""), b"") == b"x"
    assert new_kem_key(entropy_of(4, "key")).public != first.public
    assert len(first.public) == PUBLIC_BYTES


def test_a_public_key_of_another_length_is_malformed(key: KemKey) -> None:
    for public in (b"", key.public[:-1], key.public + b"\0", key.public[:MLKEM_BYTES]):
        with pytest.raises(Malformed, match=f"has {PUBLIC_BYTES} bytes, saw {len(public)}"):
            check_public(public)
        with pytest.raises(Malformed):
            seal(public, b"x", b"")


def test_lattice_coefficients_outside_the_field_are_malformed(key: KemKey) -> None:
    """FIPS 203, section 7.2: the modulus check on an encapsulation key."""
    public = b"\xff" * MLKEM_BYTES + key.public[MLKEM_BYTES:]
    with pytest.raises(Malformed, match="not a KEM key"):
        check_public(public)


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
def test_a_point_of_low_order_is_refused_when_the_key_is_read(key: KemKey, point: bytes) -> None:
    """Not first when another member seals to it: that would stop the epoch of all."""
    public = key.public[:MLKEM_BYTES] + point
    with pytest.raises(Malformed, match="low order"):
        check_public(public)
    with pytest.raises(Malformed):
        seal(public, b"x", b"")


@settings(deadline=None)
@given(changes=st.dictionaries(st.integers(0, PUBLIC_BYTES - 1), st.integers(0, 255), max_size=40))
def test_whatever_key_passes_the_check_can_be_sealed_to(
    key: KemKey, changes: dict[int, int]
) -> None:
    changed = bytearray(key.public)
    for at, byte in changes.items():
        changed[at] = byte
    public = bytes(changed)
    try:
        check_public(public)
    except Malformed:
        return
    assert len(seal(public, b"x", b"")) == OVERHEAD + 1
