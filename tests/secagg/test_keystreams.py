"""Both keystreams give their published answers, and AES the same bytes by either of its ways."""

import numpy as np
import pytest

from edgechoir.secagg import pads
from edgechoir.secagg.pads import BLOCK_BYTES, WIDE_AES, Keystream, add_pads
from edgechoir.types import Ring

KNOWN = {
    # McGrew and Viega, "The Galois/Counter Mode of Operation", test case 14.
    Keystream.AES: "cea7403d4d606b6e074ec5d3baf39d18",
    # RFC 8439, A.1, test vector 1.
    Keystream.CHACHA: "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7",
}
LENGTHS = [1, 4, 15, 1000, BLOCK_BYTES // 4, 3 * BLOCK_BYTES // 4 + 5]


def pad(seed: bytes, n: int, keystream: Keystream) -> Ring:
    out: Ring = np.zeros(n, np.uint32)
    add_pads(out, [(seed, 1)], keystream)
    return out


@pytest.mark.parametrize("keystream", Keystream)
@pytest.mark.parametrize("wide", [False, True])
def test_the_pad_of_a_zero_seed_is_the_published_keystream(
    keystream: Keystream, wide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pads, "WIDE_AES", wide)
    known = bytes.fromhex(KNOWN[keystream])
    assert pad(bytes(32), len(known) // 4, keystream).astype("<u4").tobytes() == known


@pytest.mark.parametrize("n", LENGTHS)
def test_processors_with_and_without_wide_aes_make_the_same_pad(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pads, "WIDE_AES", True)
    wide = pad(bytes(range(32)), n, Keystream.AES)
    monkeypatch.setattr(pads, "WIDE_AES", False)
    assert np.array_equal(pad(bytes(range(32)), n, Keystream.AES), wide)


def test_numpy_still_says_what_the_processor_has() -> None:
    """Else every processor would count as one without wide AES, and only time would tell."""
    assert pads._FEATURES
    assert isinstance(WIDE_AES, bool)


def test_pads_go_on_where_the_block_before_ended() -> None:
    seeds = [(bytes(range(32)), 1), (bytes(32), -1)]
    length = 2 * BLOCK_BYTES // 4 + 9
    whole: Ring = np.zeros(length, np.uint32)
    add_pads(whole, seeds)
    pieces: Ring = np.zeros(length, np.uint32)
    going = pads.Pads(seeds, Keystream.AES)
    for start in range(0, length, BLOCK_BYTES // 4):
        part = pieces[start : start + BLOCK_BYTES // 4]
        going.add(part, part)
    assert np.array_equal(pieces, whole)


def test_a_sum_written_elsewhere_leaves_the_vector_as_it_was() -> None:
    vector: Ring = np.arange(BLOCK_BYTES // 4 + 3, dtype=np.uint32)
    vector.flags.writeable = False
    out: Ring = np.empty_like(vector)
    add_pads(vector, [(bytes(32), 1)], Keystream.AES, out)
    assert np.array_equal(out - vector, pad(bytes(32), len(vector), Keystream.AES))
    add_pads(vector, [], Keystream.AES, out)
    assert np.array_equal(out, vector)
