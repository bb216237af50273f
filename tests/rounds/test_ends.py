"""How a run ends: at a target, with the best version, or back from where it diverged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.state import State, digest_of
from edgechoir.learning.task import MEASURE, Task
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import Membership, Order, RoundDone, RoundFailed, Tick
from edgechoir.rounds.schedule import (
    MAX_BACKOFF_S,
    MAX_ROLLBACKS,
    TRIES,
    Course,
    Did,
    Finished,
    Happened,
    Publish,
    Result,
    Schedule,
    step,
)
from edgechoir.rounds.watch import FLOOR, Watch

D = 4
ROWS = 50


class Run:
    """A schedule with two keyed devices, and what it did."""

    def __init__(self, rule: str = "fedavg", **course: object) -> None:
        self.now = 100.0
        self.did: list[Did] = []
        state = State(np.zeros(D, np.float32))
        settings = Course(**{"rounds": 99, **course})  # type: ignore[arg-type]
        self.schedule = Schedule(settings, state, make_rule(rule, {}))
        self.happen(Membership(1, ("dev-1", "dev-2"), 2, 0))

    def happen(self, event: Happened) -> list[Did]:
        self.schedule, did = step(self.schedule, event, self.now)
        self.did += did
        return did

    @property
    def order(self) -> Order:
        return [one for one in self.did if isinstance(one, Order)][-1]

    @property
    def published(self) -> list[Publish]:
        return [one for one in self.did if isinstance(one, Publish)]

    @property
    def results(self) -> list[Result]:
        return [one for one in self.did if isinstance(one, Result)]

    @property
    def finished(self) -> list[str]:
        return [one.reason for one in self.did if isinstance(one, Finished)]

    def measure(self, loss: float, accuracy: float = 0.5, delta: float = 0.1) -> list[Did]:
        """The running round gives a sum: how the version it began with did, and an update."""
        order = self.order
        fields = {name: getattr(order, name) for name in Order.__slots__}
        plan = wire.Plan(
            epoch=1, turn=1, roster=bytes(32), min_survivors=2, cohort=("dev-1", "dev-2"), **fields
        )
        figures = Figures(ROWS, round(ROWS * accuracy), ROWS * loss)
        d = plan.dimension
        vector = encoding_of(plan).encode(
            np.full(d, delta, np.float32), 10, figures, np.zeros(d, np.uint32)
        )
        return self.happen(RoundDone(plan, plan.cohort, vector + vector))


# ---- targets


def test_a_regression_ends_at_its_target_rmse() -> None:
    run = Run(classifies=False, target_rmse=2.0)
    run.measure(loss=9.0)
    run.measure(loss=4.1)
    assert not run.finished
    run.measure(loss=4.0)
    assert run.finished == ["RMSE 2 has reached the target 2"]


def test_a_classification_has_no_rmse_to_end_at() -> None:
    run = Run(target_rmse=2.0, rounds=2)
    run.measure(loss=1.0)
    run.measure(loss=1.0)
    assert run.finished == ["2 rounds done"]


# ---- the best version


def test_the_best_version_is_the_one_with_the_highest_accuracy_and_then_the_lowest_loss() -> None:
    run = Run()
    for loss, accuracy in ((2.0, 0.5), (1.0, 0.8), (0.9, 0.8), (0.5, 0.7)):
        run.measure(loss, accuracy)
    best = run.schedule.watch.best
    assert best is not None
    assert (best.version, best.accuracy) == (2, 0.8)
    assert np.allclose(best.state.weights, 0.2, atol=1e-6)


def test_a_run_that_releases_the_best_measures_the_last_version_first() -> None:
    run = Run(rounds=3, release="best")
    for accuracy in (0.5, 0.9, 0.6):
        run.measure(1.0, accuracy)
    assert not run.finished
    assert run.order.task == Task(MEASURE).encode()
    assert (run.order.dimension, run.order.model_version) == (1, 3)
    assert [one.model.final for one in run.published] == [0, 0, 0]
    result, publish, finished = run.measure(1.0, 0.7)
    assert isinstance(result, Result)
    assert (result.version, result.total and result.total.accuracy) == (3, 0.7)
    assert isinstance(publish, Publish)
    assert (publish.model.version, publish.model.final) == (4, 1)
    assert publish.model.digest == digest_of(publish.state)
    assert np.allclose(publish.state.weights, 0.1, atol=1e-6), "version 1"
    assert finished == Finished("3 rounds done; version 1, the best, is released")
    run.now += 1000
    assert run.happen(Tick()) == []


def test_where_the_last_version_is_the_best_it_is_released() -> None:
    run = Run(rounds=2, release="best")
    for accuracy in (0.5, 0.6, 0.7):
        run.measure(1.0, accuracy)
    publish = run.published[-1]
    assert (publish.model.version, publish.model.final) == (3, 1)
    assert np.allclose(publish.state.weights, 0.2, atol=1e-6)
    assert run.finished == ["2 rounds done"]


def test_a_last_version_that_nobody_can_measure_does_not_hold_the_end_up() -> None:
    run = Run(rounds=2, release="best")
    run.measure(1.0, 0.5)
    run.measure(1.0, 0.9)
    for _ in range(TRIES):
        assert not run.finished
        run.happen(RoundFailed(run.order.round, "dev-1 was lost"))
        run.now += MAX_BACKOFF_S
        run.happen(Tick())
    assert run.finished == [
        "2 rounds done; the last version was not measured: dev-1 was lost; "
        "version 1, the best, is released"
    ]
    assert run.published[-1].model.final == 1


# ---- divergence


def test_a_version_that_diverges_is_never_the_best_however_well_it_guesses() -> None:
    run = Run()
    run.measure(1.0, 0.1)
    run.measure(50.0, 0.9)
    best = run.schedule.watch.best
    assert best is not None
    assert best.version == 0


def diverge(run: Run, rounds: int = 3) -> None:
    for _ in range(rounds):
        run.measure(loss=50.0, accuracy=0.1, delta=0.9)


def test_a_run_that_diverges_goes_on_from_its_best_version_at_half_the_rate() -> None:
    run = Run(learning_rate=0.1)
    run.measure(2.0, 0.5)
    run.measure(1.0, 0.8)
    diverge(run, 2)
    assert run.schedule.watch.rollbacks == 0
    result, publish, order = run.measure(50.0, 0.1, 0.9)
    assert isinstance(result, Result)
    assert result.reason == (
        "diverged: a loss of 50 after 3 rounds above 10 times the lowest, 1; "
        "going on from version 1"
    )
    assert isinstance(publish, Publish)
    assert publish.model.version == 5, "a new one: no member goes back to an older"
    assert np.allclose(publish.state.weights, 0.1, atol=1e-6)
    assert isinstance(order, Order)
    assert order.model_hash == publish.model.digest
    assert order.learning_rate == 0.05
    assert run.schedule.watch.rollbacks == 1


def test_a_loss_that_is_high_for_less_than_that_or_falls_again_is_no_divergence() -> None:
    run = Run()
    run.measure(1.0)
    for _ in range(4):
        diverge(run, 2)
        run.measure(1.5)
    assert all(not result.reason for result in run.results)


def test_noise_around_nothing_is_no_divergence() -> None:
    run = Run()
    run.measure(0.0)
    for _ in range(5):
        run.measure(9 * FLOOR)
    assert run.schedule.watch.rollbacks == 0


@pytest.mark.parametrize("rule", ["fedavgm", "fedadam"])
def test_what_the_rule_remembered_of_a_divergence_is_forgotten(rule: str) -> None:
    run = Run(rule)
    run.measure(1.0)
    diverge(run, 2)
    assert run.schedule.rule.remember()
    diverge(run, 1)
    assert not run.schedule.rule.remember()


def test_a_loss_that_is_not_finite_is_as_high_as_can_be() -> None:
    """A device that cannot compute it says so; the model is rolled back all the same."""
    run = Run()
    run.measure(1.0)
    for _ in range(3):
        run.measure(float("inf"), 0.0, 0.0)
    assert run.schedule.watch.rollbacks == 1
    assert np.allclose(run.schedule.state.weights, 0.0, atol=1e-6)


def test_a_run_that_only_diverges_ends_and_says_which_version_was_the_best() -> None:
    run = Run()
    run.measure(1.0)
    for _ in range(MAX_ROLLBACKS + 1):
        assert not run.finished
        diverge(run)
    assert run.finished == [f"it has diverged {MAX_ROLLBACKS + 1} times; version 0 was the best"]
    assert run.published[-1].model.final == 1
    assert np.allclose(run.published[-1].state.weights, 0.0)


def test_a_round_that_is_rolled_back_counts_towards_the_limit() -> None:
    run = Run(rounds=4)
    run.measure(1.0)
    diverge(run)
    assert run.finished == ["4 rounds done"]
    assert np.allclose(run.published[-1].state.weights, 0.0)


def test_without_rows_held_out_nothing_is_told() -> None:
    run = Run()
    total = run.measure(1.0)
    assert total
    watch = run.schedule.watch
    result = run.results[-1].total
    assert result is not None
    blind = replace(result, loss=None, accuracy=None)
    assert watch.seen(7, run.schedule.state, blind, 0.0, 10.0) is watch
    assert Watch().seen(7, run.schedule.state, blind, 0.0, 10.0) == Watch()
