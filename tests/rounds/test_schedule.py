"""The root runs round after round, and stops when it has been asked to."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TypeVar

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.rules.robust import Robust
from edgechoir.learning.slots import place
from edgechoir.learning.state import State, digest_of
from edgechoir.learning.task import Task
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import Membership, Order, RoundDone, RoundFailed, Tick
from edgechoir.rounds.schedule import (
    MAX_ASKED,
    MAX_BACKOFF_S,
    TRIES,
    Answered,
    Ask,
    Course,
    Did,
    Finished,
    Happened,
    Prepared,
    Publish,
    Result,
    Schedule,
    start,
    step,
)

D = 6
KEYED = Membership(1, ("dev-1", "dev-2"), 2, 0)
T = TypeVar("T", bound=Did)


def plan_of(order: Order) -> wire.Plan:
    """A turn that carries an order out with two devices."""
    fields = {name: getattr(order, name) for name in Order.__slots__}
    return wire.Plan(
        epoch=1, turn=1, roster=bytes(32), min_survivors=2, cohort=("dev-1", "dev-2"), **fields
    )


class Run:
    """A schedule, a clock, and what it did."""

    def __init__(self, course: Course | None = None, **fields: int) -> None:
        self.now = 100.0
        self.did: list[Did] = []
        self.schedule = replace(
            Schedule(course or Course(), State(np.zeros(D, np.float32))),
            **fields,  # type: ignore[arg-type]
        )

    def happen(self, event: Happened) -> list[Did]:
        self.schedule, did = step(self.schedule, event, self.now)
        self.did += did
        return did

    def of(self, kind: type[T]) -> list[T]:
        return [one for one in self.did if isinstance(one, kind)]

    @property
    def order(self) -> Order:
        return self.of(Order)[-1]

    def finish(
        self, accuracy: float = 0.5, loss: float = 1.0, delta: float = 0.1, held_out: int = 100
    ) -> list[Did]:
        """The running round gives a sum."""
        order = self.order
        plan = plan_of(order)
        encoding = encoding_of(plan)
        half = held_out // 2
        figures = Figures(half, round(half * accuracy), half * loss)
        vector = encoding.encode(np.full(D, delta, np.float32), 10, figures, np.zeros(D, np.uint32))
        return self.happen(RoundDone(plan, plan.cohort, vector + vector))

    def fail(self, reason: str = "dev-1 was lost") -> list[Did]:
        return self.happen(RoundFailed(self.order.round, reason))

    def wait(self, seconds: float) -> list[Did]:
        self.now += seconds
        return self.happen(Tick())


def test_a_run_begins_with_the_model_all_devices_begin_with() -> None:
    run = Run()
    publish = start(run.schedule)
    assert publish.model.version == 0
    assert publish.model.params == bytes(4 * D)
    assert publish.model.digest == hashlib.sha256(bytes(4 * D)).digest()
    assert publish.model.final == 0


def test_a_robust_run_waits_for_as_many_cohorts_as_it_needs() -> None:
    run = Run()
    run.schedule = replace(run.schedule, rule=Robust(run.schedule.rule))
    (result,) = run.happen(Membership(1, ("node-1", "node-2"), 8, 0))
    assert isinstance(result, Result)
    assert result.total is None
    assert "2 cohorts beneath the root" in result.reason
    assert not run.of(Order)
    assert run.schedule.wake is not None
    run.now = run.schedule.wake
    (order,) = run.happen(Membership(2, ("node-1", "node-2", "node-3"), 12, 0))
    assert isinstance(order, Order)
    assert order.apart == wire.APART


def test_a_question_is_answered_with_one_sum_whatever_the_rule_needs() -> None:
    run = Run()
    run.schedule = replace(run.schedule, rule=Robust(run.schedule.rule), waits=True)
    run.happen(KEYED)
    (order,) = run.happen(Ask("q", Task("moments"), 4, 1.0, 100))
    assert isinstance(order, Order)
    assert order.apart == wire.TOGETHER


def test_a_robust_round_leaves_the_bad_cohort_out() -> None:
    run = Run()
    run.schedule = replace(run.schedule, rule=Robust(run.schedule.rule))
    names = ("node-1", "node-2", "node-3")
    run.happen(Membership(1, names, 12, 0))
    plan = replace(plan_of(run.order), cohort=names)
    encoding = encoding_of(plan)
    whole = np.zeros(3 * encoding.length, np.uint32)
    for at, value in enumerate((0.1, 0.12, -1.0)):
        update = np.full(D, value, np.float32)
        vector = encoding.encode(update, 10, Figures(10, 5, 5.0), np.zeros(D, np.uint32))
        whole += place(vector, at, 3)
    run.happen(RoundDone(plan, names, whole))
    np.testing.assert_allclose(run.schedule.state.weights, 0.1, atol=1e-5)
    total = run.of(Result)[-1].total
    assert total is not None
    assert (total.devices, total.accuracy) == (3, 0.5)


def test_no_round_is_ordered_before_somebody_is_keyed() -> None:
    run = Run()
    assert run.happen(Tick()) == []
    assert run.happen(Membership(1, (), 0, 0)) == []
    (order,) = run.happen(KEYED)
    assert isinstance(order, Order)
    assert (order.round, order.model_version, order.devices) == (1, 0, 2)
    assert order.model_hash == digest_of(run.schedule.state)
    assert order.dimension == D


def test_an_order_carries_the_course() -> None:
    course = Course(
        deadline=9.0,
        epochs=3,
        batch_size=7,
        learning_rate=0.3,
        clip=0.7,
        max_samples=55,
        bits=16,
        seed=1000,
    )
    run = Run(course)
    run.happen(KEYED)
    order = run.order
    assert (order.deadline, order.epochs, order.batch_size) == (9.0, 3, 7)
    assert (order.learning_rate, order.clip, order.max_samples) == (0.3, 0.7, 55)
    assert order.bits == 16
    assert order.seed == 1001
    run.finish()
    assert run.order.seed == 1002


def test_one_round_runs_at_a_time() -> None:
    run = Run()
    run.happen(KEYED)
    assert run.happen(KEYED) == []
    assert run.wait(1000) == []
    assert len(run.of(Order)) == 1


def test_a_sum_becomes_the_next_version_and_the_next_round_begins() -> None:
    run = Run()
    run.happen(KEYED)
    run.now += 2.5
    result, publish, order = run.finish(accuracy=0.5, loss=1.0, delta=0.1)
    assert isinstance(result, Result)
    assert (result.round, result.version, result.seconds) == (1, 0, 2.5)
    assert result.total is not None
    assert result.total.accuracy == 0.5
    assert isinstance(publish, Publish)
    assert publish.model.version == 1
    assert (publish.model.devices, publish.model.samples) == (2, 20)
    assert np.allclose(publish.state.weights, 0.1, atol=1e-6)
    assert publish.model.params == publish.state.weights.astype("<f4").tobytes()
    assert publish.model.digest == digest_of(publish.state)
    assert isinstance(order, Order)
    assert (order.round, order.model_version) == (2, 1)
    assert order.model_hash == publish.model.digest


def test_a_run_ends_after_its_rounds() -> None:
    run = Run(Course(rounds=3))
    run.happen(KEYED)
    for _ in range(3):
        run.finish()
    *_, publish, finished = run.did
    assert finished == Finished("3 rounds done")
    assert isinstance(publish, Publish)
    assert (publish.model.version, publish.model.final) == (3, 1)
    assert [one.model.final for one in run.of(Publish)] == [0, 0, 1]
    assert run.wait(1000) == []
    assert run.happen(KEYED) == []


def test_failed_rounds_do_not_count_as_done() -> None:
    run = Run(Course(rounds=2))
    run.happen(KEYED)
    run.finish()
    run.fail()
    run.wait(1)
    assert not run.of(Finished)
    run.finish()
    assert run.of(Finished) == [Finished("2 rounds done")]
    assert [one.round for one in run.of(Order)] == [1, 2, 3]


def test_a_run_ends_at_its_target_accuracy() -> None:
    run = Run(Course(rounds=99, target_accuracy=0.9))
    run.happen(KEYED)
    run.finish(accuracy=0.5)
    run.finish(accuracy=0.88)
    assert not run.of(Finished)
    run.finish(accuracy=0.9)
    assert run.of(Finished) == [Finished("accuracy 0.9000 has reached the target 0.9")]
    assert run.of(Publish)[-1].model.final == 1


def test_a_run_ends_when_the_loss_has_not_fallen_for_as_long_as_it_is_patient() -> None:
    run = Run(Course(rounds=99, patience=3, min_gain=0.01))
    run.happen(KEYED)
    for loss in (2.0, 1.5, 1.497, 1.6):
        run.finish(loss=loss)
    assert not run.of(Finished)
    run.finish(loss=1.495)
    assert run.of(Finished) == [Finished("the loss has not fallen by 0.01 for 3 rounds")]


def test_a_loss_that_falls_again_renews_the_patience() -> None:
    run = Run(Course(rounds=99, patience=2, min_gain=0.01))
    run.happen(KEYED)
    for loss in (2.0, 2.0, 1.9, 1.9, 1.8, 1.8):
        run.finish(loss=loss)
    assert not run.of(Finished)


def test_without_hold_out_rows_patience_is_not_lost() -> None:
    """Nothing is known about the loss then, so nothing can be said of its not falling."""
    run = Run(Course(rounds=5, patience=2))
    run.happen(KEYED)
    for _ in range(5):
        run.finish(held_out=0)
    assert run.of(Finished) == [Finished("5 rounds done")]


def test_a_failed_round_is_tried_again_after_a_pause_that_doubles_up_to_a_bound() -> None:
    run = Run()
    run.happen(KEYED)
    pauses = []
    for _ in range(12):
        (result,) = run.fail()
        assert isinstance(result, Result)
        assert (result.total, result.reason) == (None, "dev-1 was lost")
        assert run.schedule.wake is not None
        pauses.append(run.schedule.wake - run.now)
        assert run.wait(pauses[-1] - 0.01) == []
        assert run.happen(KEYED) == [], "not even when somebody joins"
        assert len(run.wait(0.01)) == 1
    assert pauses == pytest.approx([min(0.2 * 2**i, MAX_BACKOFF_S) for i in range(12)])
    run.finish()
    run.fail()
    assert run.schedule.wake == pytest.approx(run.now + 0.2)


def test_a_failed_round_leaves_the_model_as_it_was() -> None:
    run = Run()
    run.happen(KEYED)
    run.finish()
    before = run.schedule.state
    run.fail()
    assert run.schedule.state is before
    assert run.schedule.version == 1
    run.wait(1)
    assert (run.order.round, run.order.model_version) == (3, 1)


def test_there_is_a_pause_between_rounds_if_the_course_has_one() -> None:
    run = Run(Course(pause=5.0))
    run.happen(KEYED)
    run.finish()
    assert len(run.of(Order)) == 1
    assert run.wait(4.9) == []
    assert len(run.wait(0.2)) == 1


def test_the_next_round_is_above_any_that_a_child_has_spent() -> None:
    run = Run()
    run.happen(replace(KEYED, last_round=41))
    assert run.order.round == 42


def test_a_child_with_a_higher_round_does_not_stop_the_run() -> None:
    """It was let in after the order, whose round is spent for it: that fails, and the next is
    above."""
    run = Run()
    run.happen(KEYED)
    assert run.happen(replace(KEYED, last_round=41)) == []
    (result,) = run.fail("round 1 is spent here, the next is 42")
    assert isinstance(result, Result)
    (order,) = run.wait(1)
    assert isinstance(order, Order)
    assert order.round == 42


def test_the_failure_of_another_round_changes_nothing() -> None:
    run = Run()
    run.happen(KEYED)
    before = run.schedule
    assert run.happen(RoundFailed(7, "?")) == []
    assert run.schedule is before
    run.fail()
    assert run.happen(RoundFailed(1, "once more")) == []
    assert len(run.of(Result)) == 1


def test_with_nobody_keyed_the_run_waits() -> None:
    run = Run()
    run.happen(KEYED)
    run.happen(Membership(2, (), 0, 1))
    run.fail("1 members are left, 2 are needed")
    assert run.wait(1000) == []
    assert len(run.happen(replace(KEYED, epoch=3))) == 1


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_model_that_is_not_finite_is_never_published(bad: float) -> None:
    run = Run()
    run.schedule = replace(run.schedule, state=State(np.full(D, bad, np.float32)))
    run.happen(KEYED)
    (result,) = run.finish()
    assert isinstance(result, Result)
    assert result.total is None
    assert "not finite" in result.reason
    assert not run.of(Publish)
    assert run.schedule.version == 0


def test_a_sum_that_cannot_be_one_fails_the_round() -> None:
    run = Run()
    run.happen(KEYED)
    plan = plan_of(run.order)
    (result,) = run.happen(RoundDone(plan, plan.cohort, np.zeros(D + 6, np.uint32)))
    assert isinstance(result, Result)
    assert result.reason == "the sum counts 0 devices, expected 1 to 2"
    assert len(run.wait(1)) == 1


def test_a_restarted_root_goes_on_where_it_was() -> None:
    run = Run(Course(rounds=5), version=3, round=17, done=3)
    run.happen(KEYED)
    assert (run.order.round, run.order.model_version) == (18, 3)
    run.finish()
    run.finish()
    assert run.of(Finished) == [Finished("5 rounds done")]


def test_a_sum_in_the_narrow_ring_becomes_the_next_version_too() -> None:
    run = Run(Course(bits=16, max_samples=10))
    run.happen(KEYED)
    result, publish, _ = run.finish(accuracy=0.5, delta=0.1)
    assert isinstance(result, Result)
    assert result.total is not None
    assert (result.total.devices, result.total.samples, result.total.accuracy) == (2, 20, 0.5)
    assert isinstance(publish, Publish)
    assert np.allclose(publish.state.weights, 0.1, atol=1e-4)


# ---- clocks that are set


def test_a_pause_does_not_wait_for_a_clock_that_was_set_back() -> None:
    """An hour back, in the middle of a pause of a second."""
    run = Run()
    run.happen(KEYED)
    run.fail()
    run.now -= 3600
    assert [type(one) for one in run.happen(Tick())] == [Order]


def test_a_round_takes_no_less_than_no_time_when_the_clock_is_set_back() -> None:
    run = Run()
    run.happen(KEYED)
    run.now -= 3600
    result, *_ = run.finish()
    assert isinstance(result, Result)
    assert result.seconds == 0
    run.now -= 3600
    (result,) = run.fail()
    assert isinstance(result, Result)
    assert result.seconds == 0


def test_a_model_that_does_not_classify_has_no_accuracy() -> None:
    run = Run(Course(classifies=False))
    run.happen(KEYED)
    run.finish(accuracy=0.0)
    total = run.of(Result)[-1].total
    assert total is not None
    assert total.accuracy is None
    assert total.loss is not None


# ---- what is asked beside training


MEAN = Ask("mean", Task("statistics", {"of": "mean"}), dimension=3, clip=2.0, max_samples=50)


def answer(run: Run, delta: float = 0.5) -> list[Did]:
    """The running round, which is a question's, gives a sum."""
    plan = plan_of(run.order)
    vector = encoding_of(plan).encode(
        np.full(plan.dimension, delta, np.float32),
        10,
        Figures(),
        np.zeros(plan.dimension, np.uint32),
    )
    return run.happen(RoundDone(plan, plan.cohort, vector + vector))


def test_a_question_has_the_round_after_the_running_one_and_changes_no_model() -> None:
    run = Run()
    run.happen(KEYED)
    assert run.happen(MEAN) == []
    run.finish()
    order = run.order
    assert order.task == MEAN.task.encode()
    assert (order.dimension, order.clip, order.max_samples) == (3, 2.0, 50)
    before = run.schedule.state
    answered, following = answer(run)
    assert isinstance(answered, Answered)
    assert answered.name == "mean"
    assert answered.total is not None
    assert np.allclose(answered.total.delta, 0.5, atol=1e-6)
    assert run.schedule.state is before
    assert isinstance(following, Order)
    assert following.task == Task("train").encode()
    assert following.dimension == D
    assert run.schedule.done == 1


def test_a_question_is_answered_also_when_training_is_over() -> None:
    run = Run(Course(rounds=1))
    run.happen(KEYED)
    run.finish()
    assert run.schedule.finished
    (order,) = run.happen(MEAN)
    assert isinstance(order, Order)
    assert [type(one) for one in answer(run)] == [Answered]
    assert run.wait(1000) == []


def test_a_question_whose_rounds_fail_is_answered_with_the_reason() -> None:
    run = Run()
    run.happen(MEAN)
    run.happen(KEYED)
    for _ in range(TRIES - 1):
        assert [type(one) for one in run.fail()] == [Result]
        run.wait(MAX_BACKOFF_S)
    answered, following = run.fail("two uploads")
    assert answered == Answered("mean", None, "two uploads")
    assert isinstance(following, Order)
    assert following.task == Task("train").encode()


def test_questions_that_wait_are_bounded() -> None:
    run = Run()
    for _ in range(MAX_ASKED):
        assert run.happen(MEAN) == []
    (refused,) = run.happen(MEAN)
    assert isinstance(refused, Answered)
    assert refused.total is None


# ---- what belongs to the model before it is trained


def test_a_run_that_waits_trains_only_once_it_is_prepared() -> None:
    run = Run(waits=True)
    assert run.happen(KEYED) == []
    (order,) = run.happen(MEAN)
    assert isinstance(order, Order)
    assert order.task == MEAN.task.encode()
    assert [type(one) for one in answer(run)] == [Answered]
    aux = {"mean": np.ones(3, np.float32)}
    published, order = run.happen(Prepared(aux))
    assert isinstance(published, Publish)
    assert published.model.version == 1
    assert published.model.aux == (("mean", np.ones(3, "<f4").tobytes()),)
    assert isinstance(order, Order)
    assert (order.task, order.model_version) == (Task("train").encode(), 1)
    assert order.model_hash == digest_of(published.state) == published.model.digest
    assert run.schedule.done == 0
    run.finish()
    assert run.schedule.state.aux == aux


def test_what_prepares_a_run_while_a_question_runs_takes_its_place_after_it() -> None:
    run = Run(waits=True)
    run.happen(KEYED)
    run.happen(MEAN)
    (published,) = run.happen(Prepared({"mean": np.ones(3, np.float32)}))
    assert isinstance(published, Publish)
    answered, order = answer(run)
    assert isinstance(answered, Answered)
    assert isinstance(order, Order)
    assert order.model_version == 1


def test_a_question_weighs_no_device_more_than_the_ring_can_hold() -> None:
    run = Run()
    run.happen(replace(KEYED, devices=100_000))
    run.finish()
    run.happen(replace(MEAN, max_samples=1_000_000))
    run.finish()
    assert run.order.max_samples == (2**31 - 1) // 100_000
    encoding_of(plan_of(run.order))
