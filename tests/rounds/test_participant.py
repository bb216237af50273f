"""A member sings once per round, masked, in a cohort it accepts, and refuses the rest by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import BadUpdate, OutOfPlace, Replayed
from edgechoir.identity.keys import sign
from edgechoir.learning.fixed_point import Encoding
from edgechoir.rounds import participant
from edgechoir.rounds.aggregator import Limits, open_upload
from edgechoir.rounds.endpoint import Outcome, Outgoing
from edgechoir.rounds.epoch import roster_hash
from edgechoir.rounds.events import (
    Abandon,
    Begin,
    Contribution,
    ModelHeld,
    NoContribution,
    Received,
    Record,
    Refused,
    Tick,
    ToParent,
    Withdraw,
    Work,
)
from edgechoir.rounds.participant import JOIN_RETRY_S, KEYING_S, QUIET_S, Participant, Phase, Policy
from edgechoir.secagg.chains import MAX_JUMP
from edgechoir.secagg.sealing import new_kem_key, seal

if TYPE_CHECKING:
    from tests.rounds.conftest import Letter, Stage

DEVICES = ("dev-1", "dev-2", "dev-3")


def up(stage: Stage, name: str = "dev-1") -> Participant:
    return stage.voices[name].up


def last_plan(stage: Stage) -> wire.Plan:
    plan = stage.message(stage.letters(wire.Plan)[-1].data)
    assert isinstance(plan, wire.Plan)
    return plan


def show(stage: Stage, message: wire.Message, to: str = "dev-1") -> list[Outcome]:
    """The parent says this to one member."""
    parent = stage.voices[to].parent
    assert parent is not None
    return stage.receive(to, stage.sign(parent, message))


def said(stage: Stage, outcomes: list[Outcome]) -> list[wire.Message]:
    return [stage.message(one.data) for one in outcomes if isinstance(one, Outgoing)]


def refusal(outcomes: list[Outcome]) -> Refused:
    (refused,) = (one for one in outcomes if isinstance(one, Refused))
    return refused


def plan_for(stage: Stage, round_: int = 1, **changes: Any) -> wire.Plan:
    """A plan as the cloud would publish it for the whole trio."""
    down, model = stage.voices["cloud"].down, up(stage).model
    assert model is not None
    plan = wire.Plan(
        epoch=down.epoch,
        round=round_,
        roster=down.roster,
        cohort=DEVICES,
        model_version=0,
        model_hash=model[1],
        dimension=12,
        devices=10,
        clip=1.0,
        max_samples=100,
        epochs=1,
        batch_size=8,
        learning_rate=0.1,
        seed=0,
        deadline=8.0,
    )
    return replace(plan, **changes)


# ---- joining


def test_a_member_asks_again_ever_more_seldom_until_it_is_let_in(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    stage.device("dev-1", "cloud")
    began = stage.now
    asked: list[float] = []

    def carry(letter: Letter) -> list[Letter]:
        asked.append(stage.now - began)
        return []

    stage.carry = carry
    stage.begin()
    stage.advance(150)
    pauses = np.diff(asked)
    assert asked[0] == 0
    assert np.allclose(pauses, [JOIN_RETRY_S * f for f in (1, 2, 4, 8, 16, 16)])
    stage.carry = lambda letter: [letter]
    stage.device("dev-2", "cloud")
    stage.happen("dev-2", Begin(1))
    stage.run()
    stage.advance(50)
    assert up(stage).phase is Phase.READY


def test_a_tick_before_its_time_does_nothing(trio: Stage) -> None:
    for phase, name in ((Phase.READY, "dev-1"), (Phase.WORKING, "dev-3")):
        trio.idle = {"dev-3"}
        if phase is Phase.WORKING:
            trio.order("cloud", 1)
        state = up(trio, name)
        assert state.phase is phase
        assert state.wake is not None
        after = participant.step(state, Tick(), state.wake - 0.01, trio.voices[name].entropy)
        assert after == (state, [])


def test_every_time_it_joins_it_has_a_fresh_key(trio: Stage) -> None:
    for _ in range(3):
        trio.happen("dev-1", Begin(1))
        trio.run()
    joins = [trio.message(one.data) for one in trio.letters(wire.Join, sender="dev-1")]
    keys = {join.kem for join in joins if isinstance(join, wire.Join)}
    assert len(keys) == len(joins)


def test_a_quiet_parent_is_offered_the_next_key_again(trio: Stage) -> None:
    before = len(trio.letters(wire.Join, sender="dev-1"))
    trio.advance(QUIET_S + 0.1)
    joins = [trio.message(one.data) for one in trio.letters(wire.Join, sender="dev-1")]
    assert len(joins) == before + 1
    assert isinstance(joins[-1], wire.Join)
    assert joins[-1].renew == 1
    kem = up(trio).kem
    assert kem is not None
    assert joins[-1].kem == kem.public
    assert trio.voices["cloud"].down.epoch == 1, "nothing new for a parent that still knows it"


def test_a_parent_that_has_dropped_it_lets_it_in_on_that_offer(trio: Stage) -> None:
    cloud = trio.voices["cloud"].endpoint
    down = trio.voices["cloud"].down
    others = {name: child for name, child in down.members.items() if name != "dev-1"}
    cloud.joint = replace(cloud.joint, down=replace(down, members=others))
    trio.advance(QUIET_S + 6)
    assert "dev-1" in trio.voices["cloud"].down.members
    trio.order("cloud", 1)
    assert trio.sums("cloud")[0].plan.cohort == DEVICES


def test_who_withdraws_says_so_and_hears_no_more(trio: Stage) -> None:
    outcomes = trio.happen("dev-1", Withdraw("battery low"))
    assert said(trio, outcomes) == [wire.Leave("battery low")]
    state = up(trio)
    assert (state.phase, state.kem, state.wake) == (Phase.IDLE, None, None)
    assert not state.chains
    assert not state.secrets
    trio.run()
    trio.order("cloud", 1)
    assert up(trio).phase is Phase.IDLE
    assert len(trio.sums("cloud")) == 1


def test_any_reason_can_be_given_for_leaving(trio: Stage) -> None:
    (leave,) = said(trio, trio.happen("dev-1", Withdraw("ü" * 500 + "\ud800")))
    assert leave == wire.Leave("ü" * 150)


# ---- rosters


def test_a_roster_of_an_earlier_epoch_is_a_replay_and_the_same_one_is_nothing_new(
    trio: Stage,
) -> None:
    roster = trio.message(trio.letters(wire.Roster, to="dev-1")[-1].data)
    assert isinstance(roster, wire.Roster)
    before = up(trio)
    assert show(trio, roster) == []
    for changed in (replace(roster, epoch=0), replace(roster, first_round=9)):
        assert isinstance(refusal(show(trio, changed)).error, Replayed)
    assert up(trio) is before


def test_a_roster_without_it_makes_a_member_ask_in_again(trio: Stage) -> None:
    roster = trio.message(trio.letters(wire.Roster, to="dev-1")[-1].data)
    assert isinstance(roster, wire.Roster)
    (join,) = said(trio, show(trio, replace(roster, epoch=5, joins=roster.joins[1:])))
    assert isinstance(join, wire.Join)
    assert (join.last_epoch, join.renew) == (5, 0)
    assert up(trio).phase is Phase.OUT
    assert not up(trio).chains


def test_a_roster_with_an_old_key_of_its_makes_a_member_ask_in_again(trio: Stage) -> None:
    """The private half of the first key is gone."""
    roster = trio.message(trio.letters(wire.Roster, to="dev-1")[-1].data)
    assert isinstance(roster, wire.Roster)
    (join,) = said(trio, show(trio, replace(roster, epoch=5, first_round=5)))
    assert isinstance(join, wire.Join)
    assert up(trio).phase is Phase.OUT


def test_a_roster_with_an_exchanged_key_is_refused(stage: Stage) -> None:
    """The aggregator's own key in the place of dev-2's: nothing is sealed to it."""
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
    own = new_kem_key(stage.voices["cloud"].entropy).public

    def carry(letter: Letter) -> list[Letter]:
        if letter.data[3] != wire.Roster.KIND:
            return [letter]
        roster = stage.message(letter.data)
        assert isinstance(roster, wire.Roster)
        known = up(stage, "dev-2").kem
        assert known is not None
        joins = tuple(join.replace(known.public, own) for join in roster.joins)
        assert joins != roster.joins
        return [replace(letter, data=stage.sign("cloud", replace(roster, joins=joins)))]

    stage.carry = carry
    stage.begin()
    for name in DEVICES:
        assert up(stage, name).phase is Phase.OUT
        assert stage.voices[name].endpoint.drops == {"bad_signature": 1}
    assert not stage.letters(wire.Bundles)


def test_a_roster_below_a_members_minimum_is_refused(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    stage.device("dev-1", "cloud", policy=Policy(min_cohort=3))
    stage.device("dev-2", "cloud")
    stage.begin()
    assert up(stage).phase is Phase.OUT
    assert stage.voices["dev-1"].endpoint.drops == {"policy": 1}
    assert stage.refusals("dev-1") == ["a roster of 2 is below this member's minimum 3"]
    assert not stage.letters(wire.Bundles, sender="dev-1")


def test_a_roster_that_would_begin_in_a_spent_round_is_refused(trio: Stage) -> None:
    """A member restarted with its journal; an aggregator that would have it sing round 5 again."""
    trio.voices["cloud"].endpoint.release(up(trio).who.address, trio.voices["dev-1"].instance)
    trio.device("dev-1", "cloud", last_round=5)

    def carry(letter: Letter) -> list[Letter]:
        if letter.data[3] != wire.Roster.KIND or letter.to != "dev-1":
            return [letter]
        roster = trio.message(letter.data)
        assert isinstance(roster, wire.Roster)
        assert roster.first_round == 6
        return [replace(letter, data=trio.sign("cloud", replace(roster, first_round=5)))]

    trio.carry = carry
    trio.happen("dev-1", Begin(1, last_round=3))
    trio.run()
    trio.advance(5.5)
    assert trio.refusals("dev-1") == ["roster starts at round 5, 5 is spent"]
    assert up(trio).phase is Phase.OUT


def test_a_new_epoch_interrupts_work(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    trio.order("cloud", 1)
    kems = {name: up(trio, name).kem for name in DEVICES}
    joins = tuple(
        trio.sign(name, wire.Join("cloud", kem.public, 1, 0, 1, 0))
        for name, kem in kems.items()
        if kem is not None
    )
    outcomes = show(trio, wire.Roster(2, 9, up(trio).aggregator_kem, joins))
    assert Abandon(1, "a new epoch has begun") in outcomes
    assert up(trio).phase is Phase.KEYING
    assert [type(message) for message in said(trio, outcomes)] == [wire.Bundles]


# ---- bundles and deliveries


def test_secrets_and_the_opened_key_are_gone_once_chains_exist(trio: Stage) -> None:
    state = up(trio)
    assert set(state.chains) == {"dev-2", "dev-3"}
    assert not state.secrets
    assert state.kem is not None
    assert state.kem.public != state.entries["dev-1"].join.kem


def test_a_forged_bundle_is_refused_named_and_its_sender_not_sung_with(stage: Stage) -> None:
    """The aggregator knows every public key, so it can seal; it cannot sign for dev-2."""
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")

    def carry(letter: Letter) -> list[Letter]:
        if letter.data[3] != wire.Delivery.KIND or letter.to != "dev-1":
            return [letter]
        delivery = stage.message(letter.data)
        assert isinstance(delivery, wire.Delivery)
        names = b"edgechoir bundle\0" + delivery.roster + b"dev-2\0dev-1\0"
        secret = b"known to the aggregator, 32 byte"
        inside = secret + sign(stage.voices["cloud"].identity.key, names + secret)
        forged = seal(up(stage).entries["dev-1"].join.kem, inside, names)
        sealed = tuple((by, forged if by == "dev-2" else box) for by, box in delivery.sealed)
        return [replace(letter, data=stage.sign("cloud", replace(delivery, sealed=sealed)))]

    stage.carry = carry
    stage.begin()
    assert set(up(stage).chains) == {"dev-3"}
    assert stage.voices["dev-1"].endpoint.drops == {"bad_signature": 1}
    assert stage.refusals("dev-1")[0].startswith("the bundle of 'dev-2': the signature")
    stage.order("cloud", 1)
    assert stage.failures("cloud") == [(1, "dev-1: no pair secret with dev-2")]
    assert not stage.letters(wire.Upload, sender="dev-1")


def test_a_delivery_for_another_epoch_is_out_of_place(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
    held: list[Letter] = []

    def carry(letter: Letter) -> list[Letter]:
        if letter.to == "dev-1" and letter.data[3] == wire.Delivery.KIND:
            held.append(letter)
            return []
        return [letter]

    stage.carry = carry
    stage.begin()
    delivery = stage.message(held[0].data)
    assert isinstance(delivery, wire.Delivery)
    for changed in (replace(delivery, epoch=2), replace(delivery, roster=bytes(32))):
        assert isinstance(refusal(show(stage, changed)).error, OutOfPlace)
    assert up(stage).phase is Phase.KEYING
    show(stage, delivery)
    assert up(stage).phase is Phase.READY


@pytest.fixture
def keying(stage: Stage) -> Stage:
    """A trio in its second epoch; dev-1's delivery is held back."""
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
    stage.begin()
    stage.order("cloud", 1)

    def carry(letter: Letter) -> list[Letter]:
        lost = letter.to == "dev-1" and letter.data[3] == wire.Delivery.KIND
        return [] if lost else [letter]

    stage.carry = carry
    stage.happen("dev-3", Begin(1))
    stage.run()
    assert up(stage).phase is Phase.KEYING
    assert up(stage, "dev-2").phase is Phase.READY
    return stage


def delivery_for(stage: Stage, name: str) -> wire.Delivery:
    """What the cloud has sent to a member in this epoch, whether it arrived or not."""
    (data,) = (
        out.data
        for who, out in stage.outcomes
        if who == "cloud" and isinstance(out, Outgoing) and out.member == name
        if getattr(stage.message(out.data), "epoch", 0) == stage.voices["cloud"].down.epoch
    )
    message = stage.message(data)
    assert isinstance(message, wire.Delivery)
    return message


def test_a_delivery_that_never_comes_makes_a_member_join_anew(keying: Stage) -> None:
    keying.advance(KEYING_S + 0.1)
    assert up(keying).phase in (Phase.OUT, Phase.KEYING)
    assert len(keying.letters(wire.Join, sender="dev-1")) > 2


def test_a_plan_that_overtakes_the_delivery_waits_for_it(keying: Stage) -> None:
    keying.order("cloud", 2)
    assert up(keying).phase is Phase.KEYING
    assert up(keying).early is not None
    show(keying, delivery_for(keying, "dev-1"))
    keying.run()
    (_, done) = keying.sums("cloud")
    assert done.plan.round == 2
    assert np.array_equal(done.total, keying.plain_sum(done))


def test_an_old_plan_read_while_keying_does_not_cost_the_delivery(keying: Stage) -> None:
    """A plan of the epoch before, late on its way: refused, and the new epoch goes on."""
    show(keying, plan_for(keying, 1, epoch=1, roster=bytes(32)))
    outcomes = show(keying, delivery_for(keying, "dev-1"))
    assert isinstance(refusal(outcomes).error, OutOfPlace)
    assert up(keying).phase is Phase.READY
    keying.run()
    keying.order("cloud", 2)
    assert len(keying.sums("cloud")) == 2


# ---- plans it will not follow


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"cohort": ("dev-1",)}, "policy", "a cohort of 1 is below this member's minimum 2"),
        ({"clip": 100.5}, "policy", "clip 100.5 is above this member's 100.0"),
        ({"cohort": (*DEVICES, "dev-4")}, "policy", "no pair secret with dev-4"),
        ({"cohort": ("dev-1", "dev-2", "dev-2")}, "malformed", "names a member twice"),
        ({"cohort": ("dev-1", "dev-1", "dev-2")}, "malformed", "names a member twice"),
        ({"round": MAX_JUMP + 2}, "out_of_place", "is not within 1..4097 of the chain"),
        ({"round": 2**32 - 1}, "out_of_place", "of the chain"),
        ({"devices": 10**6, "max_samples": 10**6}, "bad_update", "overflow a 32-bit ring"),
        ({"clip": 5e-324}, "bad_update", "a clip of 4.94066e-324"),
    ],
)
def test_a_plan_it_cannot_accept_is_answered_with_the_reason(
    trio: Stage, changes: dict[str, Any], reason: str, message: str
) -> None:
    outcomes = show(trio, replace(plan_for(trio), **changes))
    (abort,) = said(trio, outcomes)
    assert isinstance(abort, wire.Abort)
    assert message in abort.reason
    assert abort.round == changes.get("round", 1)
    assert trio.voices["dev-1"].endpoint.drops == {reason: 1}
    assert up(trio).phase is Phase.READY
    assert up(trio).last_round == 0, "nothing was spent"
    trio.queue.clear()
    trio.order("cloud", 1)
    assert len(trio.sums("cloud")) == 1, "a sound plan is followed all the same"


def test_a_cohort_below_its_minimum_ends_the_round_and_is_counted_as_policy(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    stage.device("dev-1", "cloud", policy=Policy(min_cohort=3))
    for name in DEVICES[1:]:
        stage.device(name, "cloud")
    stage.begin()
    stage.order("cloud", 1)
    assert len(stage.sums("cloud")) == 1
    stage.lose("dev-3")
    stage.order("cloud", 2)
    reason = "dev-1: a cohort of 2 is below this member's minimum 3"
    assert stage.failures("cloud") == [(2, reason)]
    assert stage.voices["dev-1"].endpoint.drops == {"policy": 1}


def test_the_largest_clip_it_allows_is_allowed(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for name in DEVICES[:2]:
        stage.device(name, "cloud", policy=Policy(max_clip=2.0))
    stage.begin()
    stage.order("cloud", 1, clip=2.0)
    assert len(stage.sums("cloud")) == 1
    stage.order("cloud", 2, clip=2.0000001)
    ((_, reason),) = stage.failures("cloud")
    assert "clip 2.0000001 is above this member's 2.0" in reason


def test_a_plan_for_fewer_devices_than_it_stands_for_is_refused(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
        stage.happen(name, Begin(4))
    stage.run()
    outcomes = show(stage, plan_for(stage, devices=3))
    assert "4 devices here, the plan is for 3 in all" in str(refusal(outcomes).error)


@pytest.mark.parametrize("round_", [0, 1, 2])
def test_a_plan_of_a_spent_round_is_a_replay(trio: Stage, round_: int) -> None:
    trio.order("cloud", 1)
    trio.order("cloud", 2)
    before = up(trio)
    changed = plan_for(trio, round_, seed=77)
    assert isinstance(refusal(show(trio, changed)).error, Replayed)
    assert up(trio) is before


def test_a_plan_of_another_epoch_is_out_of_place(trio: Stage) -> None:
    before = up(trio)
    for changed in (plan_for(trio, epoch=2), plan_for(trio, roster=bytes(32))):
        assert isinstance(refusal(show(trio, changed)).error, OutOfPlace)
    assert up(trio) is before


def test_a_plan_without_it_makes_a_member_ask_in_again(trio: Stage) -> None:
    (join,) = said(trio, show(trio, plan_for(trio, cohort=("dev-2", "dev-3"))))
    assert isinstance(join, wire.Join)
    assert join.renew == 0
    assert up(trio).phase is Phase.OUT


def test_the_same_plan_again_is_nothing_new(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    trio.order("cloud", 1)
    before = up(trio)
    assert show(trio, last_plan(trio)) == []
    assert up(trio) is before


# ---- the model, and work


def test_a_plan_for_another_model_waits_until_it_is_here(trio: Stage) -> None:
    trio.order("cloud", 1, model_version=3, model_hash=b"3" * 32)
    assert {up(trio, name).phase for name in DEVICES} == {Phase.WAITING}
    assert not trio.of("dev-1", Work)
    for version, digest in ((3, b"x" * 32), (2, b"3" * 32)):
        assert trio.happen("dev-1", ModelHeld(version, digest)) == []
    for name in DEVICES:
        trio.happen(name, ModelHeld(3, b"3" * 32))
    trio.run()
    (done,) = trio.sums("cloud")
    assert np.array_equal(done.total, trio.plain_sum(done))


def test_a_model_that_does_not_come_is_given_up_at_the_deadline(trio: Stage) -> None:
    outcomes = show(trio, plan_for(trio, model_version=3, model_hash=b"3" * 32, deadline=5.0))
    assert outcomes == []
    trio.advance(5.1)
    reason = "model version 3 did not arrive before the deadline"
    assert trio.of("dev-1", Abandon) == [Abandon(1, reason)]
    assert trio.message(trio.letters(wire.Abort, sender="dev-1")[-1].data) == wire.Abort(1, reason)
    assert up(trio).phase is Phase.READY
    trio.happen("dev-1", ModelHeld(3, b"3" * 32))
    assert not trio.of("dev-1", Work)


def test_work_that_takes_too_long_is_given_up(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    show(trio, plan_for(trio, deadline=5.0))
    trio.advance(5.1)
    reason = "the work was not done within 5 s"
    assert trio.of("dev-1", Abandon) == [Abandon(1, reason)]
    assert trio.message(trio.letters(wire.Abort, sender="dev-1")[-1].data) == wire.Abort(1, reason)
    trio.train("dev-1", plan_for(trio))
    trio.run()
    assert not trio.letters(wire.Upload, sender="dev-1"), "too late is not sent"


def test_a_round_that_the_parent_ends_is_abandoned(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    show(trio, plan_for(trio))
    assert show(trio, wire.Abort(9, "another round")) == []
    assert up(trio).phase is Phase.WORKING
    assert show(trio, wire.Abort(1, "dev-2 was lost")) == [Abandon(1, "dev-2 was lost")]
    assert up(trio).phase is Phase.READY
    trio.train("dev-1", plan_for(trio))
    assert not trio.queue


def test_the_next_plan_ends_work_on_the_one_before(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    show(trio, plan_for(trio, 1))
    outcomes = show(trio, plan_for(trio, 2))
    assert [type(one) for one in outcomes] == [Abandon, Work]
    old, new = plan_for(trio, 1), plan_for(trio, 2)
    trio.train("dev-1", old)
    assert not trio.queue, "the vector of round 1 has no place in round 2"
    trio.train("dev-1", new)
    assert up(trio).phase is Phase.SENT


def test_work_that_is_not_possible_is_given_up_with_the_reason(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    show(trio, plan_for(trio))
    assert trio.happen("dev-1", NoContribution(7, "another round")) == []
    outcomes = trio.happen("dev-1", NoContribution(1, "no samples yet"))
    assert said(trio, outcomes) == [wire.Abort(1, "no samples yet")]
    assert up(trio).phase is Phase.READY


@pytest.mark.parametrize("length", [17, 19])
def test_a_vector_of_another_length_never_leaves(trio: Stage, length: int) -> None:
    trio.idle = {"dev-1"}
    show(trio, plan_for(trio))
    outcomes = trio.happen("dev-1", Contribution(1, np.zeros(length, np.uint32)))
    (abort,) = said(trio, outcomes)
    assert isinstance(abort, wire.Abort)
    assert "expected (18,)" in abort.reason
    assert up(trio).last_round == 0


def test_a_vector_beyond_its_devices_share_never_leaves(trio: Stage) -> None:
    """Else the sum could wrap, and nobody could tell."""
    trio.idle = {"dev-1"}
    plan = plan_for(trio)
    show(trio, plan)
    vector = np.zeros(18, np.uint32)
    vector[3] = Encoding(plan.dimension, plan.devices, plan.clip, plan.max_samples).share + 1
    (abort,) = said(trio, trio.happen("dev-1", Contribution(1, vector)))
    assert isinstance(abort, wire.Abort)
    assert "exceeds what 1 devices may add up to" in abort.reason


# ---- once, and only forward


def test_that_pads_are_spent_is_recorded_before_the_upload_is_sent(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    show(trio, plan_for(trio))
    state = up(trio)
    vector = np.zeros(18, np.uint32)
    after, effects = participant.step(
        state, Contribution(1, vector), trio.now, trio.voices["dev-1"].entropy
    )
    record, to_parent = effects
    assert isinstance(record, Record)
    assert isinstance(to_parent, ToParent)
    assert (record.epoch, record.round) == (1, 1)
    assert record.upload == wire.encode(to_parent.message)
    assert (after.phase, after.last_round) == (Phase.SENT, 1)


def test_a_second_vector_for_a_round_is_not_sent(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    before = up(trio)
    other = np.ones(18, np.uint32)
    assert trio.happen("dev-1", Contribution(1, other)) == []
    assert up(trio) is before


def test_the_chains_of_a_spent_round_cannot_be_derived_any_more(trio: Stage) -> None:
    earlier = up(trio).chains
    trio.order("cloud", 3)
    state = up(trio)
    for them, chain in state.chains.items():
        assert chain.round == 4
        assert chain.key == earlier[them].at(4).key
        for round_ in (1, 2, 3):
            with pytest.raises(OutOfPlace):
                chain.at(round_)


def test_rounds_may_be_skipped(trio: Stage) -> None:
    for round_ in (1, 5, 60):
        trio.order("cloud", round_)
    assert [one.plan.round for one in trio.sums("cloud")] == [1, 5, 60]
    for done in trio.sums("cloud"):
        assert np.array_equal(done.total, trio.plain_sum(done))


# ---- a lying aggregator


def test_members_that_were_shown_different_plans_do_not_add_up(trio: Stage) -> None:
    """dev-1 trains another model than the rest; the pads with it stay in the sum as noise."""
    cloud = trio.voices["cloud"]
    plan = plan_for(trio)
    for name in DEVICES:
        trio.idle = set()
        shown = replace(plan, seed=plan.seed + 1) if name == "dev-1" else plan
        show(trio, shown, to=name)
    kem = cloud.down.kem
    assert kem is not None
    total = np.zeros(18, np.uint32)
    plain = np.zeros(18, np.uint32)
    for letter in trio.queue:
        upload = trio.message(letter.data)
        assert isinstance(upload, wire.Upload)
        total += open_upload(kem, upload, letter.sender, 18)
        plain += trio.vectors[letter.sender, 1]
    assert (total != plain).all()
    with pytest.raises(BadUpdate):
        Encoding(plan.dimension, plan.devices, plan.clip, plan.max_samples).decode(total)


def test_an_honest_aggregator_refuses_the_upload_for_another_plan(trio: Stage) -> None:
    """Somebody between shows dev-1 a plan of its own; the round ends, and says who is missing."""

    def carry(letter: Letter) -> list[Letter]:
        if letter.to != "dev-1" or letter.data[3] != wire.Plan.KIND:
            return [letter]
        plan = trio.message(letter.data)
        assert isinstance(plan, wire.Plan)
        return [replace(letter, data=trio.sign("cloud", replace(plan, seed=99)))]

    trio.carry = carry
    trio.order("cloud", 1)
    assert trio.voices["cloud"].endpoint.drops == {"out_of_place": 1}
    trio.advance(8.1)
    assert trio.failures("cloud") == [(1, "no upload from dev-1 within 8 s")]


def test_only_its_parent_may_tell_a_member_what_to_do(trio: Stage) -> None:
    trio.add("cloud", "cloud-2", limits=Limits())
    before = up(trio)
    data = trio.sign("cloud-2", plan_for(trio))
    assert "cloud/cloud-2 is not this member's parent" in str(
        refusal(trio.receive("dev-1", data)).error
    )
    assert up(trio) is before


def test_a_roster_hash_names_what_was_read(trio: Stage) -> None:
    for name in DEVICES:
        (letter,) = trio.letters(wire.Roster, to=name)
        roster = trio.message(letter.data)
        assert isinstance(roster, wire.Roster)
        parent = trio.voices["cloud"].identity.address
        assert up(trio, name).roster == roster_hash("alps", parent, roster)


def test_a_state_is_never_changed_in_place(trio: Stage) -> None:
    """The same event on the same state does the same again, so a host may try one twice."""
    trio.idle = {"dev-1"}
    state = up(trio)
    plan = plan_for(trio)
    data = trio.sign("cloud", plan)
    opened = trio.open(data)
    event = Received(opened.sender, opened.instance, plan, data)
    first = participant.step(state, event, trio.now, trio.voices["dev-1"].entropy)
    second = participant.step(state, event, trio.now, trio.voices["dev-1"].entropy)
    assert first == second
    assert up(trio) is state
