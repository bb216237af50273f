"""A masked vector shows nothing; t answers lay the sum over the survivors bare, bit for bit."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError
from edgechoir.secagg.chains import pad_seed
from edgechoir.secagg.masking import expand_mask, mask_seeds, masked_blocks, sign, sum_seeds
from edgechoir.secagg.pads import BLOCK_BYTES, Keystream, add_pads
from edgechoir.types import Ring

CONTEXT = b"c" * 32
CHI_SQUARE_255 = (165.0, 361.0)
"""Bounds of a chi-square value of 255 degrees that hold but for about 5 in 100,000 seeds."""
WIDTHS = (np.dtype(np.uint16), np.dtype(np.uint32))
Width = np.dtype[np.uint16] | np.dtype[np.uint32]


def own(me: str) -> bytes:
    """A member's b."""
    return hashlib.sha256(f"b of {me}".encode()).digest()


def leaves_of(me: str, cohort: list[str]) -> dict[str, bytes]:
    """A leaf for each pair, the same from both ends."""
    return {
        them: hashlib.sha256("/".join(sorted([me, them])).encode()).digest()
        for them in cohort
        if them != me
    }


def masked(vector: Ring, me: str, cohort: list[str], keystream: Keystream = Keystream.AES) -> Ring:
    seeds = mask_seeds(me, own(me), leaves_of(me, cohort), CONTEXT)
    return vector + expand_mask(seeds, len(vector), vector.dtype, keystream)


def total(vectors: list[Ring]) -> Ring:
    out = np.zeros_like(vectors[0])
    for vector in vectors:
        out += vector
    return out


NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)


@settings(deadline=None, max_examples=80)
@given(
    cohort=st.lists(NAME, min_size=2, max_size=8, unique=True),
    width=st.sampled_from(WIDTHS),
    keystream=st.sampled_from(Keystream),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_the_sum_over_any_survivors_is_laid_bare_bit_for_bit(
    cohort: list[str], width: Width, keystream: Keystream, seed: int, data: st.DataObject
) -> None:
    block = BLOCK_BYTES // width.itemsize
    length = data.draw(st.one_of(st.integers(1, 200), st.sampled_from([block - 1, block + 1])))
    survivors = data.draw(
        st.lists(st.sampled_from(cohort), min_size=1, max_size=len(cohort), unique=True)
    )
    numbers = np.random.default_rng(seed)
    plain: dict[str, Ring] = {
        me: numbers.integers(0, np.iinfo(width).max, length, width, endpoint=True)
        for me in survivors
    }
    summed = total([masked(plain[me], me, cohort, keystream) for me in survivors])
    missing = {
        absent: {them: leaves_of(absent, cohort)[them] for them in survivors}
        for absent in cohort
        if absent not in survivors
    }
    seeds = sum_seeds({me: own(me) for me in survivors}, missing, CONTEXT)
    add_pads(summed, seeds, keystream)
    assert np.array_equal(summed, total(list(plain.values())))


def test_between_all_members_the_pads_of_the_pairs_cancel_alone() -> None:
    cohort = ["dev-1", "dev-2", "dev-3", "dev-4"]
    zeros = np.zeros(100, np.uint32)
    summed = total([masked(zeros, me, cohort) for me in cohort])
    assert np.array_equal(summed, total([pad(pad_seed(own(me), CONTEXT)) for me in cohort]))


def pad(seed: bytes, n: int = 100) -> Ring:
    out: Ring = np.zeros(n, np.uint32)
    add_pads(out, [(seed, 1)])
    return out


def test_a_mask_is_the_self_mask_and_a_pad_for_each_pair() -> None:
    """The lower id of a pair adds its pad, the other subtracts it."""
    leaves = leaves_of("dev-2", ["dev-1", "dev-2", "dev-3"])
    seeds = mask_seeds("dev-2", own("dev-2"), leaves, CONTEXT)
    below, above = (pad(pad_seed(leaves[them], CONTEXT)) for them in ("dev-1", "dev-3"))
    expected = pad(pad_seed(own("dev-2"), CONTEXT)) - below + above
    assert np.array_equal(expand_mask(seeds, 100, np.uint32, Keystream.AES), expected)
    assert (sign("dev-1", "dev-2"), sign("dev-2", "dev-1")) == (1, -1)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("keystream", Keystream)
@pytest.mark.parametrize("blocks", [0.0, 0.1, 1.0, 2.5])
def test_block_by_block_the_masked_vector_is_the_same(
    width: Width, keystream: Keystream, blocks: float
) -> None:
    """Whether the mask was made ahead or is made now."""
    length = int(blocks * BLOCK_BYTES // width.itemsize)
    vector: Ring = np.random.default_rng(1).integers(0, np.iinfo(width).max, length, width)
    vector.flags.writeable = False
    seeds = mask_seeds("me", own("me"), leaves_of("me", ["me", "dev-1"]), CONTEXT)
    mask = expand_mask(seeds, length, width, keystream)
    for ahead in (mask, None):
        pieces = [block.copy() for block in masked_blocks(vector, ahead, seeds, keystream)]
        together = np.concatenate([*pieces, np.zeros(0, width)])
        assert np.array_equal(together, vector + mask)
        assert all(piece.nbytes <= BLOCK_BYTES for piece in pieces)


def test_without_one_secret_the_sum_stays_hidden() -> None:
    """Each b, and each leaf of who is missing, is needed: what is left else is a pad."""
    cohort = ["dev-1", "dev-2", "dev-3", "dev-4"]
    survivors = cohort[:3]
    zeros = np.zeros(1000, np.uint32)
    summed = total([masked(zeros, me, cohort) for me in survivors])
    bs = {me: own(me) for me in survivors}
    missing = {"dev-4": {them: leaves_of("dev-4", cohort)[them] for them in survivors}}
    right = sum_seeds(bs, missing, CONTEXT)
    assert len(right) == 6
    for left_out in range(6):
        opened = summed.copy()
        add_pads(opened, right[:left_out] + right[left_out + 1 :])
        assert (opened != 0).mean() > 0.99


def test_under_another_context_nothing_cancels() -> None:
    cohort = ["dev-1", "dev-2"]
    zeros = np.zeros(1000, np.uint32)
    other = mask_seeds("dev-2", own("dev-2"), leaves_of("dev-2", cohort), b"d" * 32)
    summed = masked(zeros, "dev-1", cohort) + expand_mask(other, 1000, np.uint32, Keystream.AES)
    for context in (CONTEXT, b"d" * 32):
        opened = summed.copy()
        add_pads(opened, sum_seeds({me: own(me) for me in cohort}, {}, context))
        assert (opened != 0).mean() > 0.99


@pytest.mark.parametrize("value", [0, 1, 2**15, 2**16 - 1])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("keystream", Keystream)
def test_a_masked_constant_looks_uniform(value: int, width: Width, keystream: Keystream) -> None:
    """Chi-square on the bytes, and on each byte of an element by itself."""
    cohort = ["me", "dev-1", "dev-2", "dev-3"]
    constant: Ring = np.full(100_000, value, width)
    raw = masked(constant, "me", cohort, keystream).view(np.uint8)
    for part in (raw, *(raw[i :: width.itemsize] for i in range(width.itemsize))):
        expected = len(part) / 256
        counts = np.bincount(part, minlength=256)
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert CHI_SQUARE_255[0] < chi_square < CHI_SQUARE_255[1]


def test_masked_values_say_nothing_of_equal_or_close_plain_ones() -> None:
    """No correlation with the plain vector, and none between neighbours."""
    plain: Ring = np.arange(100_000, dtype=np.uint32)
    hidden = masked(plain, "me", ["me", "dev-1"]).astype(np.float64)
    assert abs(np.corrcoef(plain, hidden)[0, 1]) < 0.015
    assert abs(np.corrcoef(hidden[:-1], hidden[1:])[0, 1]) < 0.015


def test_a_vector_without_a_partner_is_not_masked() -> None:
    with pytest.raises(LocalError, match="needs partners"):
        mask_seeds("dev-1", bytes(32), {}, CONTEXT)


def test_a_member_is_no_partner_of_itself() -> None:
    with pytest.raises(LocalError, match="needs partners"):
        mask_seeds("dev-1", bytes(32), {"dev-1": bytes(32), "dev-2": bytes(32)}, CONTEXT)
