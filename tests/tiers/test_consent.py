"""An owner's word is kept to, whatever is asked and whenever it is said."""

import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgechoir import wire
from edgechoir.config.sections import Consent
from edgechoir.errors import OperatorError
from edgechoir.learning.statistics.inquiry import task_hash
from edgechoir.learning.task import Task
from edgechoir.tiers import consent
from edgechoir.tiers.consent import Gate, approve, read_asked, read_word, revoke, withdraw

MOMENTS = Task("moments", {"source": "stored", "of": "x", "columns": []})
HISTOGRAM = Task("histogram", {"source": "stored", "of": "x", "columns": [], "bins": 4})


def plan(task: Task, members: int = 3, devices: int = 5) -> wire.Plan:
    return wire.Plan(
        epoch=1,
        turn=1,
        round=1,
        roster=bytes(32),
        min_survivors=members,
        bits=32,
        cohort=("dev-1", "dev-2", "dev-3"),
        model_version=0,
        model_hash=bytes(32),
        task=task.encode(),
        dimension=4,
        devices=devices,
        clip=1.0,
        max_samples=100,
        epochs=1,
        batch_size=1,
        learning_rate=1.0,
        seed=0,
        deadline=1.0,
    )


@pytest.mark.parametrize("kind", ["train", "evaluate", "spread", "moments", "bins"])
def test_what_training_implies_is_agreed_to(tmp_path: Path, kind: str) -> None:
    assert Gate(Consent(), tmp_path).decide(plan(Task(kind))).reason == ""


@pytest.mark.parametrize("task", [HISTOGRAM, Task("gram"), Task("moments", {"source": "recent"})])
def test_everything_else_waits_for_an_approval_of_its_own(tmp_path: Path, task: Task) -> None:
    gate = Gate(Consent(), tmp_path)
    assert "has not approved" in gate.decide(plan(task)).reason
    assert approve(tmp_path, task_hash(task)[:8]) == task_hash(task)
    assert gate.decide(plan(task)).reason == ""
    other = replace(task, options={**task.options, "columns": [1]})
    assert "has not approved" in gate.decide(plan(other)).reason
    assert revoke(tmp_path, task_hash(task)) == 1
    assert "has not approved" in gate.decide(plan(task)).reason


def test_an_approval_holds_wherever_the_bins_lie(tmp_path: Path) -> None:
    gate = Gate(Consent(), tmp_path)
    placed = replace(HISTOGRAM, options={**HISTOGRAM.options, "edges": "AAAA"})
    assert gate.decide(plan(placed)).reason
    approve(tmp_path, task_hash(HISTOGRAM)[:8])
    assert gate.decide(plan(placed)).reason == ""


def test_an_allow_list_may_be_narrower_and_wider(tmp_path: Path) -> None:
    gate = Gate(Consent(allow=("histogram",)), tmp_path)
    assert gate.decide(plan(HISTOGRAM)).reason == ""
    assert "train" in gate.decide(plan(Task("train"))).reason
    assert "moments" in gate.decide(plan(MOMENTS)).reason
    wide = Gate(Consent(allow=("moments", "recent")), tmp_path)
    assert wide.decide(plan(Task("moments", {"source": "recent"}))).reason == ""


def test_an_owner_may_withdraw_from_everything_and_come_back(tmp_path: Path) -> None:
    gate = Gate(Consent(), tmp_path)
    withdraw(tmp_path, True)
    assert gate.withdrawn()
    for task in (Task("train"), MOMENTS):
        assert gate.decide(plan(task)).reason == consent.WITHDRAWN
    withdraw(tmp_path, False)
    assert gate.decide(plan(Task("train"))).reason == ""


def test_a_damaged_word_counts_as_withdrawn(tmp_path: Path) -> None:
    (tmp_path / consent.WORD).write_text('{"withdrawn": fal')
    assert read_word(tmp_path).withdrawn
    assert Gate(Consent(), tmp_path).decide(plan(Task("train"))).reason == consent.WITHDRAWN


@pytest.mark.parametrize(("members", "devices"), [(2, 5), (3, 4)])
def test_a_statistic_of_too_few_is_declined_and_training_is_not(
    tmp_path: Path, members: int, devices: int
) -> None:
    gate = Gate(Consent(min_members=3, min_devices=5), tmp_path)
    assert "wants 3 and 5" in gate.decide(plan(MOMENTS, members, devices)).reason
    assert gate.decide(plan(Task("train"), members, devices)).reason == ""
    assert gate.decide(plan(MOMENTS, 3, 5)).reason == ""


def test_a_days_answers_are_bounded_over_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1e9]
    monkeypatch.setattr(time, "time", lambda: now[0])
    wishes = Consent(answers_per_day=3)
    for _ in range(3):
        assert Gate(wishes, tmp_path).decide(plan(MOMENTS)).reason == ""
    assert "within 24 hours" in Gate(wishes, tmp_path).decide(plan(MOMENTS)).reason
    now[0] -= 10 * consent.DAY_S  # a clock that is set back opens nothing
    assert "within 24 hours" in Gate(wishes, tmp_path).decide(plan(MOMENTS)).reason
    assert Gate(wishes, tmp_path).decide(plan(Task("train"))).reason == ""
    now[0] += 11 * consent.DAY_S + 1
    assert Gate(wishes, tmp_path).decide(plan(MOMENTS)).reason == ""


def test_what_was_asked_is_remembered_within_a_bound(tmp_path: Path) -> None:
    gate = Gate(Consent(), tmp_path)
    for bins in range(consent.MAX_ASKED + 5):
        gate.decide(plan(Task("histogram", {"bins": bins})))
    asked = read_asked(tmp_path).questions
    assert len(asked) == consent.MAX_ASKED
    assert asked[-1].about == f'"bins": {consent.MAX_ASKED + 4}'
    gate.decide(plan(MOMENTS))
    gate.decide(plan(MOMENTS))
    last = read_asked(tmp_path).questions[-1]
    assert (last.kind, last.times, last.decision) == ("moments", 2, "agreed")


def test_only_a_task_that_was_asked_can_be_approved_by_its_beginning(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="consent list"):
        approve(tmp_path, "abcdef")
    whole = task_hash(HISTOGRAM)
    assert approve(tmp_path, whole) == whole  # beforehand, by the whole hash
    assert Gate(Consent(), tmp_path).decide(plan(HISTOGRAM)).reason == ""
    with pytest.raises(OperatorError, match="no approved task"):
        revoke(tmp_path, "abcdef")
