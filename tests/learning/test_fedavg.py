"""The next model is the old one plus the mean update, or none at all."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Encoding, Figures, Total
from edgechoir.learning.rules.fedavg import FedAvg
from edgechoir.learning.state import State
from edgechoir.types import Floats


def fedavg(weights: Floats, mean: Floats, rate: float = 1.0) -> Floats:
    """What FedAvg makes of a model and a mean update."""
    total = Total(mean, 1, 1, 0.0, 0, None, None)
    return FedAvg(rate).following(State(weights), total)[1].weights


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), d=st.integers(1, 200), scale=st.sampled_from([1e-6, 1.0, 1e6]))
def test_weights_and_mean_update_are_added(seed: int, d: int, scale: float) -> None:
    numbers = np.random.default_rng(seed)
    weights = numbers.normal(0, 1, d).astype(np.float32)
    mean = numbers.normal(0, scale, d).astype(np.float32)
    following = fedavg(weights, mean)
    assert following.dtype == np.float32
    assert np.array_equal(following, (weights.astype(np.float64) + mean).astype(np.float32))


def test_the_weights_given_are_left_as_they_were() -> None:
    weights, mean = np.ones(3, np.float32), np.full(3, 0.5, np.float32)
    weights.flags.writeable = mean.flags.writeable = False
    assert np.array_equal(fedavg(weights, mean), np.full(3, 1.5, np.float32))


def test_a_whole_round_gives_the_fedavg_of_plain_numpy() -> None:
    """McMahan et al. 2017, algorithm 1, in float64 and without any code, against encoded sums."""
    numbers = np.random.default_rng(11)
    d, counts = 1000, [3, 50, 120, 7]
    weights = numbers.normal(0, 1, d).astype(np.float32)
    deltas = numbers.normal(0, 0.1, (4, d)).astype(np.float32)
    plain = weights + np.array(counts) @ deltas.astype(np.float64) / sum(counts)

    encoding = Encoding(d, 4, 1.0, 200)
    total = np.zeros(encoding.length, np.uint32)
    for delta, n in zip(deltas, counts, strict=True):
        total += encoding.encode(delta, n, Figures(), numbers.integers(0, 2**32, d, np.uint32))
    following = fedavg(weights, encoding.decode(total).delta)
    assert np.abs(following - plain).max() < 1e-6


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_never_become_a_model(bad: float) -> None:
    good, broken = np.ones(3, np.float32), np.array([1, bad, 1], np.float32)
    for weights, mean in ((good, broken), (broken, good)):
        with pytest.raises(BadUpdate, match="not finite"):
            fedavg(weights, mean)


def test_a_sum_beyond_float32_never_becomes_a_model() -> None:
    largest = np.full(2, np.finfo(np.float32).max, np.float32)
    with pytest.raises(BadUpdate, match="not finite"):
        fedavg(largest, largest)
