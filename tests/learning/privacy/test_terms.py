"""A private round gives the mean of the clipped updates, under the noise that was promised."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Encoding
from edgechoir.learning.privacy.noise import Uniform
from edgechoir.learning.privacy.terms import EXTRAS, Terms, open_mean, protect
from edgechoir.types import Floats

D = 500
TERMS = Terms(bound=2.0, z=0.8)


def seeded(seed: int) -> Uniform:
    numbers = np.random.default_rng(seed)

    def uniform(n: int) -> npt.NDArray[np.uint64]:
        return numbers.integers(0, 2**64, n, np.uint64)

    return uniform


def encoding_for(terms: Terms, devices: int, bits: int = 32) -> Encoding:
    dimension = D + EXTRAS
    return Encoding(dimension, devices, terms.clip(dimension, devices, bits), 1, bits)


def mean_of(
    deltas: Floats, accuracies: list[float], honest: int, seed: int, bits: int = 32
) -> Floats:
    encoding = encoding_for(TERMS, len(deltas), bits)
    numbers = np.random.default_rng(seed)
    total = np.zeros(encoding.length, encoding.dtype)
    for delta, accuracy in zip(deltas, accuracies, strict=True):
        rounding = numbers.integers(0, 2**32, encoding.dimension, np.uint32)
        total += protect(delta, accuracy, TERMS, encoding, honest, rounding, seeded(seed))
        seed += 1
    return encoding.decode(total).delta


def test_the_noise_of_the_sum_is_what_was_promised_and_no_more_bias() -> None:
    """With eight members of whom four count as honest: z times the sensitivity, times root two."""
    deltas = np.zeros((8, D), np.float32)
    found = np.concatenate([mean_of(deltas, [0.5] * 8, 4, 100 * i)[:D] for i in range(20)]) * 8
    expected = TERMS.z * TERMS.norm * np.sqrt(8 / 4)
    assert found.std() == pytest.approx(expected, rel=0.03)
    assert abs(found.mean()) < 5 * expected / np.sqrt(len(found))


@pytest.mark.parametrize("bits", [16, 32])
def test_the_mean_is_that_of_the_clipped_updates_up_to_the_noise(bits: int) -> None:
    numbers = np.random.default_rng(5)
    deltas = numbers.normal(0, 0.3, (8, D)).astype(np.float32)
    deltas[:4] *= 0.01
    norms = np.linalg.norm(deltas, axis=1, keepdims=True)
    clipped = deltas * np.minimum(1, TERMS.bound / norms)
    mean = mean_of(deltas, [0.75] * 8, 8, 9, bits)
    opened = open_mean(mean, TERMS)
    deviation = TERMS.z * TERMS.norm / 8
    error = opened.delta - clipped.mean(0)
    assert error.std() < 1.3 * deviation
    assert abs(error.mean()) < 6 * deviation / np.sqrt(D)
    assert opened.within == pytest.approx(0.5, abs=6 * deviation / TERMS.bound / 0.5)
    assert opened.accuracy == pytest.approx(0.75, abs=6 * deviation / TERMS.bound / 0.5)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    bound=st.floats(1e-3, 1e3),
    z=st.floats(0.1, 10),
    devices=st.integers(2, 100),
    size=st.sampled_from([0.0, 1e-3, 1.0, 1e6]),
)
def test_no_member_s_vector_exceeds_its_sensitivity_or_its_share(
    seed: int, bound: float, z: float, devices: int, size: float
) -> None:
    terms = Terms(bound, z)
    encoding = encoding_for(terms, devices)
    numbers = np.random.default_rng(seed)
    delta = (numbers.normal(0, 1, D) * size).astype(np.float32)
    rounding = numbers.integers(0, 2**32, encoding.dimension, np.uint32)
    noisy = protect(delta, 1.0, terms, encoding, 1, rounding, seeded(seed))
    quiet = Terms(bound, 1e-9)  # the same vector, without the noise
    plain = protect(delta, 1.0, quiet, encoding, 1, rounding, seeded(seed))
    signed = plain[: encoding.dimension].view(np.int32).astype(np.float64)
    assert np.linalg.norm(signed) <= terms.sensitivity(encoding)
    encoding.within(noisy, 1)


def test_the_cost_of_a_round_is_that_of_its_multiplier() -> None:
    encoding = encoding_for(TERMS, 8)
    assert TERMS.cost(encoding, 5) == pytest.approx(1 / (2 * TERMS.z**2), rel=1e-6)


def test_a_ring_without_room_for_the_noise_is_refused() -> None:
    with pytest.raises(BadUpdate, match="do not fit into a ring of 16 bits"):
        Terms(1.0, 5.0).clip(1_000_000, 100, 16)
    narrow = Encoding(D + EXTRAS, 8, 1.0, 1)
    with pytest.raises(BadUpdate, match="has no room for noise"):
        protect(
            np.zeros(D, np.float32),
            0.5,
            Terms(1.0, 1.0),
            narrow,
            1,
            np.zeros(D + EXTRAS, np.uint32),
            seeded(0),
        )


def test_members_that_would_weigh_more_are_refused() -> None:
    heavy = Encoding(D + EXTRAS, 8, 100.0, 50)
    with pytest.raises(BadUpdate, match="weighs all alike"):
        protect(
            np.zeros(D, np.float32),
            0.5,
            TERMS,
            heavy,
            4,
            np.zeros(D + EXTRAS, np.uint32),
            seeded(0),
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_update_that_is_not_finite_never_leaves(bad: float) -> None:
    delta = np.zeros(D, np.float32)
    delta[3] = bad
    encoding = encoding_for(TERMS, 8)
    zeros = np.zeros(D + EXTRAS, np.uint32)
    with pytest.raises(BadUpdate, match="finite"):
        protect(delta, 0.5, TERMS, encoding, 4, zeros, seeded(0))
