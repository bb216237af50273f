"""The masks of a cohort cancel, bit for bit; a single masked vector shows nothing."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError
from edgechoir.secagg.masking import mask
from edgechoir.secagg.pads import BLOCK, stream
from edgechoir.types import Ring

CHI_SQUARE_255 = (165.0, 361.0)
"""Bounds of a chi-square value of 255 degrees that hold but for about 5 in 100,000 seeds."""


def seeds_of(me: str, cohort: list[str]) -> dict[str, bytes]:
    """A pad seed for each pair, the same from both ends."""
    return {
        them: hashlib.sha256("/".join(sorted([me, them])).encode()).digest()
        for them in cohort
        if them != me
    }


def total(vectors: list[Ring]) -> Ring:
    out = np.zeros(len(vectors[0]), np.uint32)
    for vector in vectors:
        out += vector
    return out


@settings(deadline=None, max_examples=60)
@given(
    cohort=st.lists(
        st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8),
        min_size=2,
        max_size=8,
        unique=True,
    ),
    length=st.one_of(st.integers(1, 200), st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1])),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_masked_vectors_of_a_cohort_add_up_to_the_plain_sum(
    cohort: list[str], length: int, seed: int
) -> None:
    numbers = np.random.default_rng(seed)
    plain = [numbers.integers(0, 2**32, length, np.uint32) for _ in cohort]
    masked = [
        mask(vector, me, seeds_of(me, cohort)) for me, vector in zip(cohort, plain, strict=True)
    ]
    assert np.array_equal(total(masked), total(plain))


def test_the_order_in_which_partners_are_named_changes_nothing() -> None:
    cohort = ["dev-1", "dev-2", "dev-3", "dev-4"]
    seeds = seeds_of("dev-2", cohort)
    vector = np.arange(50, dtype=np.uint32)
    backwards = dict(reversed(seeds.items()))
    assert np.array_equal(mask(vector, "dev-2", seeds), mask(vector, "dev-2", backwards))


def test_the_lower_id_adds_and_the_higher_subtracts() -> None:
    zeros, seed = np.zeros(9, np.uint32), bytes(range(32))
    assert np.array_equal(mask(zeros, "dev-1", {"dev-2": seed}), stream(seed, 9))
    assert np.array_equal(mask(zeros, "dev-2", {"dev-1": seed}), zeros - stream(seed, 9))


def test_a_proper_subset_of_the_cohort_does_not_add_up() -> None:
    cohort = ["dev-1", "dev-2", "dev-3", "dev-4"]
    plain = {me: np.full(100, i, np.uint32) for i, me in enumerate(cohort)}
    masked = {me: mask(vector, me, seeds_of(me, cohort)) for me, vector in plain.items()}
    for missing in cohort:
        there = [me for me in cohort if me != missing]
        wrong = total([masked[me] for me in there]) != total([plain[me] for me in there])
        assert wrong.mean() > 0.9


@pytest.mark.parametrize("value", [0, 1, 2**31, 2**32 - 1])
@pytest.mark.parametrize("partners", [1, 3])
def test_a_masked_constant_looks_uniform(value: int, partners: int) -> None:
    """Chi-square on the bytes, and on each of the four bytes of an element."""
    cohort = ["me", *(f"dev-{i}" for i in range(partners))]
    masked = mask(np.full(100_000, value, np.uint32), "me", seeds_of("me", cohort))
    raw = masked.astype("<u4").view(np.uint8)
    for part in (raw, *(raw[i::4] for i in range(4))):
        expected = len(part) / 256
        counts = np.bincount(part, minlength=256)
        chi_square = float(((counts - expected) ** 2 / expected).sum())
        assert CHI_SQUARE_255[0] < chi_square < CHI_SQUARE_255[1]


def test_masked_values_say_nothing_of_equal_or_close_plain_ones() -> None:
    """No correlation with the plain vector, and none between neighbours."""
    plain = np.arange(100_000, dtype=np.uint32)
    masked = mask(plain, "me", seeds_of("me", ["me", "dev-1"])).astype(np.float64)
    assert abs(np.corrcoef(plain, masked)[0, 1]) < 0.015
    assert abs(np.corrcoef(masked[:-1], masked[1:])[0, 1]) < 0.015


def test_the_plain_vector_is_left_as_it_was() -> None:
    vector = np.arange(20, dtype=np.uint32)
    vector.flags.writeable = False
    masked = mask(vector, "dev-1", seeds_of("dev-1", ["dev-1", "dev-2"]))
    assert np.array_equal(vector, np.arange(20))
    assert not np.shares_memory(masked, vector)


def test_a_vector_without_a_partner_does_not_leave() -> None:
    with pytest.raises(LocalError, match="no partner"):
        mask(np.zeros(3, np.uint32), "dev-1", {})


def test_a_member_is_no_partner_of_itself() -> None:
    with pytest.raises(LocalError, match="dev-1 cannot share a pad with itself"):
        mask(np.zeros(3, np.uint32), "dev-1", {"dev-1": bytes(32), "dev-2": bytes(32)})
