"""A few bad cohorts do not carry the model away, and each estimate is what the paper says."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Encoding, Figures, Total
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.krum import scores
from edgechoir.learning.rules.robust import Robust, make_robust
from edgechoir.learning.slots import decode_apart, place, slots
from edgechoir.learning.state import State

D = 9
CODE = Encoding(D, 64, 20.0, 100)
STEP = 2 * CODE.clip / CODE.share * 100
"""More than rounding moves a coordinate of a cohort's mean, whatever its weights are."""
Vector = npt.NDArray[np.float64]


def cohorts(updates: Vector, sizes: list[int]) -> Total:
    """One total of cohorts of two devices with the same update, through slots."""
    numbers = np.random.default_rng(0)
    k = len(updates)
    whole = np.zeros(k * CODE.length, np.uint32)
    for at, (update, n) in enumerate(zip(updates, sizes, strict=True)):
        for _ in range(2):
            noise = numbers.integers(0, 2**32, D, np.uint32)
            vector = CODE.encode(update.astype(np.float32), n, Figures(n, n // 2, 0.5 * n), noise)
            whole += place(vector, at, k)
    return decode_apart(CODE, whole, k)


def draw(k: int, seed: int = 1) -> Vector:
    return np.random.default_rng(seed).normal(0, 1, (k, D))


def moved(rule: Robust, total: Total) -> npt.NDArray[np.float32]:
    _, state = rule.following(State(np.zeros(D, np.float32)), total)
    return state.weights


# ---- slots


@given(k=st.integers(1, 7), at=st.integers(0, 6), n=st.integers(1, 5))
def test_a_vector_stands_in_its_slot_and_nowhere_else(k: int, at: int, n: int) -> None:
    vector = np.arange(1, n + 1, dtype=np.uint32)
    placed = slots(place(vector, at % k, k), k)
    for i, own in enumerate(placed):
        assert np.array_equal(own, vector if i == at % k else np.zeros(n, np.uint32))


def test_the_pooled_total_is_that_of_one_sum() -> None:
    updates, sizes = draw(4), [10, 20, 30, 100]
    total = cohorts(updates, sizes)
    assert [one.samples for one in total.cohorts] == [2 * n for n in sizes]
    assert total.devices == 8
    assert total.samples == 320
    np.testing.assert_allclose(total.delta, np.average(updates, 0, sizes), atol=STEP)
    for one, update in zip(total.cohorts, updates, strict=True):
        np.testing.assert_allclose(one.delta, update, atol=STEP)


def test_an_empty_slot_is_no_cohort() -> None:
    one = CODE.encode(np.ones(D, np.float32), 5, Figures(), np.zeros(D, np.uint32))
    assert len(decode_apart(CODE, place(one, 2, 4), 4).cohorts) == 1
    with pytest.raises(BadUpdate, match="all slots are empty"):
        decode_apart(CODE, np.zeros(4 * CODE.length, np.uint32), 4)
    with pytest.raises(BadUpdate, match="has no 4 slots"):
        slots(np.zeros(7, np.uint32), 4)


# ---- each estimate against plain numpy


def krum_by_hand(updates: Vector, f: int) -> list[float]:
    n = len(updates)
    found = []
    for i in range(n):
        far = sorted(float(np.sum((updates[i] - updates[j]) ** 2)) for j in range(n) if j != i)
        found.append(sum(far[: n - f - 2]))
    return found


@pytest.mark.parametrize("k", [5, 8, 11])
def test_the_median_is_that_of_each_coordinate(k: int) -> None:
    updates = draw(k)
    found = moved(Robust(make_rule("fedavg", {})), cohorts(updates, [10] * k))
    np.testing.assert_allclose(found, np.median(updates, 0), atol=STEP)


@pytest.mark.parametrize(("k", "b"), [(5, 1), (8, 2), (11, 3)])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_trimmed_mean_leaves_out_the_ends_of_each_coordinate(
    k: int, b: int, weighted: bool
) -> None:
    updates = draw(k)
    sizes = [10 * (i + 1) for i in range(k)] if k < 10 else [7 + i for i in range(k)]
    rule = Robust(make_rule("fedavg", {}), "trimmed-mean", 0.2, weighted=weighted)
    assert rule.bad(k) == b
    found = moved(rule, cohorts(updates, sizes))
    for j in range(D):
        order = sorted(range(k), key=lambda i: updates[i, j])[b : k - b]
        weights = [sizes[i] if weighted else 1 for i in order]
        true = sum(w * updates[i, j] for w, i in zip(weights, order, strict=True)) / sum(weights)
        assert found[j] == pytest.approx(true, abs=STEP)


@pytest.mark.parametrize("k", [5, 8, 12])
def test_krum_scores_are_as_published(k: int) -> None:
    updates = draw(k)
    for f in range(1, (k - 3) // 2 + 1):
        np.testing.assert_allclose(scores(updates, f), krum_by_hand(updates, f))


@pytest.mark.parametrize("keep", [1, 2, 0])
def test_krum_takes_those_with_the_least_scores(keep: int) -> None:
    k = 10
    updates = draw(k)
    sizes = list(range(5, 5 + k))
    rule = Robust(make_rule("fedavg", {}), "krum", 0.2, keep=keep)
    found = moved(rule, cohorts(updates, sizes))
    by = krum_by_hand(updates, 2)
    chosen = sorted(range(k), key=by.__getitem__)[: keep or k - 2 - 2]
    true = np.average(updates[chosen], axis=0, weights=[sizes[i] for i in chosen])
    np.testing.assert_allclose(found, true, atol=STEP)


# ---- what they are for

ESTIMATES: list[dict[str, Any]] = [
    {"estimate": "median"},
    {"estimate": "trimmed-mean"},
    {"estimate": "krum"},
    {"estimate": "krum", "keep": 1},
]


@given(
    worst=st.sampled_from([-20.0, 20.0, -3.0, 0.5]),
    seed=st.integers(0, 1000),
    options=st.sampled_from(ESTIMATES),
    claimed=st.sampled_from([1, 50, 100]),
)
def test_bad_cohorts_carry_no_coordinate_beyond_the_good_ones(
    worst: float, seed: int, options: dict[str, Any], claimed: int
) -> None:
    good = draw(8, seed)
    updates = np.concatenate([good, np.full((2, D), worst)])
    total = cohorts(updates, [50] * 8 + [claimed] * 2)
    found = moved(make_robust(make_rule("fedavg", {}), options), total)
    assert (found <= good.max(0) + STEP).all() or options["estimate"] == "krum"
    assert np.linalg.norm(found - good.mean(0)) < np.linalg.norm(good, axis=1).max() + STEP


def test_the_inner_rule_remembers_what_it_does_without() -> None:
    total = cohorts(draw(5), [10] * 5)
    rule = make_robust(make_rule("fedavgm", {"momentum": 0.5}), {})
    middle = np.median(draw(5), 0)
    state = State(np.zeros(D, np.float32))
    rule, state = rule.following(state, total)
    again = make_robust(make_rule("fedavgm", {"momentum": 0.5}), {}).recall(rule.remember())
    _, state = again.following(state, total)
    np.testing.assert_allclose(state.weights, 2.5 * middle, atol=5 * STEP)


# ---- what cannot work


@pytest.mark.parametrize(
    ("estimate", "members", "enough"),
    [
        ("median", 2, False),
        ("median", 3, True),
        ("trimmed-mean", 2, False),
        ("trimmed-mean", 3, True),
        ("krum", 4, False),
        ("krum", 5, True),
        ("krum", 6, False),
        ("krum", 7, True),
    ],
)
def test_too_few_cohorts_are_named(estimate: Any, members: int, enough: bool) -> None:
    """A fifth, rounded up, may be bad: of six are two, and Krum needs seven to leave out two."""
    rule = Robust(make_rule("fedavg", {}), estimate)
    assert (rule.lacking(members) == "") is enough
    if not enough:
        with pytest.raises(BadUpdate, match=f"{estimate} needs"):
            rule.of(cohorts(draw(members), [5] * members))


@pytest.mark.parametrize("name", ["scaffold", "fednova"])
def test_a_rule_whose_devices_do_more_than_train_is_refused(name: str) -> None:
    with pytest.raises(BadUpdate, match="a robust run trains"):
        make_robust(make_rule(name, {}), {})
