"""A tier with two ends: what one end is asked, the other does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import LocalError
from edgechoir.learning.fixed_point import Encoding
from edgechoir.rounds import aggregator, joint, participant
from edgechoir.rounds.aggregator import Limits
from edgechoir.rounds.events import (
    Begin,
    Cancel,
    Event,
    Gone,
    Membership,
    ModelHeld,
    NoContribution,
    Tick,
)
from edgechoir.rounds.joint import HEADROOM, Joint

if TYPE_CHECKING:
    from tests.rounds.conftest import Letter, OrderOf, Stage

LEAVES = ("dev-11", "dev-12", "dev-21", "dev-22")


def test_a_tree_adds_up_all_its_devices_bit_for_bit(tree: Stage) -> None:
    for round_ in (1, 2):
        tree.order("cloud", round_)
        done = tree.sums("cloud")[-1]
        assert done.plan.cohort == ("node-1", "node-2")
        plain = np.zeros(len(done.total), np.uint32)
        for name in LEAVES:
            plain += tree.vectors[name, round_]
        assert np.array_equal(done.total, plain)
        plan = done.plan
        total = Encoding(plan.dimension, plan.devices, plan.clip, plan.max_samples).decode(plain)
        assert total.devices == 4


def test_a_node_gives_its_cohorts_sum_and_nothing_less(tree: Stage) -> None:
    tree.order("cloud", 1)
    for node in ("node-1", "node-2"):
        (done,) = tree.sums(node)
        assert np.array_equal(done.total, tree.plain_sum(done))
        assert len(done.plan.cohort) == 2
    kem = tree.voices["cloud"].down.kem
    assert kem is not None
    for letter in tree.letters(wire.Upload, to="cloud"):
        upload = tree.message(letter.data)
        assert isinstance(upload, wire.Upload)
        masked = aggregator.open_upload(kem, upload, letter.sender, 18)
        assert (masked != tree.sums(letter.sender)[0].total).all()


def test_a_node_joins_its_parent_for_as_many_devices_as_are_beneath(tree: Stage) -> None:
    down = tree.voices["cloud"].down
    assert {name: c.entry.join.devices for name, c in down.members.items()} == {
        "node-1": 2,
        "node-2": 2,
    }
    assert tree.of("cloud", Membership)[-1].devices == 4


def test_each_tier_waits_a_little_less_than_the_one_above(tree: Stage) -> None:
    tree.order("cloud", 1, deadline=10.0)
    plans = {letter.sender: tree.message(letter.data) for letter in tree.letters(wire.Plan)}
    deadlines = {n: plan.deadline for n, plan in plans.items() if isinstance(plan, wire.Plan)}
    assert deadlines == {"cloud": 10.0, "node-1": 10 * HEADROOM, "node-2": 10 * HEADROOM}


def test_what_fails_below_fails_above_with_its_reason(tree: Stage) -> None:
    tree.idle = {"dev-21"}
    tree.order("cloud", 1)
    tree.happen("dev-21", NoContribution(1, "no samples yet"))
    tree.run()
    assert tree.failures("node-2") == [(1, "dev-21: no samples yet")]
    assert tree.failures("cloud") == [(1, "node-2: dev-21: no samples yet")]
    assert tree.failures("node-1") == []
    tree.idle = set()
    tree.order("cloud", 2)
    assert len(tree.sums("cloud")) == 1


def test_a_deadline_missed_below_is_told_above_before_its_own_has_passed(tree: Stage) -> None:
    tree.idle = {"dev-21"}
    tree.order("cloud", 1, deadline=10.0)
    tree.stopped = {"dev-21"}
    tree.advance(8.1)
    assert tree.failures("cloud") == [(1, "node-2: no upload from dev-21 within 8 s")]


def test_what_fails_above_ends_work_below(tree: Stage) -> None:
    tree.idle = {"dev-11"}
    tree.order("cloud", 1)
    tree.happen("cloud", Cancel(1, "the operator stopped the run"))
    tree.run()
    assert tree.failures("node-1") == [(1, "the operator stopped the run")]
    for name in ("node-1", "node-2", "dev-11", "dev-12"):
        assert tree.voices[name].up.phase is participant.Phase.READY


def test_a_round_that_another_node_fails_is_cancelled_here(tree: Stage) -> None:
    tree.idle = {"dev-11", "dev-21"}
    tree.order("cloud", 1)
    tree.happen("dev-21", NoContribution(1, "too hot"))
    tree.run()
    assert tree.failures("node-1") == [(1, "node-2: dev-21: too hot")]
    assert tree.voices["dev-11"].up.phase is participant.Phase.READY


def test_a_node_with_too_few_beneath_withdraws_and_comes_back(tree: Stage) -> None:
    tree.lose("dev-22")
    assert tree.voices["node-2"].up.phase is participant.Phase.IDLE
    assert tree.message(tree.letters(wire.Leave, sender="node-2")[-1].data) == wire.Leave(
        "too few members beneath"
    )
    assert "node-2" not in tree.voices["cloud"].down.members
    tree.device("dev-22", "node-2")
    tree.happen("dev-22", Begin(1))
    tree.run()
    tree.advance(6)
    tree.order("cloud", 1)
    assert tree.sums("cloud")[0].plan.cohort == ("node-1", "node-2")


def test_a_node_goes_on_serving_its_devices_while_its_parent_is_away(tree: Stage) -> None:
    """It keeps their epoch, and takes in a newcomer."""

    def carry(letter: Letter) -> list[Letter]:
        return [] if "cloud" in (letter.sender, letter.to) else [letter]

    tree.carry = carry
    tree.device("dev-13", "node-1")
    tree.happen("dev-13", Begin(1))
    tree.run()
    tree.advance(20)
    assert tuple(tree.voices["node-1"].down.members) == ("dev-11", "dev-12", "dev-13")
    assert tree.voices["dev-13"].up.phase is participant.Phase.READY


def test_a_model_that_comes_late_to_a_node_holds_up_its_devices_no_longer_than_the_deadline(
    tree: Stage,
) -> None:
    tree.order("cloud", 1, model_version=1, model_hash=b"1" * 32)
    assert tree.voices["node-1"].down.phase is aggregator.Phase.READY
    for name in tree.voices:
        if name != "cloud":
            tree.happen(name, ModelHeld(1, b"1" * 32))
    tree.run()
    assert len(tree.sums("cloud")) == 1


@pytest.mark.parametrize("tier", ["device", "cloud"])
def test_an_event_for_the_end_a_tier_does_not_have_is_our_own_error(
    trio: Stage, order: OrderOf, tier: str
) -> None:
    name = "dev-1" if tier == "device" else "cloud"
    here = trio.voices[name]
    events: dict[str, list[Event]] = {
        "device": [order(1), Cancel(1, "?"), Gone("dev-2", bytes(8), "?")],
        "cloud": [Begin(1), ModelHeld(1, bytes(32)), NoContribution(1, "?")],
    }
    for event in events[tier]:
        with pytest.raises(LocalError, match=f"{type(event).__name__} has no end"):
            joint.step(here.endpoint.joint, event, trio.now, here.entropy)


def test_a_tier_is_due_when_the_first_of_its_ends_is(tree: Stage) -> None:
    both = tree.voices["node-1"].endpoint.joint
    up, down = both.up, both.down
    assert up is not None
    assert down is not None
    for above, below, due in ((5.0, 3.0, 3.0), (5.0, None, 5.0), (None, 3.0, 3.0)):
        assert Joint(replace(up, wake=above), replace(down, wake=below)).wake == due
    assert Joint(replace(up, wake=None), replace(down, wake=None)).wake is None
    assert Joint(None, None).wake is None


def test_a_tick_reaches_both_ends(tree: Stage) -> None:
    node = tree.voices["node-1"]
    late = tree.now + 1000
    joint_, _ = joint.step(node.endpoint.joint, Tick(), late, node.entropy)
    assert joint_.up is not None
    assert joint_.up.wake is not None
    assert joint_.up.wake > late


def test_a_lone_device_beneath_a_node_is_never_summed(stage: Stage) -> None:
    """Its 'sum' would be its own vector in clear."""
    stage.add("cloud", "cloud", limits=Limits(min_members=1, expected=1))
    stage.add("node", "node-1", "cloud", limits=Limits(min_members=1, expected=1))
    stage.device("dev-1", "node-1")
    stage.begin()
    stage.order("cloud", 1)
    assert not stage.sums("cloud")
    assert not stage.sums("node-1")
    assert not stage.letters(wire.Upload)
