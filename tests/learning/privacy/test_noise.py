"""The noise has the distribution that the accounting supposes."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError
from edgechoir.learning.privacy.noise import Uniform, discrete_gaussian


def seeded(seed: int) -> Uniform:
    """Stands for the operating system's entropy, so that a test's verdict is always the same."""
    numbers = np.random.default_rng(seed)

    def uniform(n: int) -> npt.NDArray[np.uint64]:
        return numbers.integers(0, 2**64, n, np.uint64)

    return uniform


def expected(sigma: float, values: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The probabilities of the definition."""
    wide = np.arange(-int(20 * sigma) - 20, int(20 * sigma) + 21)
    weight = np.exp(-(wide**2) / (2 * sigma**2))
    found: npt.NDArray[np.float64] = np.exp(-(values**2) / (2 * sigma**2)) / weight.sum()
    return found


@pytest.mark.parametrize("sigma", [0.3, 0.5, 1.0, 2.7, 8.0])
def test_each_integer_comes_as_often_as_the_definition_says(sigma: float) -> None:
    """Pearson's chi-square over the values that are expected at least 20 times, at 1e-6."""
    n = 400_000
    draws = discrete_gaussian(sigma, n, seeded(1))
    values = np.arange(-int(6 * sigma) - 2, int(6 * sigma) + 3)
    p = expected(sigma, values)
    values, p = values[p * n >= 20], p[p * n >= 20]
    seen = np.array([(draws == v).sum() for v in values])
    chi_square = float((((seen - n * p) ** 2) / (n * p)).sum())
    freedom = len(values)
    # Wilson-Hilferty: the 1 - 1e-6 quantile of chi-square.
    bound = freedom * (1 - 2 / (9 * freedom) + 4.76 * np.sqrt(2 / (9 * freedom))) ** 3
    assert chi_square < bound


@pytest.mark.parametrize("sigma", [1.0, 50.0, 3e4, 1e9])
def test_moments_are_those_of_a_gaussian(sigma: float) -> None:
    n = 200_000
    draws = discrete_gaussian(sigma, n, seeded(2)).astype(np.float64) / sigma
    assert abs(draws.mean()) < 5 / np.sqrt(n)
    assert abs(draws.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((draws**4).mean() - 3) < 5 * np.sqrt(96 / n)


def test_a_sum_of_shares_is_one_gaussian_of_the_whole() -> None:
    """Kolmogorov and Smirnov against the normal with the summed variance, at 1e-6."""
    n, members, sigma = 100_000, 8, 25.0
    uniform = seeded(3)
    total = sum(discrete_gaussian(sigma, n, uniform) for _ in range(members))
    scaled = np.sort((total + uniform(n) * 2.0**-64 - 0.5) / (sigma * np.sqrt(members)))
    grid = np.linspace(-6, 6, 24_001)
    steps = np.exp(-(grid**2) / 2) * (grid[1] - grid[0]) / np.sqrt(2 * np.pi)
    normal = np.interp(scaled, grid, np.cumsum(steps) - steps / 2)
    gap = np.abs(normal - (np.arange(n) + 0.5) / n).max()
    assert gap < np.sqrt(np.log(2 / 1e-6) / (2 * n))


@settings(deadline=None, max_examples=50)
@given(sigma=st.floats(1e-3, 1e12), n=st.integers(0, 3000), seed=st.integers(0, 2**32))
def test_as_many_draws_come_as_were_asked_for(sigma: float, n: int, seed: int) -> None:
    draws = discrete_gaussian(sigma, n, seeded(seed))
    assert draws.shape == (n,)
    assert draws.dtype == np.int64
    assert np.abs(draws).max(initial=0) <= 12 * sigma + 1


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), 2.0**41])
def test_noise_that_makes_no_sense_is_refused(sigma: float) -> None:
    with pytest.raises(LocalError, match="noise with sigma"):
        discrete_gaussian(sigma, 3, seeded(0))
