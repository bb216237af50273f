"""A tier with two ends: what one end is asked, the other does."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import LocalError
from edgechoir.rounds import aggregator, joint, participant
from edgechoir.rounds.aggregator import Limits
from edgechoir.rounds.cohort import masked_vector, open_upload
from edgechoir.rounds.epoch import encoding_of
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
from edgechoir.types import Ring

if TYPE_CHECKING:
    from tests.rounds.conftest import Letter, OrderOf, Stage

LEAVES = ("dev-11", "dev-12", "dev-21", "dev-22")


def test_a_tree_adds_up_all_its_devices_bit_for_bit(tree: Stage) -> None:
    for round_, bits in ((1, 32), (2, 16), (3, 8), (4, 32)):
        tree.order("cloud", round_, bits=bits)
        done = tree.sums("cloud")[-1]
        assert done.survivors == done.plan.cohort == ("node-1", "node-2")
        plain: Ring = np.zeros_like(done.total)
        for name in LEAVES:
            plain += tree.vectors[name, round_]
        assert np.array_equal(done.total, plain)
        assert encoding_of(done.plan).decode(plain).devices == 4


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
        done = tree.sums(letter.sender)[0]
        contents = open_upload(kem, upload, letter.sender)
        masked = masked_vector(contents, encoding_of(done.plan), letter.sender)
        assert (masked != done.total).all()


def test_a_node_joins_its_parent_for_as_many_devices_as_are_beneath(tree: Stage) -> None:
    down = tree.voices["cloud"].down
    assert {name: c.entry.join.devices for name, c in down.members.items()} == {
        "node-1": 2,
        "node-2": 2,
    }
    assert tree.of("cloud", Membership)[-1].devices == 4


def test_each_tier_waits_a_little_less_than_the_one_above(tree: Stage) -> None:
    tree.order("cloud", 1, deadline=10.0)
    deadlines = {}
    for letter in tree.letters(wire.Call):
        call = tree.message(letter.data)
        assert isinstance(call, wire.Call)
        deadlines[letter.sender] = wire.decode_as(wire.Plan, call.plan).deadline
    assert deadlines == {"cloud": 10.0, "node-1": 10 * HEADROOM, "node-2": 10 * HEADROOM}


def test_what_fails_below_fails_above_with_its_reason(tree: Stage) -> None:
    tree.idle = {"dev-21"}
    tree.order("cloud", 1)
    tree.happen("dev-21", NoContribution(1, "no samples yet"))
    tree.run()
    below = "1 uploads, 2 are needed: dev-21 gave up (no samples yet)"
    assert tree.failures("node-2") == [(1, below)]
    assert tree.failures("cloud") == [(1, f"1 uploads, 2 are needed: node-2 gave up ({below})")]
    assert [done.plan.round for done in tree.sums("node-1")] == [1]
    tree.idle = set()
    tree.order("cloud", 2)
    assert len(tree.sums("cloud")) == 1


def test_a_deadline_missed_below_is_told_above_before_its_own_has_passed(tree: Stage) -> None:
    tree.idle = {"dev-21"}
    tree.order("cloud", 1, deadline=10.0)
    tree.stopped = {"dev-21"}
    tree.advance(7.4)
    ((_, reason),) = tree.failures("cloud")
    assert reason.endswith("node-2 gave up (1 uploads, 2 are needed: dev-21 had not uploaded)")


def test_answers_missed_below_are_told_above_before_its_uploads_are_due(tree: Stage) -> None:
    """The last that can go wrong in a node, at the last moment."""

    def carry(letter: Letter) -> list[Letter]:
        answers = letter.data[3] == wire.Answer.KIND
        return [] if answers and letter.sender == "dev-22" else [letter]

    tree.carry = carry
    tree.order("cloud", 1, deadline=10.0)
    tree.advance(9.0)
    below = "1 answers, 2 are needed; silent: dev-22"
    assert tree.failures("node-2") == [(1, below)]
    assert tree.failures("cloud") == [(1, f"1 uploads, 2 are needed: node-2 gave up ({below})")]
    assert Limits().collecting > HEADROOM


def test_a_node_whose_device_is_away_gives_the_sum_of_the_others(stage: Stage) -> None:
    """Three beneath it, so one may be absent; above, nobody notices but by the count."""
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for node in ("node-1", "node-2"):
        stage.add("node", node, "cloud", limits=Limits(expected=3))
        for i in (1, 2, 3):
            stage.device(f"{node.replace('node', 'dev')}{i}", node)
    stage.begin()
    stage.idle = {"dev-12"}
    stage.order("cloud", 1)
    stage.lose("dev-12")
    (done,) = stage.sums("cloud")
    assert stage.sums("node-1")[0].survivors == ("dev-11", "dev-13")
    plain: Ring = np.zeros_like(done.total)
    for name in ("dev-11", "dev-13", "dev-21", "dev-22", "dev-23"):
        plain += stage.vectors[name, 1]
    assert np.array_equal(done.total, plain)
    assert encoding_of(done.plan).decode(done.total).devices == 5


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
    ((_, reason),) = tree.failures("node-1")
    assert "node-2 gave up (1 uploads, 2 are needed: dev-21 gave up (too hot))" in reason
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


def test_a_node_that_has_grown_gives_no_more_devices_than_its_parent_knows(tree: Stage) -> None:
    """A third device is being keyed while the plan arrives: the sum would count one too many."""
    held: list[Letter] = []

    def carry(letter: Letter) -> list[Letter]:
        if letter.sender == "dev-13" and letter.data[3] == wire.Bundles.KIND:
            held.append(letter)
            return []
        return [letter]

    tree.carry = carry
    tree.device("dev-13", "node-1")
    tree.happen("dev-13", Begin(1))
    tree.run()
    tree.advance(5.5)
    assert tree.voices["node-1"].down.phase is aggregator.Phase.KEYING
    tree.order("cloud", 1)
    tree.carry = lambda letter: [letter]
    tree.queue.extend(held)
    tree.run()
    assert tree.failures("node-1") == [(1, "3 devices are beneath now, the parent knows 2")]
    assert not tree.letters(wire.Upload, sender="node-1")
    tree.advance(10)
    assert tree.voices["cloud"].down.members["node-1"].entry.join.devices == 3
    tree.order("cloud", 2)
    (done,) = tree.sums("cloud")
    assert encoding_of(done.plan).decode(done.total).devices == 5


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
