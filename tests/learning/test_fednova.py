"""FedNova against its paper in plain numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.fednova import FedNova, effective_steps, normalised
from edgechoir.learning.state import State

if TYPE_CHECKING:
    from tests.learning.conftest import Summed

D = 200
COUNTS = [30, 50, 120, 200]
STEPS = [3, 40, 7, 100]


def test_a_round_of_masked_sums_gives_what_the_formula_gives(summed: Summed) -> None:
    chance = np.random.default_rng(1)
    w = chance.normal(0, 1, D).astype(np.float32)
    deltas = chance.normal(0, 0.05, (4, D)).astype(np.float32)
    p = np.array(COUNTS) / sum(COUNTS)
    tau = np.array(STEPS)
    plain = w + (p @ tau) * (p @ (deltas / tau[:, None]))

    rule = FedNova(clip=1.0, unit=2, most=1000.0)
    parts = [
        normalised(d, n, rule.clip, rule.unit, rule.most)
        for d, n in zip(deltas, STEPS, strict=True)
    ]
    state = rule.following(State(w), summed(np.array(parts), COUNTS))[1]
    assert np.abs(state.weights - plain).max() < 1e-5
    assert rule.coordinates(D) == D + 1


@given(st.integers(1, 300), st.floats(0, 0.95))
def test_effective_steps_with_momentum_are_the_papers(steps: int, momentum: float) -> None:
    gone = momentum * (1 - momentum**steps) / (1 - momentum)
    expected = (steps - gone) / (1 - momentum)
    assert effective_steps(steps, 0.1, momentum) == pytest.approx(expected)


@given(st.integers(1, 300), st.floats(0.01, 0.5), st.floats(0.01, 1.9))
def test_effective_steps_with_a_proximal_term_are_the_papers(
    steps: int, rate: float, mu: float
) -> None:
    alpha = rate * mu
    expected = (1 - (1 - alpha) ** steps) / alpha
    assert effective_steps(steps, rate, mu=mu) == pytest.approx(expected)


def test_plain_steps_count_one_each_and_no_more_than_the_most() -> None:
    assert effective_steps(17, 0.3) == 17
    delta = np.ones(2, np.float32)
    assert np.allclose(normalised(delta, 50, 2.0, 5, 100.0), [0.1, 0.1, 1.0])
    assert np.allclose(normalised(delta, 500, 2.0, 5, 100.0), [0.05, 0.05, 2.0])


@pytest.mark.parametrize("tau", [0.0, -0.5, 1.5, np.nan])
def test_a_mean_of_steps_that_cannot_be_is_refused(tau: float) -> None:
    total = Total(np.array([0.1, tau], np.float32), 1, 1, 0.0, 0, None, None)
    with pytest.raises(BadUpdate, match="effective steps"):
        FedNova().following(State(np.zeros(1, np.float32)), total)


def test_devices_with_more_steps_do_not_pull_harder(summed: Summed) -> None:
    """Two devices of the same weight, one-dimensional bowls at -1 and 1, 2 steps against 30."""
    optima, steps, eta = [-1.0, 1.0], [2, 30], 0.02
    nova, average = State(np.zeros(1, np.float32)), State(np.zeros(1, np.float32))
    rule = FedNova(clip=1.0, unit=1, most=100.0)

    def walked(w: float) -> list[float]:
        return [(a - w) * (1 - (1 - eta) ** k) for a, k in zip(optima, steps, strict=True)]

    for seed in range(60):
        deltas = walked(float(nova.weights[0]))
        parts = [
            normalised(np.array([d], np.float32), k, 1.0, 1, 100.0)
            for d, k in zip(deltas, steps, strict=True)
        ]
        nova = rule.following(nova, summed(np.array(parts), [10, 10], seed=seed))[1]
        plain = np.array([[d] for d in walked(float(average.weights[0]))], np.float32)
        mean = summed(plain, [10, 10], seed=seed).delta
        average = State(average.weights + mean)
    assert abs(float(nova.weights[0])) < 0.2  # its own 30 steps get shorter towards their optimum
    assert float(average.weights[0]) > 0.8
