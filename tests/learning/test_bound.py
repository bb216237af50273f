"""An update is never longer than allowed, and keeps its direction."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadUpdate
from edgechoir.learning.bound import cut_to


@given(st.integers(0, 2**32), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_a_longer_update_is_scaled_and_a_shorter_one_left(
    seed: int, most: float, size: float
) -> None:
    delta = np.random.default_rng(seed).normal(0, size, 50).astype(np.float32)
    cut = cut_to(delta, most)
    norm = np.linalg.norm(delta)
    assert np.linalg.norm(cut) <= most * (1 + 1e-5)
    if norm <= most:
        assert cut is delta
    else:
        assert np.allclose(cut / np.linalg.norm(cut), delta / norm, atol=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(BadUpdate, match="not finite"):
        cut_to(np.array([1, bad], np.float32), 1.0)
