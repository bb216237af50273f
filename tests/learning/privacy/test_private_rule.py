"""A private run: the inner rule learns from the noisy mean, the bound moves, the budget ends it."""

from dataclasses import replace

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Figures, Total
from edgechoir.learning.privacy.budget import epsilon
from edgechoir.learning.privacy.terms import BOUND, EXTRAS, NOISE
from edgechoir.learning.rules.fedavg import FedAvg
from edgechoir.learning.rules.fedavgm import FedAvgM
from edgechoir.learning.rules.private import Private, make_private
from edgechoir.learning.state import State
from edgechoir.learning.task import Task
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import Membership, Order, RoundDone
from edgechoir.rounds.schedule import Course, Did, Finished, Schedule, step

D = 4
STATE = State(np.zeros(D, np.float32))


def total(delta: float, within: float, accuracy: float, bound: float = 1.0) -> Total:
    """A decoded private mean: the update, and the two figures as they travel."""
    figures = [(within - 0.5) * bound / 2, (accuracy - 0.5) * bound / 2]
    mean = np.array([delta] * D + figures, np.float32)
    return Total(mean, 8, 8, 0.0, 0, None, None)


def test_the_inner_rule_gets_the_update_and_people_the_accuracy() -> None:
    rule = Private(FedAvg(), z=1.0, bound=1.0)
    _, state = rule.following(STATE, total(0.25, 0.5, 0.75))
    assert np.allclose(state.weights, 0.25)
    shown = rule.report(total(0.25, 0.5, 0.75))
    assert shown.delta.shape == (D,)
    assert shown.accuracy == pytest.approx(0.75)
    assert rule.report(total(0.0, 0.5, 1.8)).accuracy == 1.0


def test_a_device_is_told_the_bound_and_the_noise() -> None:
    rule = Private(FedAvg(), z=0.7, bound=1.5)
    assert rule.task() == Task("train", {BOUND: 1.5, NOISE: 0.7})
    assert rule.coordinates(D) == D + EXTRAS
    clip, most = rule.weighing(0.1, 1000, D + EXTRAS, 8, 32)
    assert most == 1
    assert clip > 1.5 * (1 + 10 * 0.7)


def test_the_bound_follows_the_share_of_updates_within_it() -> None:
    rule = Private(FedAvg(), z=1.0, bound=1.0, quantile=0.5, rate=0.2)
    longer, _ = rule.following(STATE, total(0.0, 0.0, 0.5))
    shorter, _ = rule.following(STATE, total(0.0, 1.0, 0.5))
    assert longer.bound == pytest.approx(np.exp(0.1))
    assert shorter.bound == pytest.approx(np.exp(-0.1))


def test_what_was_spent_and_the_inner_memory_survive_a_restart() -> None:
    rule = Private(FedAvgM(), z=0.5, bound=1.0)
    for _ in range(3):
        rule, _ = rule.following(STATE, total(0.1, 0.2, 0.5, rule.bound))
    again = Private(FedAvgM(), z=0.5, bound=1.0).recall(rule.remember())
    assert again.spent == pytest.approx(3 * 2.0)
    assert again.bound == pytest.approx(rule.bound)
    assert isinstance(again.inner, FedAvgM)
    assert again.inner.v is not None


def test_a_cheap_round_counts_though_the_run_is_restarted_after_each() -> None:
    """In float32 alone 1/(2 z^2) = 5e-5 would vanish beside the 1000 that were spent before."""
    rule = Private(FedAvg(), z=100.0, bound=1.0, spent=1000.0)
    for _ in range(40):
        rule, _ = rule.following(STATE, total(0.1, 0.5, 0.5, rule.bound))
        rule = Private(FedAvg(), z=100.0, bound=1.0).recall(rule.remember())
    assert rule.spent == pytest.approx(1000 + 40 * 5e-5, abs=1e-6)


@pytest.mark.parametrize(("spent", "z"), [(3.0, 1.0), (0.0, 0.1)])
def test_a_process_that_starts_with_nothing_left_to_spend_orders_no_round(
    spent: float, z: float
) -> None:
    rule = Private(FedAvg(), z=z, bound=1.0, max_epsilon=8.0, spent=spent)
    schedule = Schedule(Course(rounds=1000), STATE, rule)
    schedule, did = step(schedule, Membership(1, ("a", "b"), 2, 0), 0.0)
    assert not any(isinstance(one, Order) for one in did)
    assert "epsilon is" in schedule.finished


def test_the_run_ends_before_it_costs_more_than_it_may() -> None:
    """Through the schedule: no round is ordered whose sum would exceed the cap."""
    cap = 6.0
    rule = Private(FedAvg(), z=2.0, bound=1.0, max_epsilon=cap)
    schedule = Schedule(Course(rounds=1000), STATE, rule)
    schedule, did = step(schedule, Membership(1, ("a", "b"), 2, 0), 0.0)
    rounds = 0
    while not schedule.finished:
        order = next(one for one in did if isinstance(one, Order))
        assert order.max_samples == 1
        rounds += 1
        schedule, did = _sum(schedule, order)
    assert "epsilon is" in schedule.finished
    assert any(isinstance(one, Finished) for one in did)
    assert epsilon(rounds / 8, 1e-5) <= cap < epsilon((rounds + 1) / 8, 1e-5)


def _sum(schedule: Schedule, order: Order) -> tuple[Schedule, list[Did]]:
    fields = {name: getattr(order, name) for name in Order.__slots__}
    plan = wire.Plan(
        epoch=1, turn=1, roster=bytes(32), min_survivors=2, cohort=("a", "b"), **fields
    )
    zeros = np.zeros(plan.dimension, np.float32)
    encoding = encoding_of(plan)
    vector = encoding.encode(zeros, 1, Figures(), np.zeros(plan.dimension, np.uint32))
    after, did = step(schedule, RoundDone(plan, plan.cohort, vector + vector), 1.0)
    return after, did


def test_a_rule_whose_devices_do_not_train_has_no_private_run() -> None:
    with pytest.raises(BadUpdate, match="a private run trains"):
        make_private(Other(), {"z": 1.0, "bound": 1.0})


class Other(FedAvg):
    """A rule with another task."""

    def task(self) -> Task:
        return Task("histograms")


def test_a_run_without_room_in_the_ring_ends_with_the_reason() -> None:
    rule = Private(FedAvg(), z=90.0, bound=1.0)
    wide = State(np.zeros(50_000, np.float32))
    schedule = Schedule(Course(bits=16), wide, rule)
    schedule, did = step(schedule, Membership(1, ("a", "b"), 30, 0), 0.0)
    assert isinstance(did[0], Finished)
    assert "do not fit into a ring of 16 bits" in schedule.finished
    assert replace(schedule, finished="").running is False
