"""A pad is the AES-256-CTR keystream of its seed, whatever the length of the vector."""

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.secagg.pads import BLOCK, add_pad, stream
from edgechoir.types import Ring

SEED = bytes(range(32))
EDGES = [0, 1, 2, 3, 4, 5, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 7]


def keystream(seed: bytes, n: int) -> Ring:
    """`n` ring elements of AES-256-CTR, enciphered at once."""
    raw = Cipher(AES256(seed), CTR(bytes(16))).encryptor().update(bytes(4 * n))
    return np.frombuffer(raw, "<u4").astype(np.uint32)


@pytest.mark.parametrize("n", EDGES)
def test_a_pad_is_the_plain_keystream_across_every_block_boundary(n: int) -> None:
    assert np.array_equal(stream(SEED, n), keystream(SEED, n))


@pytest.mark.parametrize("n", EDGES)
def test_adding_and_subtracting_a_pad_restores_the_vector(n: int) -> None:
    vector = keystream(b"v" * 32, n)
    padded = vector.copy()
    add_pad(padded, SEED, 1)
    assert n == 0 or not np.array_equal(padded, vector)
    add_pad(padded, SEED, -1)
    assert np.array_equal(padded, vector)


@settings(deadline=None)
@given(n=st.integers(0, 300), seed=st.binary(min_size=32, max_size=32))
def test_a_shorter_pad_is_the_beginning_of_a_longer_one(n: int, seed: bytes) -> None:
    assert np.array_equal(stream(seed, n), stream(seed, 300)[:n])


def test_sums_wrap_in_the_ring() -> None:
    vector = np.full(10, 2**32 - 1, np.uint32)
    add_pad(vector, SEED, 1)
    assert np.array_equal(vector, keystream(SEED, 10) - np.uint32(1))


def test_a_pad_is_written_into_the_vector_given() -> None:
    vector = np.zeros(2 * BLOCK, np.uint32)
    inner = vector[10 : BLOCK + 20]
    add_pad(inner, SEED, 1)
    assert np.array_equal(vector[10 : BLOCK + 20], keystream(SEED, BLOCK + 10))
    assert not vector[:10].any()
    assert not vector[BLOCK + 20 :].any()


@pytest.mark.parametrize("length", [0, 16, 31, 33])
def test_a_seed_has_256_bits(length: int) -> None:
    with pytest.raises(ValueError, match="key"):
        stream(bytes(length), 4)
