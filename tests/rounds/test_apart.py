"""The root sees the sums of its nodes side by side where the policy allows it, nothing less."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import BadUpdate
from edgechoir.identity.policy import Policy
from edgechoir.learning.slots import slots
from edgechoir.rounds.aggregator import Limits
from edgechoir.rounds.cohort import check_sum, masked_vector, open_upload
from edgechoir.rounds.epoch import encoding_of, length_of, slots_of
from edgechoir.rounds.events import Gone, NoContribution
from edgechoir.rounds.joint import order_of

if TYPE_CHECKING:
    from tests.rounds.conftest import Stage

APART = Policy(min_devices=2, cohorts_apart=True)
NODES = ("node-1", "node-2", "node-3")


def grow(stage: Stage, policy: Policy, each: int = 2) -> Stage:
    """A cloud, three nodes, devices beneath each, keyed and ready for round 1."""
    stage.add("cloud", "cloud", limits=Limits(expected=len(NODES)))
    for node in NODES:
        stage.add("node", node, "cloud", limits=Limits(expected=each), policy=policy)
        for i in range(each):
            stage.device(f"{node}-{i}", node, policy=policy)
    stage.begin()
    return stage


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_the_root_sees_each_nodes_sum_bit_for_bit(stage: Stage, bits: int) -> None:
    grow(stage, APART).order("cloud", 1, apart=wire.APART, bits=bits)
    (done,) = stage.sums("cloud")
    assert slots_of(done.plan) == 3
    assert len(done.total) == length_of(done.plan)
    for node, own in zip(done.plan.cohort, slots(done.total, 3), strict=True):
        (beneath,) = stage.sums(node)
        assert beneath.plan.apart == wire.ABOVE
        assert np.array_equal(own, beneath.total)
        assert np.array_equal(own, stage.plain_sum(beneath))


def test_what_a_node_uploads_shows_nothing_in_any_slot(stage: Stage) -> None:
    """Masked, an empty slot looks like a full one."""
    grow(stage, APART).order("cloud", 1, apart=wire.APART)
    (done,) = stage.sums("cloud")
    kem = stage.voices["cloud"].down.kem
    assert kem is not None
    uploads = stage.letters(wire.Upload, to="cloud")
    assert len(uploads) == 3
    for letter in uploads:
        upload = stage.message(letter.data)
        assert isinstance(upload, wire.Upload)
        contents = open_upload(kem, upload, letter.sender)
        masked = masked_vector(contents, encoding_of(done.plan), letter.sender, 3)
        true = slots(done.total, 3)
        for own, plain in zip(slots(masked, 3), true, strict=True):
            assert np.count_nonzero(own) > len(own) / 2
            assert not np.array_equal(own, plain)


def test_a_node_that_is_lost_leaves_its_slot_empty(stage: Stage) -> None:
    grow(stage, APART)
    stage.order("cloud", 1, apart=wire.APART)
    lost = stage.voices["node-2"].instance
    stage.idle = {"node-2-0"}  # so that its node has not uploaded when it is lost
    stage.order("cloud", 2, apart=wire.APART)
    stage.happen("cloud", Gone("node-2", lost, "was lost"))
    stage.run()
    done = stage.sums("cloud")[-1]
    assert done.plan.round == 2
    assert done.survivors == ("node-1", "node-3")
    first, second, third = slots(done.total, 3)
    assert first.any()
    assert not second.any()
    assert third.any()


def test_a_policy_without_it_lets_no_cohort_be_seen(stage: Stage) -> None:
    grow(stage, Policy(min_devices=2)).order("cloud", 1, apart=wire.APART)
    assert not stage.sums("cloud")
    assert any("no cohorts_apart" in one for one in stage.refusals("node-1"))


def test_a_device_is_told_and_refuses_too(stage: Stage) -> None:
    """A node that follows no policy still has to say it to its devices, or lie to all of them."""
    grow(stage, Policy(min_devices=2)).order("node-1", 1, apart=wire.ABOVE)
    assert any("no cohorts_apart" in one for one in stage.refusals("node-1-0"))
    assert not stage.sums("node-1")


def test_a_sum_of_fewer_devices_than_a_nodes_policy_asks_for_is_not_seen(stage: Stage) -> None:
    """Three are beneath each node, one of them has nothing to give: the node keeps its sum."""
    limits = Limits(expected=3, colluders_one_in=0)
    stage.add("cloud", "cloud", limits=limits)
    lenient = Policy(min_devices=2, colluders_one_in=0, cohorts_apart=True)
    for node in NODES:
        strict = Policy(min_devices=3, colluders_one_in=0, cohorts_apart=True)
        stage.add("node", node, "cloud", limits=limits, policy=strict)
        for i in range(3):
            stage.device(f"{node}-{i}", node, policy=lenient)
    stage.begin()
    stage.idle = {"node-1-0"}
    stage.order("cloud", 1, apart=wire.APART)
    stage.happen("node-1-0", NoContribution(1, "no samples yet"))
    stage.run()
    assert len(stage.sums("node-1")) == 1
    (done,) = stage.sums("cloud")
    assert done.survivors == ("node-2", "node-3")
    reasons = [stage.message(one.data) for one in stage.letters(wire.Abort, sender="node-1")]
    assert "a sum of 2 devices, 3 are needed" in str(reasons)


def test_a_device_beneath_the_root_ends_the_round_with_the_reason(trio: Stage) -> None:
    trio.order("cloud", 1, apart=wire.APART)
    ((round_, reason),) = trio.failures("cloud")
    assert round_ == 1
    assert "dev-1 is a device, whose vector would be seen alone" in reason
    assert not trio.letters(wire.Upload)


def test_the_tiers_below_make_one_sum_and_know_who_sees_it(stage: Stage) -> None:
    grow(stage, APART).order("cloud", 1, apart=wire.APART)
    plan = stage.sums("cloud")[0].plan
    below = order_of(plan, 1.0)
    assert below.apart == wire.ABOVE
    assert order_of(stage.sums("node-1")[0].plan, 1.0).apart == wire.ABOVE
    stage.order("cloud", 2)
    assert stage.sums("node-1")[-1].plan.apart == wire.TOGETHER


def test_a_slot_that_ought_to_be_empty_ends_the_turn(stage: Stage) -> None:
    grow(stage, APART)
    stage.idle = {"node-2-0"}
    stage.order("cloud", 1, apart=wire.APART)
    turn = stage.voices["cloud"].down.turn
    assert turn is not None
    turn = replace(turn, survivors=("node-1", "node-3"))
    own = [stage.sums(name)[0].total for name in ("node-1", "node-3")]
    check_sum(turn, np.concatenate([own[0], np.zeros_like(own[0]), own[1]]))
    with pytest.raises(BadUpdate, match="slot of node-2, which is not in the sum, is not empty"):
        check_sum(turn, np.concatenate([own[0], own[0], own[1]]))


def test_sums_that_fit_into_no_upload_are_refused(stage: Stage) -> None:
    grow(stage, APART).order("cloud", 1, apart=wire.APART, dimension=wire.MAX_DIMENSION // 2)
    ((_, reason),) = stage.failures("cloud")
    assert "3 sums of" in reason
    assert "do not fit into one upload" in reason
