"""SCAFFOLD against its paper in plain numpy, and against the drift that it is there for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from edgechoir.learning.rules.fedavg import FedAvg
from edgechoir.learning.rules.scaffold import (
    CONTROL,
    Scaffold,
    change_of,
    mean_gradient,
    own_of,
)
from edgechoir.learning.state import State
from edgechoir.types import Floats

if TYPE_CHECKING:
    from tests.learning.conftest import Summed

Vector = npt.NDArray[np.float64]
D, K, ETA = 20, 8, 0.05
COUNTS = np.array([30, 50, 120, 200])
CHANCE = np.random.default_rng(2)
OPTIMA = CHANCE.normal(0, 1, (4, D))
CURVES = CHANCE.uniform(0.2, 4.0, (4, D))
"""Device i has F_i(w) = sum of CURVES[i] * (w - OPTIMA[i])^2 / 2."""
BEST: Vector = COUNTS @ (CURVES * OPTIMA) / (COUNTS @ CURVES)
"""Where sum_i p_i F_i is least."""
EVERYBODY: Sequence[int] = range(4)


def walk(i: int, x: Vector, shift: Vector) -> Vector:
    """y_i - x after K steps."""
    y = x.copy()
    for _ in range(K):
        y -= ETA * (CURVES[i] * (y - OPTIMA[i]) + shift)
    return y - x


def published(rounds: Sequence[Sequence[int]]) -> tuple[Vector, Vector]:
    """(x, c) by algorithm 1 with option II, devices weighted by their rows."""
    x, c, own = np.zeros(D), np.zeros(D), np.zeros((4, D))
    for chosen in rounds:
        weight = COUNTS[list(chosen)]
        deltas = np.array([walk(i, x, c - own[i]) for i in chosen])
        fresh = np.array([own[i] - c - d / (K * ETA) for i, d in zip(chosen, deltas, strict=True)])
        changes = fresh - own[list(chosen)]
        own[list(chosen)] = fresh
        x = x + weight @ deltas / weight.sum()
        c = c + weight @ changes / COUNTS.sum()
    return x, c


class Fleet:
    """The same through masked sums; each device keeps its c_i."""

    def __init__(self, summed: Summed, leak: float) -> None:
        self.summed = summed
        self.rule = Scaffold(scale=ETA, leak=leak)
        self.state = State(np.zeros(D, np.float32))
        self.own: list[Floats] = [np.zeros(D, np.float32) for _ in COUNTS]

    def round(self, chosen: Sequence[int], seed: int = 0, uncounted: int | None = None) -> None:
        """`uncounted` goes on as if its part were in the sum, where it is not."""
        c = self.state.aux.get(CONTROL, np.zeros(D, np.float32))
        parts = []
        for i in chosen:
            shift = (c - self.own[i]).astype(np.float64)
            delta = walk(i, self.state.weights.astype(np.float64), shift).astype(np.float32)
            own = self.own[i] - c + mean_gradient(delta, K, ETA)
            change = change_of(own, self.own[i], c, self.rule.leak)
            self.own[i] = own
            if i != uncounted:
                parts.append(np.concatenate([delta, np.float32(ETA) * change]))
        counts = [int(COUNTS[i]) for i in chosen if i != uncounted]
        total = self.summed(np.array(parts), counts, clip=4.0, max_samples=200, seed=seed)
        self.rule, self.state = self.rule.following(self.state, total)

    @property
    def off(self) -> float:
        """How far c is from the mean of all c_i."""
        mean = COUNTS @ np.array(self.own) / COUNTS.sum()
        return float(np.abs(self.state.aux[CONTROL] - mean).max())

    @property
    def far(self) -> float:
        return float(np.abs(self.state.weights - BEST).max())


@pytest.mark.parametrize("leak", [0.0, 0.1])
def test_with_all_devices_rounds_of_masked_sums_give_what_the_paper_gives(
    summed: Summed, leak: float
) -> None:
    fleet = Fleet(summed, leak)
    for seed in range(15):
        fleet.round(EVERYBODY, seed)
    x, c = published([EVERYBODY] * 15)
    assert np.abs(fleet.state.weights - x).max() < 1e-5
    assert np.abs(fleet.state.aux[CONTROL] - c).max() < 1e-3


def test_with_some_devices_and_no_leak_they_do_so_too(summed: Summed) -> None:
    chance = np.random.default_rng(4)
    rounds: list[Sequence[int]] = [EVERYBODY]
    rounds += [sorted(chance.choice(4, 2, replace=False).tolist()) for _ in range(30)]
    fleet = Fleet(summed, 0.0)
    for seed, chosen in enumerate(rounds):
        fleet.round(chosen, seed)
    x, c = published(rounds)
    assert np.abs(fleet.state.weights - x).max() < 1e-5
    assert np.abs(fleet.state.aux[CONTROL] - c).max() < 1e-3


def test_it_finds_the_optimum_that_fedavg_drifts_past(summed: Summed) -> None:
    fleet, state = Fleet(summed, 0.1), State(np.zeros(D, np.float32))
    for seed in range(120):
        fleet.round(EVERYBODY, seed)
        w = state.weights.astype(np.float64)
        deltas = np.array([walk(i, w, np.zeros(D)) for i in EVERYBODY], np.float32)
        state = FedAvg().following(state, summed(deltas, COUNTS, clip=4.0))[1]
    assert fleet.far < 1e-3
    assert np.abs(state.weights - BEST).max() > 0.1


@pytest.mark.parametrize("leak", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("what", ["lost", "uncounted"])
def test_what_a_device_and_the_root_disagree_about_dies_out(
    summed: Summed, leak: float, what: str
) -> None:
    """A c_i lost from the disk; and one that moved on though its part was not in the sum."""
    fleet = Fleet(summed, leak)
    for seed in range(8):
        fleet.round(EVERYBODY, seed)
    if what == "lost":
        fleet.own[3] = np.zeros(D, np.float32)
    else:
        fleet.own[3] += np.float32(2)  # whatever it was that made it move
        fleet.round(EVERYBODY, 8, uncounted=3)
    before = fleet.off
    assert before > 0.1
    for seed in range(9, 100):
        fleet.round(EVERYBODY, seed)
    assert fleet.off < 0.01 * before
    assert fleet.far < 5e-3


def test_as_published_it_never_does(summed: Summed) -> None:
    fleet = Fleet(summed, 0.0)
    for seed in range(8):
        fleet.round(EVERYBODY, seed)
    fleet.own[3] = np.zeros(D, np.float32)
    before = fleet.off
    for seed in range(100):
        fleet.round(EVERYBODY, seed)
    assert fleet.off > 0.9 * before
    assert fleet.far > 0.05


def test_a_change_cut_on_its_way_is_cut_in_what_the_device_keeps() -> None:
    before, c, own = (CHANCE.normal(0, 1, D).astype(np.float32) for _ in range(3))
    change = change_of(own, before, c, 0.3)
    assert np.allclose(own_of(change, before, c, 0.3), own, atol=1e-6)
    cut = np.clip(change, -0.1, 0.1)
    assert np.allclose(change_of(own_of(cut, before, c, 0.3), before, c, 0.3), cut, atol=1e-6)


def test_a_process_that_starts_anew_knows_the_weight_of_all(summed: Summed) -> None:
    fleet = Fleet(summed, 0.1)
    fleet.round(EVERYBODY)
    again = Scaffold(scale=ETA).recall(fleet.rule.remember())
    assert again == fleet.rule
    assert again.whole == COUNTS.sum()
