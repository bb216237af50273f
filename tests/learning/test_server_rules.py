"""Each rule of the root against its paper's formula in plain numpy, over rounds of masked sums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from edgechoir.errors import BadUpdate, OperatorError
from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.choose import RULES, make_rule
from edgechoir.learning.state import State
from edgechoir.learning.task import Task

if TYPE_CHECKING:
    from tests.learning.conftest import Summed

Vector = npt.NDArray[np.float64]
D, ROUNDS = 300, 12
COUNTS = [3, 50, 120, 7]
Moments = Callable[[Vector, Vector], Vector]


def plain_mean(deltas: Vector) -> Vector:
    """sum_i (n_i / n) delta_i."""
    return np.array(COUNTS) @ deltas / sum(COUNTS)


def fedavg(w: Vector, means: Iterator[Vector], rate: float) -> Vector:
    for mean in means:
        w = w + rate * mean
    return w


def fedavgm(w: Vector, means: Iterator[Vector], rate: float, momentum: float) -> Vector:
    v = np.zeros(D)
    for mean in means:
        v = momentum * v + mean
        w = w + rate * v
    return w


def adaptive(
    w: Vector, means: Iterator[Vector], rate: float, beta1: float, tau: float, second: Moments
) -> Vector:
    """Reddi et al. 2021, algorithm 2."""
    m, v = np.zeros(D), np.full(D, tau**2)
    for mean in means:
        m = beta1 * m + (1 - beta1) * mean
        v = second(v, mean**2)
        w = w + rate * m / (np.sqrt(v) + tau)
    return w


def adam(v: Vector, square: Vector) -> Vector:
    return 0.9 * v + 0.1 * square


def yogi(v: Vector, square: Vector) -> Vector:
    return v - 0.1 * square * np.sign(v - square)


def adagrad(v: Vector, square: Vector) -> Vector:
    return v + square


CASES: list[tuple[str, dict[str, Any], Callable[[Vector, Iterator[Vector]], Vector]]] = [
    ("fedavg", {"rate": 0.7}, lambda w, d: fedavg(w, d, 0.7)),
    ("fedprox", {"mu": 0.3}, lambda w, d: fedavg(w, d, 1.0)),
    ("fedavgm", {"rate": 0.5, "momentum": 0.8}, lambda w, d: fedavgm(w, d, 0.5, 0.8)),
    (
        "fedadam",
        {"rate": 0.05, "beta1": 0.8, "beta2": 0.9, "tau": 0.02},
        lambda w, d: adaptive(w, d, 0.05, 0.8, 0.02, adam),
    ),
    (
        "fedyogi",
        {"rate": 0.05, "beta1": 0.8, "beta2": 0.9, "tau": 0.02},
        lambda w, d: adaptive(w, d, 0.05, 0.8, 0.02, yogi),
    ),
    (
        "fedadagrad",
        {"rate": 0.05, "tau": 0.02},
        lambda w, d: adaptive(w, d, 0.05, 0.0, 0.02, adagrad),
    ),
]


@pytest.mark.parametrize(("name", "options", "plain"), CASES, ids=[case[0] for case in CASES])
def test_rounds_of_masked_sums_give_what_the_formula_gives(
    name: str,
    options: dict[str, Any],
    plain: Callable[[Vector, Iterator[Vector]], Vector],
    summed: Summed,
) -> None:
    chance = np.random.default_rng(5)
    first = chance.normal(0, 1, D).astype(np.float32)
    deltas = chance.normal(0, 0.1, (ROUNDS, len(COUNTS), D)).astype(np.float32)
    expected = plain(first.astype(np.float64), (plain_mean(each) for each in deltas))
    state, rule = State(first), make_rule(name, options)
    for each in deltas:
        rule, state = rule.following(state, summed(each, COUNTS))
    assert np.abs(state.weights - expected).max() < 2e-5
    assert np.abs(state.weights - first).max() > 0.05, "it has gone somewhere"


@pytest.mark.parametrize(("name", "options"), [case[:2] for case in CASES])
def test_a_process_that_starts_anew_goes_on_with_the_same_numbers(
    name: str, options: dict[str, Any], summed: Summed
) -> None:
    chance = np.random.default_rng(6)
    state, rule = State(chance.normal(0, 1, D).astype(np.float32)), make_rule(name, options)
    for seed in range(3):
        total = summed(chance.normal(0, 0.1, (4, D)).astype(np.float32), COUNTS, seed=seed)
        again = make_rule(name, options).recall(rule.remember())
        assert np.array_equal(
            again.following(state, total)[1].weights, rule.following(state, total)[1].weights
        )
        rule, state = rule.following(state, total)


def test_corrected_for_its_bias_the_first_mean_is_the_update() -> None:
    options = {"rate": 1.0, "beta1": 0.9, "beta2": 0.0, "tau": 1e-3}
    step = np.array([0.5, -0.25], np.float32)
    total = Total(step, 1, 1, 0.0, 0, None, None)
    plain = make_rule("fedadam", options)
    corrected = make_rule("fedadam", {**options, "correct_bias": True})
    first = State(np.zeros(2, np.float32))
    assert np.allclose(
        corrected.following(first, total)[1].weights, step / (np.abs(step) + 1e-3), rtol=1e-5
    )
    assert np.allclose(
        plain.following(first, total)[1].weights * 10,
        corrected.following(first, total)[1].weights,
        rtol=1e-5,
    )


def test_what_another_rule_remembered_is_not_taken_for_momentum() -> None:
    total = Total(np.ones(2, np.float32), 1, 1, 0.0, 0, None, None)
    first = State(np.zeros(2, np.float32))
    adam = make_rule("fedadam", {}).following(first, total)[0]
    fresh = make_rule("fedavgm", {})
    assert fresh.recall(adam.remember()) == fresh
    momentum = fresh.following(first, total)[0]
    assert make_rule("fedyogi", {}).recall(momentum.remember()).remember() == {}


@pytest.mark.parametrize("name", sorted(RULES.keys() - {"trees"}))
def test_no_rule_makes_a_model_of_what_is_not_finite(name: str) -> None:
    rule = make_rule(name, {})
    d = rule.coordinates(3)
    for bad in (np.nan, np.inf):
        total = Total(np.full(d, bad, np.float32), 1, 1, 0.0, 0, None, None)
        with pytest.raises(BadUpdate, match=r"not finite|effective steps"):
            rule.following(State(np.zeros(3, np.float32)), total)


@pytest.mark.parametrize("name", ["fedadam", "fedyogi", "fedadagrad"])
def test_a_square_beyond_float32_is_refused_and_not_remembered(name: str) -> None:
    total = Total(np.full(2, 1e21, np.float32), 1, 1, 0.0, 0, None, None)
    with pytest.raises(BadUpdate, match="not finite"):
        make_rule(name, {}).following(State(np.zeros(2, np.float32)), total)


def test_the_proximal_term_is_the_devices_part() -> None:
    assert make_rule("fedprox", {"mu": 0.25}).task() == Task("train", {"proximal": 0.25})
    assert make_rule("fedavgm", {}).task() == Task("train")


def test_a_rule_or_an_option_that_is_not_known_is_refused_by_name() -> None:
    with pytest.raises(OperatorError, match="'fedsgd' is not known; there are distil"):
        make_rule("fedsgd", {})
    with pytest.raises(OperatorError, match="momentun"):
        make_rule("fedavgm", {"momentun": 0.9})
