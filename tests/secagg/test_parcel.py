"""A parcel opens for its reader alone, under its info alone, and only whole."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError, Malformed
from edgechoir.secagg.parcel import BOX_BYTES, TAG_BYTES, Parcel, open_parcel
from edgechoir.secagg.sealing import new_kem_key


def entropy(n: int) -> bytes:
    return hashlib.shake_256(b"parcels").digest(n)


KEY = new_kem_key(entropy)
OTHER = new_kem_key(lambda n: hashlib.shake_256(b"other").digest(n))


def parcel_of(*pieces: bytes, info: bytes = b"turn 1") -> bytes:
    parcel = Parcel(KEY.public, sum(map(len, pieces)), info, entropy)
    for piece in pieces:
        parcel.write(piece)
    return bytes(parcel.close())


@settings(deadline=None, max_examples=20)
@given(st.lists(st.binary(max_size=200), max_size=5))
def test_what_was_written_in_pieces_is_read_as_one(pieces: list[bytes]) -> None:
    text = open_parcel(KEY, parcel_of(*pieces), b"turn 1")
    assert text == b"".join(pieces)
    assert not text.readonly


def test_a_parcel_is_as_long_as_it_says() -> None:
    assert len(parcel_of(b"x" * 100)) == BOX_BYTES + 100 + TAG_BYTES


def test_another_key_or_info_does_not_open_it() -> None:
    parcel = parcel_of(b"text")
    with pytest.raises(Malformed, match="does not open"):
        open_parcel(OTHER, parcel, b"turn 1")
    with pytest.raises(Malformed, match="does not open"):
        open_parcel(KEY, parcel, b"turn 2")


@pytest.mark.parametrize("at", [0, 1100, BOX_BYTES - 1, BOX_BYTES, BOX_BYTES + 3, -1])
def test_a_changed_byte_anywhere_closes_it(at: int) -> None:
    changed = bytearray(parcel_of(b"text"))
    changed[at] ^= 1
    with pytest.raises(Malformed, match="does not open"):
        open_parcel(KEY, bytes(changed), b"turn 1")


@pytest.mark.parametrize("length", [0, 10, BOX_BYTES, BOX_BYTES + TAG_BYTES - 1])
def test_what_is_too_short_is_none(length: int) -> None:
    with pytest.raises(Malformed, match="a parcel has at least"):
        open_parcel(KEY, parcel_of(b"text")[:length], b"turn 1")


def test_a_cut_text_does_not_open() -> None:
    with pytest.raises(Malformed, match="not intact"):
        open_parcel(KEY, parcel_of(b"text")[:-1], b"turn 1")


def test_more_or_less_text_than_was_said_is_our_fault() -> None:
    parcel = Parcel(KEY.public, 4, b"turn 1", entropy)
    parcel.write(b"tex")
    with pytest.raises(LocalError, match="1 bytes are not written"):
        parcel.close()
    with pytest.raises(LocalError, match="1 bytes longer than was said"):
        parcel.write(b"ts")
