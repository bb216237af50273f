"""A run can go on from another state under other settings, and back."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.privacy.terms import EXTRAS
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.private import Private, make_private
from edgechoir.learning.rules.rule import Rule
from edgechoir.learning.state import State
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import Membership, Order, RoundDone, RoundFailed
from edgechoir.rounds.schedule import (
    Anew,
    Begun,
    Course,
    Did,
    Finished,
    Happened,
    Publish,
    Schedule,
    now_as,
    step,
)

D = 4


class Run:
    """A schedule with two keyed devices, and what it did."""

    def __init__(self, rule: Rule | None = None, rounds: int = 99) -> None:
        state = State(np.zeros(D, np.float32))
        self.did: list[Did] = []
        self.schedule = Schedule(Course(rounds=rounds), state, rule or make_rule("fedavg", {}))
        self.happen(Membership(1, ("dev-1", "dev-2"), 2, 0))

    def happen(self, event: Happened) -> list[Did]:
        self.schedule, did = step(self.schedule, event, 100.0)
        self.did += did
        return did

    def measure(self, delta: float = 0.1) -> list[Did]:
        """The running round gives a sum."""
        order = [one for one in self.did if isinstance(one, Order)][-1]
        fields = {name: getattr(order, name) for name in Order.__slots__}
        plan = wire.Plan(
            epoch=1, turn=1, roster=bytes(32), min_survivors=2, cohort=("dev-1", "dev-2"), **fields
        )
        d = plan.dimension
        update = np.full(d, delta, np.float32)
        vector = encoding_of(plan).encode(update, 1, Figures(10, 5, 1.0), np.zeros(d, np.uint32))
        return self.happen(RoundDone(plan, plan.cohort, vector + vector))


def kinds(did: list[Did]) -> list[str]:
    return [type(one).__name__ for one in did]


def test_it_waits_for_the_running_round_and_then_publishes_the_state() -> None:
    run = Run()
    anew = Anew(Course(rounds=1), State(np.ones(D, np.float32)), make_rule("fedavgm", {}))
    assert run.happen(anew) == []
    did = run.measure()
    assert kinds(did) == ["Result", "Publish", "Publish", "Begun", "Order"]
    begun = next(one for one in did if isinstance(one, Begun))
    assert begun.version == run.schedule.version == 2
    assert run.schedule.state.weights.tolist() == [1.0] * D
    assert (run.schedule.done, run.schedule.anew) == (0, None)


def test_a_run_that_is_over_goes_on_at_once_and_ends_again() -> None:
    run = Run(rounds=1)
    run.measure()
    assert run.schedule.finished
    base = now_as(run.schedule)
    assert kinds(run.happen(replace(base, course=Course(rounds=1), done=0, finished=""))) == [
        "Publish",
        "Begun",
        "Order",
    ]
    assert isinstance(run.measure()[-1], Finished)
    did = run.happen(base)
    assert kinds(did) == ["Publish", "Begun"]
    publish = did[0]
    assert isinstance(publish, Publish)
    assert np.array_equal(publish.state.weights, base.state.weights)
    assert (publish.done, publish.model.final) == (1, 1)
    assert run.schedule.finished == base.finished


def test_a_failed_round_makes_room_too() -> None:
    run = Run()
    run.happen(now_as(run.schedule))
    assert "Begun" in kinds(run.happen(RoundFailed(run.schedule.ordered, "lost")))


def test_versions_only_go_up() -> None:
    run = Run()
    base = now_as(run.schedule)
    for _ in range(3):
        run.happen(base)
        run.measure()
    published = [one.model.version for one in run.did if isinstance(one, Publish)]
    assert published == sorted(set(published))


def test_no_trial_begins_where_the_budget_is_spent() -> None:
    options = {"z": 2.0, "bound": 1.0, "max_epsilon": 2.5}
    run = Run(make_private(make_rule("fedavg", {}), options))
    base = now_as(run.schedule)
    run.measure(0.0)
    assert run.schedule.finished.startswith("epsilon is")
    did = run.happen(base)
    assert kinds(did) == ["Publish", "Begun", "Finished"]
    assert run.schedule.finished.startswith("epsilon is")


def test_what_trials_spend_of_privacy_stays_spent() -> None:
    run = Run(make_private(make_rule("fedavg", {}), {"z": 2.0, "bound": 1.0}))
    assert run.schedule.rule.coordinates(D) == D + EXTRAS
    base = now_as(run.schedule)
    for _ in range(3):
        run.happen(replace(base, done=0))
        run.measure(0.0)
    run.happen(base)
    run.measure(0.0)
    rule = run.schedule.rule
    assert isinstance(rule, Private)
    assert rule.spent == pytest.approx(4 / (2 * 2.0**2))
