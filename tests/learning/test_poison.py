"""One in five devices is poisoned, by its rows, labels or sensor: what a bound on the norm leaves.

A program that was changed need not keep to the bound: see the threat model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from edgechoir.learning.bound import cut_to
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.state import State

if TYPE_CHECKING:
    from tests.learning.conftest import Summed

D, DEVICES, LIARS, ROUNDS, NORM = 30, 20, 4, 150, 0.5
COUNTS = [50] * DEVICES
BEST = np.random.default_rng(1).normal(0, 1, D)
"""Where every honest device wants to go, but for its own noise."""
ATTACKS = {
    "sign flip": lambda delta: -delta,
    "scaling": lambda delta: 100 * delta,
    "both": lambda delta: -100 * delta,
    "noise": lambda delta: np.random.default_rng(0).normal(0, 100, D),
}


def far(attack: str, norm: float, summed: Summed, rule: str = "fedavg") -> float:
    """How far from the optimum the model ends, in units of where it began."""
    chance = np.random.default_rng(2)
    state, server = State(np.zeros(D, np.float32)), make_rule(rule, {})
    for seed in range(ROUNDS):
        honest = 0.2 * (BEST - state.weights + chance.normal(0, 0.3, (DEVICES, D)))
        deltas = np.array([*map(ATTACKS[attack], honest[:LIARS]), *honest[LIARS:]], np.float32)
        sent: npt.NDArray[np.float32] = np.array([cut_to(d, norm) for d in deltas])
        server, state = server.following(state, summed(sent, COUNTS, clip=1e3, seed=seed))
    return float(np.linalg.norm(state.weights - BEST) / np.linalg.norm(BEST))


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("rule", ["fedavg", "fedavgm"])
def test_with_a_bound_on_the_norm_the_model_still_gets_there(
    attack: str, rule: str, summed: Summed
) -> None:
    assert far(attack, NORM, summed, rule) < 0.25


@pytest.mark.parametrize("attack", ["both", "noise"])
def test_without_it_the_liars_have_their_way(attack: str, summed: Summed) -> None:
    assert far(attack, 1e9, summed) > 1
