"""No update is longer than its bound, and the bound follows the updates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.learning.privacy.clipping import LEAST, clip_norm, next_bound


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), length=st.integers(1, 500), bound=st.floats(1e-3, 1e3))
def test_a_clipped_vector_keeps_its_direction_and_the_bound(
    seed: int, length: int, bound: float
) -> None:
    vector = np.random.default_rng(seed).normal(0, 1, length).astype(np.float32)
    clipped, within = clip_norm(vector, bound)
    norm = np.linalg.norm(vector.astype(np.float64))
    assert within == (norm <= bound)
    assert np.linalg.norm(clipped.astype(np.float64)) <= bound
    assert np.allclose(clipped / np.linalg.norm(clipped), vector / norm, atol=1e-5)


def test_the_bound_finds_the_median_of_the_norms() -> None:
    norms = np.random.default_rng(4).lognormal(1.0, 0.5, 400)
    bound = 0.1
    for _ in range(300):
        bound = next_bound(bound, float((norms <= bound).mean()), 0.5, 0.2, 100.0)
    assert bound == pytest.approx(float(np.median(norms)), rel=0.05)


def test_noise_beyond_what_a_share_can_be_moves_the_bound_no_further() -> None:
    assert next_bound(1.0, 7.0, 0.5, 0.2, 9.0) == next_bound(1.0, 1.0, 0.5, 0.2, 9.0)
    assert next_bound(1.0, -7.0, 0.5, 0.2, 9.0) == next_bound(1.0, 0.0, 0.5, 0.2, 9.0)


def test_the_bound_grows_up_to_its_end_and_never_vanishes() -> None:
    high = low = 1.0
    for _ in range(500):
        high = next_bound(high, 0.0, 0.5, 0.2, 3.0)
        low = next_bound(low, 1.0, 0.5, 0.2, 3.0)
    assert high == 3.0
    assert low == LEAST
