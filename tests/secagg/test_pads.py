"""A pad is the plain keystream of its seed, whatever the length of the vector and the ring."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.secagg import pads
from edgechoir.secagg.pads import BLOCK_BYTES, Keystream, Pads, add_pads, uniform
from edgechoir.types import Ring

SEED = bytes(range(32))
WIDTHS = (np.dtype(np.uint16), np.dtype(np.uint32))
Width = np.dtype[np.uint16] | np.dtype[np.uint32]


def lengths(width: Width) -> list[int]:
    block = BLOCK_BYTES // width.itemsize
    return [0, 1, 2, 3, 5, 31, 33, block - 1, block, block + 1, 2 * block, 3 * block + 7]


EDGES = [pytest.param(w, n, id=f"{w}-{n}") for w in WIDTHS for n in lengths(w)]


def plain(seed: bytes, n: int, width: Width, keystream: Keystream = Keystream.AES) -> Ring:
    """`n` ring elements of the keystream, enciphered at once. GCM begins to encipher at 2."""
    if keystream is Keystream.AES:
        cipher = Cipher(AES256(seed), CTR(bytes(15) + b"\2")).encryptor()
    else:
        cipher = Cipher(ChaCha20(seed, bytes(16)), None).encryptor()
    raw = cipher.update(bytes(width.itemsize * n))
    if width.itemsize == 2:
        return np.frombuffer(raw, "<u2").astype(np.uint16)
    return np.frombuffer(raw, "<u4").astype(np.uint32)


@pytest.fixture(params=[True, False], ids=["wide AES", "plain AES"])
def either_aes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to the same keystream, whichever this processor would choose."""
    monkeypatch.setattr(pads, "WIDE_AES", request.param)


@pytest.mark.usefixtures("either_aes")
@pytest.mark.parametrize("keystream", Keystream)
@pytest.mark.parametrize(("width", "n"), EDGES)
def test_a_pad_is_the_plain_keystream_across_every_block_boundary(
    width: Width, n: int, keystream: Keystream
) -> None:
    vector: Ring = np.zeros(n, width)
    add_pads(vector, [(SEED, 1)], keystream)
    assert np.array_equal(vector, plain(SEED, n, width, keystream))


@pytest.mark.parametrize(("width", "n"), EDGES)
def test_adding_and_subtracting_a_pad_restores_the_vector(width: Width, n: int) -> None:
    vector = plain(b"v" * 32, n, width)
    padded = vector.copy()
    add_pads(padded, [(SEED, 1)])
    assert n == 0 or not np.array_equal(padded, vector)
    add_pads(padded, [(SEED, -1)])
    assert np.array_equal(padded, vector)


@settings(deadline=None)
@given(
    seeds=st.lists(
        st.tuples(st.binary(min_size=32, max_size=32), st.sampled_from([1, -1])), max_size=6
    ),
    n=st.one_of(st.integers(0, 300), st.just(BLOCK_BYTES // 4 + 3)),
    keystream=st.sampled_from(Keystream),
    width=st.sampled_from(WIDTHS),
)
def test_several_pads_at_once_are_each_pad_in_turn(
    seeds: list[tuple[bytes, int]], n: int, keystream: Keystream, width: Width
) -> None:
    together: Ring = np.zeros(n, width)
    add_pads(together, seeds, keystream)
    one_by_one: Ring = np.zeros(n, width)
    for seed, sign in seeds:
        pad = plain(seed, n, width, keystream)
        one_by_one = one_by_one + pad if sign > 0 else one_by_one - pad
    assert np.array_equal(together, one_by_one)


@pytest.mark.usefixtures("either_aes")
@pytest.mark.parametrize("keystream", Keystream)
@pytest.mark.parametrize("width", WIDTHS)
def test_pads_taken_in_pieces_are_the_pads_taken_at_once(
    width: Width, keystream: Keystream
) -> None:
    seeds = [(SEED, 1), (b"s" * 32, -1), (b"t" * 32, 1)]
    block = BLOCK_BYTES // width.itemsize
    vector = plain(b"v" * 32, 3 * block + 9, width)
    whole = vector.copy()
    add_pads(whole, seeds, keystream)
    pieces, source = Pads(seeds, keystream), np.zeros_like(vector)
    for start in (0, block, 2 * block, 3 * block):
        part = slice(start, start + block)
        pieces.add(vector[part], source[part])
    assert np.array_equal(source, whole)


def test_a_sum_can_be_written_beside_the_vector() -> None:
    vector = plain(b"v" * 32, 1000, np.dtype(np.uint32))
    before, out = vector.copy(), np.zeros(1000, np.uint32)
    add_pads(vector, [(SEED, 1)], out=out)
    assert np.array_equal(vector, before)
    add_pads(vector, [(SEED, 1)])
    assert np.array_equal(out, vector)


@pytest.mark.parametrize("n", [0, 7, BLOCK_BYTES])
def test_no_pads_leave_a_vector_as_it_is(n: int) -> None:
    vector = plain(b"v" * 32, n, np.dtype(np.uint32))
    out: Ring = np.ones(n, np.uint32)
    add_pads(vector, [], out=out)
    assert np.array_equal(out, vector)
    Pads([], Keystream.AES).add(None, out)
    assert not out.any()


def test_the_two_ciphers_give_different_pads() -> None:
    aes, chacha = np.zeros(100, np.uint32), np.zeros(100, np.uint32)
    add_pads(aes, [(SEED, 1)], Keystream.AES)
    add_pads(chacha, [(SEED, 1)], Keystream.CHACHA)
    assert (aes != chacha).all()


@pytest.mark.parametrize("width", WIDTHS)
def test_sums_wrap_in_the_ring(width: Width) -> None:
    vector: Ring = np.full(10, np.iinfo(width).max, width)
    add_pads(vector, [(SEED, 1)])
    one: Ring = np.ones(10, width)
    assert np.array_equal(vector, plain(SEED, 10, width) - one)


def test_a_pad_is_written_into_the_vector_given_and_nowhere_else() -> None:
    block = BLOCK_BYTES // 4
    vector = np.zeros(2 * block, np.uint32)
    add_pads(vector[10 : block + 20], [(SEED, 1)])
    assert np.array_equal(vector[10 : block + 20], plain(SEED, block + 10, np.dtype(np.uint32)))
    assert not vector[:10].any()
    assert not vector[block + 20 :].any()


def test_uniform_elements_are_the_pad_of_their_seed() -> None:
    assert np.array_equal(uniform(SEED, 1000), plain(SEED, 1000, np.dtype(np.uint32)))


@pytest.mark.parametrize("length", [0, 16, 31, 33])
@pytest.mark.parametrize("keystream", Keystream)
def test_a_seed_has_256_bits(keystream: Keystream, length: int) -> None:
    with pytest.raises(ValueError, match="key"):
        add_pads(np.zeros(4, np.uint32), [(bytes(length), 1)], keystream)
