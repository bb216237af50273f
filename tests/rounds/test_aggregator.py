"""A round ends with the exact sum of its whole cohort, or with a reason; then the next can run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import PolicyViolation, UnknownMember
from edgechoir.learning.fixed_point import MAX_DEVICES
from edgechoir.rounds import aggregator
from edgechoir.rounds.aggregator import LAST, MAX_AHEAD, Aggregator, Limits, Phase
from edgechoir.rounds.epoch import upload_info
from edgechoir.rounds.events import (
    Begin,
    Cancel,
    Gone,
    Membership,
    NoContribution,
    Received,
    Refused,
    ToAll,
    Withdraw,
)
from edgechoir.rounds.participant import Phase as Part
from edgechoir.secagg.sealing import new_kem_key, seal

if TYPE_CHECKING:
    from tests.rounds.conftest import Letter, OrderOf, Stage

DEVICES = ("dev-1", "dev-2", "dev-3")


def down(stage: Stage, name: str = "cloud") -> Aggregator:
    return stage.voices[name].down


def held_back(stage: Stage, sender: str, kind: type[wire.Message]) -> list[Letter]:
    """From now on letters of this sender and kind are gathered in the list, not delivered."""
    held: list[Letter] = []

    def carry(letter: Letter) -> list[Letter]:
        if letter.sender == sender and letter.data[3] == kind.KIND:
            held.append(letter)
            return []
        return [letter]

    stage.carry = carry
    return held


# ---- rounds that give a sum


def test_three_members_add_up_bit_for_bit(trio: Stage) -> None:
    for round_ in (1, 2, 3):
        trio.order("cloud", round_)
    done = trio.sums("cloud")
    assert [one.plan.round for one in done] == [1, 2, 3]
    for one in done:
        assert one.plan.cohort == DEVICES
        assert np.array_equal(one.total, trio.plain_sum(one))
    assert not any(voice.endpoint.drops for voice in trio.voices.values())


def test_no_upload_shows_its_vector(trio: Stage) -> None:
    """What the aggregator can open of one member has nothing of the plain vector left."""
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    state = down(trio)
    assert state.kem is not None
    for letter in trio.letters(wire.Upload, to="cloud"):
        upload = trio.message(letter.data)
        assert isinstance(upload, wire.Upload)
        plain = trio.vectors[letter.sender, 1]
        masked = aggregator.open_upload(state.kem, upload, letter.sender, len(plain))
        assert (masked != plain).all()
        # and no pair shares a difference: each coordinate has a pad of its own
        assert len(set((masked - plain).tolist())) == len(plain)


def test_plans_say_who_sings_and_under_which_epoch(trio: Stage) -> None:
    trio.order("cloud", 1, clip=0.5, deadline=7.0)
    (plan,) = (one.plan for one in trio.sums("cloud"))
    state = down(trio)
    assert (plan.epoch, plan.roster) == (state.epoch, state.roster)
    assert (plan.clip, plan.deadline, plan.cohort) == (0.5, 7.0, DEVICES)


# ---- losses


def test_a_member_lost_before_its_upload_ends_the_round_with_its_name(trio: Stage) -> None:
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    assert down(trio).phase is Phase.COLLECTING
    trio.lose("dev-2")
    assert trio.failures("cloud") == [(1, "dev-2 was lost before it uploaded")]
    assert down(trio).phase is Phase.READY
    told = [trio.message(letter.data) for letter in trio.letters(wire.Abort, sender="cloud")]
    assert told == [wire.Abort(1, "dev-2 was lost before it uploaded")] * 2


def test_the_round_after_a_loss_runs_without_the_lost_and_without_new_keys(trio: Stage) -> None:
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    epoch = down(trio).epoch
    trio.lose("dev-2")
    trio.order("cloud", 2)
    (done,) = trio.sums("cloud")
    assert done.plan.cohort == ("dev-1", "dev-3")
    assert done.plan.epoch == epoch
    assert np.array_equal(done.total, trio.plain_sum(done))


def test_a_member_lost_after_its_upload_changes_nothing(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    trio.lose("dev-1")
    assert not trio.failures("cloud")
    assert down(trio).phase is Phase.COLLECTING
    trio.train("dev-3", plan_of(trio))
    trio.run()
    (done,) = trio.sums("cloud")
    assert done.plan.cohort == DEVICES
    assert np.array_equal(done.total, trio.plain_sum(done))
    trio.idle = set()
    trio.order("cloud", 2)
    assert trio.sums("cloud")[-1].plan.cohort == ("dev-2", "dev-3")


def plan_of(stage: Stage) -> wire.Plan:
    plan = down(stage).plan
    assert plan is not None
    return plan


def test_a_member_that_leaves_before_its_upload_ends_the_round_too(trio: Stage) -> None:
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    trio.happen("dev-2", Withdraw("battery low"))
    trio.run()
    assert trio.failures("cloud") == [(1, "dev-2 left (battery low) before it uploaded")]
    assert "dev-2" not in down(trio).members


def test_a_member_that_leaves_between_rounds_is_left_out_of_the_next(trio: Stage) -> None:
    trio.happen("dev-2", Withdraw("stopped"))
    trio.run()
    assert trio.of("cloud", Membership)[-1].members == ("dev-1", "dev-3")
    trio.order("cloud", 1)
    assert trio.sums("cloud")[-1].plan.cohort == ("dev-1", "dev-3")


def test_the_loss_of_another_process_of_a_member_changes_nothing(trio: Stage) -> None:
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    before = down(trio)
    trio.happen("cloud", Gone("dev-2", b"earlier!", "was lost"))
    trio.happen("cloud", Gone("stranger", b"unheard!", "was lost"))
    assert down(trio) == before
    assert not trio.failures("cloud")


def test_a_deadline_names_the_late_ones_and_drops_them(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1, deadline=8.0)
    trio.advance(7.9)
    assert not trio.failures("cloud")
    trio.advance(0.2)
    assert trio.failures("cloud") == [(1, "no upload from dev-3 within 8 s")]
    assert tuple(down(trio).members) == ("dev-1", "dev-2")
    trio.order("cloud", 2)
    assert trio.sums("cloud")[-1].plan.cohort == ("dev-1", "dev-2")


def test_a_late_member_that_reads_the_next_plan_asks_in_again(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    trio.advance(8.1)
    trio.idle = set()
    trio.order("cloud", 2)
    assert trio.sums("cloud")[-1].plan.cohort == ("dev-1", "dev-2")
    trio.order("cloud", 3)
    done = trio.sums("cloud")[-1]
    assert (done.plan.round, done.plan.cohort) == (3, DEVICES)
    assert np.array_equal(done.total, trio.plain_sum(done))


def test_with_too_few_left_the_epoch_ends_and_all_join_anew(trio: Stage) -> None:
    trio.idle = {"dev-2", "dev-3"}
    trio.order("cloud", 1)
    epoch = down(trio).epoch
    trio.advance(8.1)
    assert trio.failures("cloud") == [(1, "no upload from dev-2, dev-3 within 8 s")]
    trio.advance(10)
    state = down(trio)
    assert state.phase is Phase.READY
    assert state.epoch > epoch + 1
    assert tuple(state.members) == DEVICES
    trio.idle = set()
    trio.order("cloud", 2)
    assert np.array_equal(trio.sums("cloud")[-1].total, trio.plain_sum(trio.sums("cloud")[-1]))


def test_a_member_that_gives_up_ends_the_round_with_its_reason(trio: Stage) -> None:
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    trio.happen("dev-2", NoContribution(1, "too hot to train: 81 °C"))
    trio.run()
    assert trio.failures("cloud") == [(1, "dev-2: too hot to train: 81 °C")]
    assert "dev-2" in down(trio).members


def test_a_reason_as_long_as_a_message_holds_is_passed_on(trio: Stage) -> None:
    """In bytes, not characters: a peer's reason must not become an error of ours."""
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    trio.receive("cloud", trio.sign("dev-2", wire.Abort(1, "ä" * 150)))
    trio.run()
    assert trio.failures("cloud") == [(1, f"dev-2: {'ä' * 146}")]
    trio.order("cloud", 2)
    trio.receive("cloud", trio.sign("dev-2", wire.Leave("ä" * 150)))
    assert trio.failures("cloud")[-1][0] == 2


def test_a_member_that_joins_anew_before_its_upload_ends_the_round(trio: Stage) -> None:
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    trio.happen("dev-2", Begin(1))
    trio.run()
    assert trio.failures("cloud") == [(1, "dev-2 joined anew before it uploaded")]


def test_a_member_that_joins_anew_after_its_upload_changes_nothing(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    trio.happen("dev-1", Begin(1))
    trio.run()
    assert not trio.failures("cloud")
    trio.train("dev-3", plan_of(trio))
    trio.run()
    (done,) = trio.sums("cloud")
    assert np.array_equal(done.total, trio.plain_sum(done))


# ---- uploads that are none


def upload_of(stage: Stage, name: str, **changes: object) -> wire.Upload:
    """An upload as `name` could make it, with random values in the place of masked ones."""
    state, plan = down(stage), plan_of(stage)
    assert state.kem is not None
    vector = np.random.default_rng(5).integers(0, 2**32, plan.dimension + 6, np.uint32)
    upload = wire.Upload(
        plan.epoch,
        plan.round,
        state.context,
        seal(state.kem.public, vector.tobytes(), upload_info(state.context, name)),
    )
    return replace(upload, **changes)  # type: ignore[arg-type]


@pytest.fixture
def waiting(trio: Stage) -> Stage:
    """dev-1 and dev-2 have uploaded; dev-3 has work and does none."""
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    return trio


def refused(stage: Stage, data: bytes, reason: str) -> str:
    """Show the cloud an envelope; it must be refused for this reason and change nothing."""
    endpoint = stage.voices["cloud"].endpoint
    before, drops = endpoint.joint, endpoint.drops.copy()
    (outcome,) = stage.receive("cloud", data)
    assert isinstance(outcome, Refused)
    assert endpoint.joint is before
    assert endpoint.drops - drops == {reason: 1}
    return str(outcome.error)


def then_the_round_still_ends(stage: Stage) -> None:
    stage.train("dev-3", plan_of(stage))
    stage.run()
    (done,) = stage.sums("cloud")
    assert np.array_equal(done.total, stage.plain_sum(done))


def test_a_second_upload_of_a_member_is_not_counted(waiting: Stage) -> None:
    data = waiting.sign("dev-1", upload_of(waiting, "dev-1"))
    assert "dev-1 has no upload to make" in refused(waiting, data, "out_of_place")
    then_the_round_still_ends(waiting)


def test_the_same_upload_again_is_a_replay(waiting: Stage) -> None:
    (letter,) = waiting.letters(wire.Upload, sender="dev-1")
    refused(waiting, letter.data, "replayed")
    then_the_round_still_ends(waiting)


def test_an_upload_of_a_stranger_is_not_counted(waiting: Stage) -> None:
    waiting.device("dev-4", "cloud")
    data = waiting.sign("dev-4", upload_of(waiting, "dev-4"))
    assert "device/dev-4 is not in epoch" in refused(waiting, data, "unknown_member")
    then_the_round_still_ends(waiting)


def test_an_upload_of_a_member_of_another_tier_with_the_same_id_is_not_counted(
    waiting: Stage,
) -> None:
    waiting.voices["impostor"] = waiting.add("node", "dev-3", "cloud")
    data = waiting.sign("impostor", upload_of(waiting, "dev-3"))
    assert "node/dev-3 is not in epoch" in refused(waiting, data, "unknown_member")


def test_an_upload_of_another_process_than_the_one_that_joined_is_not_counted(
    waiting: Stage,
) -> None:
    """Even with the gate out of the way."""
    state = down(waiting)
    child = state.members["dev-3"].entry
    upload = upload_of(waiting, "dev-3")
    other = Received(child.address, b"another!", upload, b"")
    with pytest.raises(UnknownMember, match="joined as another process"):
        aggregator.step(state, other, waiting.now, waiting.voices["cloud"].entropy)
    same = replace(other, instance=child.instance)
    step = aggregator.step(state, same, waiting.now, waiting.voices["cloud"].entropy)
    assert step[0] != state


def test_an_upload_for_another_round_epoch_or_context_is_not_counted(waiting: Stage) -> None:
    upload = upload_of(waiting, "dev-3")
    for changed in (
        replace(upload, round=2),
        replace(upload, epoch=upload.epoch + 1),
        replace(upload, context=bytes(32)),
    ):
        refused(waiting, waiting.sign("dev-3", changed), "out_of_place")
    then_the_round_still_ends(waiting)


def test_an_upload_of_another_length_is_refused(waiting: Stage) -> None:
    state = down(waiting)
    assert state.kem is not None
    info = upload_info(state.context, "dev-3")
    for length in (0, 4 * 17, 4 * 18 - 1, 4 * 19):
        sealed = seal(state.kem.public, bytes(length), info)
        data = waiting.sign("dev-3", upload_of(waiting, "dev-3", sealed=sealed))
        message = refused(waiting, data, "bad_update")
        assert f"dev-3 sent {length} bytes, expected 72" in message
    then_the_round_still_ends(waiting)


def test_a_box_that_was_sealed_by_another_member_or_to_another_key_is_refused(
    waiting: Stage,
) -> None:
    copied = upload_of(waiting, "dev-1").sealed
    data = waiting.sign("dev-3", upload_of(waiting, "dev-3", sealed=copied))
    refused(waiting, data, "malformed")
    other = new_kem_key(waiting.voices["dev-3"].entropy)
    sealed = seal(other.public, bytes(72), upload_info(down(waiting).context, "dev-3"))
    data = waiting.sign("dev-3", upload_of(waiting, "dev-3", sealed=sealed))
    refused(waiting, data, "malformed")
    then_the_round_still_ends(waiting)


def test_masks_that_do_not_cancel_are_noticed_and_never_passed_on(waiting: Stage) -> None:
    waiting.receive("cloud", waiting.sign("dev-3", upload_of(waiting, "dev-3")))
    waiting.run()
    assert not waiting.sums("cloud")
    ((round_, reason),) = waiting.failures("cloud")
    assert round_ == 1
    assert reason.startswith("the masks do not cancel: the sum")
    assert waiting.voices["cloud"].endpoint.drops == {"bad_update": 1}
    waiting.idle = set()
    waiting.order("cloud", 2)
    assert [one.plan.round for one in waiting.sums("cloud")] == [2]


def test_giving_up_after_the_upload_is_refused(waiting: Stage) -> None:
    data = waiting.sign("dev-1", wire.Abort(1, "on second thoughts"))
    assert "dev-1 gives up round 1 after its upload" in refused(waiting, data, "out_of_place")
    then_the_round_still_ends(waiting)


def test_giving_up_another_round_changes_nothing(waiting: Stage) -> None:
    before = down(waiting)
    assert waiting.receive("cloud", waiting.sign("dev-3", wire.Abort(7, "?"))) == []
    assert down(waiting) is before


def test_an_upload_after_the_end_of_its_round_is_out_of_place(waiting: Stage) -> None:
    late = upload_of(waiting, "dev-3")
    waiting.advance(8.1)
    assert "no place while ready" in refused(waiting, waiting.sign("dev-3", late), "out_of_place")


# ---- epochs


def test_an_epoch_begins_once_all_that_are_expected_are_there(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3, join_wait=5.0))
    for name in DEVICES:
        assert down(stage).phase is Phase.GATHERING
        stage.device(name, "cloud")
        stage.happen(name, Begin(1))
        stage.run()
    assert down(stage).phase is Phase.READY
    assert stage.of("cloud", Membership)[-1] == Membership(1, DEVICES, 3, 0)


def test_an_epoch_begins_after_a_while_with_those_who_are_there(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(min_members=2, expected=9, join_wait=5.0))
    stage.device("dev-1", "cloud")
    stage.begin()
    stage.advance(30)
    assert down(stage).phase is Phase.GATHERING, "one alone is no cohort"
    stage.device("dev-2", "cloud")
    stage.happen("dev-2", Begin(1))
    stage.run()
    stage.advance(4.9)
    assert down(stage).phase is Phase.GATHERING
    stage.advance(0.2)
    assert down(stage).phase is Phase.READY


def test_who_leaves_while_gathering_is_not_waited_for(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(min_members=2, expected=9, join_wait=5.0))
    for name in ("dev-1", "dev-2"):
        stage.device(name, "cloud")
    stage.begin()
    stage.lose("dev-2")
    stage.advance(20)
    assert down(stage).phase is Phase.GATHERING
    assert tuple(down(stage).pending) == ("dev-1",)


def test_a_member_that_seals_nothing_is_left_out(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3, keying=10.0))
    for name in DEVICES:
        stage.device(name, "cloud")
    held_back(stage, "dev-2", wire.Bundles)
    stage.begin()
    assert down(stage).phase is Phase.KEYING
    stage.advance(10.1)
    assert down(stage).phase is Phase.READY
    assert tuple(down(stage).members) == ("dev-1", "dev-3")
    stage.order("cloud", 1)
    (done,) = stage.sums("cloud")
    assert done.plan.cohort == ("dev-1", "dev-3")
    assert np.array_equal(done.total, stage.plain_sum(done))


def test_a_member_that_seals_to_some_only_is_refused_and_left_out(stage: Stage) -> None:
    """Else whoever it left out would have to refuse every plan of the epoch."""
    stage.add("cloud", "cloud", limits=Limits(expected=3, keying=10.0))
    for name in DEVICES:
        stage.device(name, "cloud")
    held = held_back(stage, "dev-2", wire.Bundles)
    stage.begin()
    bundles = stage.message(held[0].data)
    assert isinstance(bundles, wire.Bundles)
    partial = replace(bundles, sealed=tuple(s for s in bundles.sealed if s[0] != "dev-3"))
    message = refused(stage, stage.sign("dev-2", partial), "malformed")
    assert message == "dev-2 sealed nothing to dev-3"
    stage.advance(10.1)
    assert tuple(down(stage).members) == ("dev-1", "dev-3")


def test_bundles_of_another_epoch_or_roster_are_out_of_place(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
    held = held_back(stage, "dev-2", wire.Bundles)
    stage.begin()
    bundles = stage.message(held[0].data)
    assert isinstance(bundles, wire.Bundles)
    for changed in (replace(bundles, epoch=9), replace(bundles, roster=bytes(32))):
        refused(stage, stage.sign("dev-2", changed), "out_of_place")
    stage.receive("cloud", stage.sign("dev-2", bundles))
    assert down(stage).phase is Phase.READY


def test_a_member_lost_while_keying_is_not_waited_for(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
    held_back(stage, "dev-2", wire.Bundles)
    stage.begin()
    stage.lose("dev-2")
    assert down(stage).phase is Phase.READY
    assert tuple(down(stage).members) == ("dev-1", "dev-3")


def test_with_too_few_keyed_everyone_is_told_and_joins_anew(stage: Stage, order: OrderOf) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for name in ("dev-1", "dev-2"):
        stage.device(name, "cloud")
    held_back(stage, "dev-2", wire.Bundles)
    stage.begin()
    stage.happen("cloud", order(1))
    stage.lose("dev-2")
    assert stage.failures("cloud") == [(1, "1 members are left, 2 are needed")]
    assert down(stage).phase is Phase.GATHERING
    empty = stage.message(stage.letters(wire.Roster, to="dev-1")[-1].data)
    assert isinstance(empty, wire.Roster)
    assert (empty.epoch, empty.joins) == (2, ())
    assert tuple(down(stage).pending) == ("dev-1",), "the empty roster made it ask again"
    stage.carry = lambda letter: [letter]
    stage.device("dev-2", "cloud")
    stage.happen("dev-2", Begin(1))
    stage.run()
    stage.order("cloud", 2)
    assert len(stage.sums("cloud")) == 1


def test_a_newcomer_takes_part_in_the_next_epoch(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    trio.device("dev-0", "cloud")
    trio.happen("dev-0", Begin(1))
    trio.run()
    epoch = down(trio).epoch
    assert tuple(down(trio).pending) == ("dev-0",)
    trio.train("dev-3", plan_of(trio))
    trio.run()
    assert trio.sums("cloud")[0].plan.cohort == DEVICES, "the running round goes on without it"
    assert down(trio).epoch == epoch + 1
    trio.idle = set()
    trio.order("cloud", 2)
    done = trio.sums("cloud")[-1]
    assert done.plan.cohort == ("dev-0", *DEVICES)
    assert np.array_equal(done.total, trio.plain_sum(done))


def test_a_new_epoch_has_fresh_keys_throughout(trio: Stage) -> None:
    trio.order("cloud", 1)
    old = {name: trio.voices[name].up for name in DEVICES}
    old_kem = down(trio).kem
    trio.device("dev-4", "cloud")
    trio.happen("dev-4", Begin(1))
    trio.run()
    trio.advance(6)
    assert down(trio).phase is Phase.READY
    assert old_kem is not None
    assert trio.voices["dev-1"].up.aggregator_kem != old_kem.public
    for name in DEVICES:
        new = trio.voices[name].up
        assert new.epoch == old[name].epoch + 1
        assert new.roster != old[name].roster
        assert not {c.key for c in new.chains.values()} & {c.key for c in old[name].chains.values()}
        for them in DEVICES:
            assert new.entries[them].join.kem != old[name].entries[them].join.kem


def test_chains_start_above_every_round_that_a_member_has_spent(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    stage.device("dev-1", "cloud", last_round=41)
    stage.device("dev-2", "cloud", last_round=7)
    stage.begin()
    assert down(stage).first_round == 42
    assert stage.of("cloud", Membership)[-1].last_round == 41
    stage.order("cloud", 41)
    assert stage.failures("cloud") == [(41, "round 41 is spent here, the next is 42")]
    stage.order("cloud", 42)
    assert [one.plan.round for one in stage.sums("cloud")] == [42]


def test_an_aggregator_that_has_forgotten_all_goes_on_above_its_childrens_epoch(
    trio: Stage,
) -> None:
    trio.order("cloud", 1)
    trio.order("cloud", 2)
    spent = {name: trio.voices[name].up for name in DEVICES}
    for name in DEVICES:
        trio.voices[name].endpoint.release(
            trio.voices["cloud"].identity.address, trio.voices["cloud"].instance
        )
    trio.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        trio.happen(name, Begin(1))
    trio.run()
    assert down(trio).epoch == 2
    assert down(trio).first_round == 3
    for name in DEVICES:
        assert trio.voices[name].up.phase is Part.READY
        assert trio.voices[name].up.roster != spent[name].roster


# ---- who may join


def test_a_full_aggregator_takes_nobody_more(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=2, max_members=2))
    for name in DEVICES:
        stage.device(name, "cloud")
    stage.begin()
    assert tuple(down(stage).members) == ("dev-1", "dev-2")
    assert "no place for device/dev-3: 2 members is the limit" in stage.refusals("cloud")[0]
    assert stage.voices["cloud"].endpoint.drops == {"unknown_member": 1}
    stage.lose("dev-1")
    assert stage.voices["dev-3"].up.phase is Part.OUT
    stage.advance(4)
    assert set(down(stage).members) | set(down(stage).pending) == {"dev-2", "dev-3"}


def test_a_tier_takes_only_those_below_it(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits())
    stage.add("node", "node-1", "cloud", limits=Limits())
    stage.add("node", "node-2", "node-1")
    stage.happen("node-2", Begin(1))
    stage.run()
    assert stage.refusals("node-1") == ["a node cannot join a node"]
    assert not down(stage, "node-1").pending


def test_a_join_meant_for_another_parent_is_refused(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits())
    stage.add("node", "node-1", "cloud", limits=Limits())
    stage.device("dev-1", "cloud")
    stage.happen("dev-1", Begin(1))
    (letter,) = stage.queue
    stage.queue.clear()
    stage.receive("node-1", letter.data)
    assert stage.refusals("node-1") == ["device/dev-1 joined 'cloud', not 'node-1'"]
    assert stage.voices["node-1"].endpoint.drops == {"policy": 1}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("last_round", 2**32 - 1),
        ("last_round", MAX_AHEAD + 1),
        ("last_epoch", 2**32 - 1),
        ("devices", 2**32 - 1),
        ("devices", MAX_DEVICES - 1),
    ],
)
def test_a_join_that_would_carry_a_counter_beyond_its_field_is_refused(
    trio: Stage, field: str, value: int
) -> None:
    join = trio.message(trio.letters(wire.Join, sender="dev-1")[0].data)
    assert isinstance(join, wire.Join)
    key = new_kem_key(trio.voices["dev-1"].entropy).public
    for renew in (0, 1):
        claim: dict[str, int] = {field: value, "renew": renew}
        changed = replace(join, kem=key, **claim)  # type: ignore[arg-type]
        message = refused(trio, trio.sign("dev-1", changed), "policy")
        assert message.startswith("dev-1 claims")
    trio.order("cloud", 1)
    assert len(trio.sums("cloud")) == 1


def test_claims_that_creep_up_end_before_the_field_does(trio: Stage) -> None:
    """However often a member moves the counters as far as it may, they still fit."""
    state = replace(down(trio), last_round=LAST - 1, epoch=LAST - 1)
    child = state.members["dev-1"]
    key = new_kem_key(trio.voices["dev-1"].entropy).public
    join = replace(child.entry.join, kem=key, last_round=LAST, last_epoch=LAST)
    for claimed in (join, replace(join, last_round=LAST + 1), replace(join, last_epoch=LAST + 1)):
        data = trio.sign("dev-1", claimed)
        event = Received(child.entry.address, child.entry.instance, claimed, data)
        entropy = trio.voices["cloud"].entropy
        if claimed is join:
            after, effects = aggregator.step(state, event, trio.now, entropy)
            assert after.first_round == LAST + 1
            assert all(wire.encode(e.message) for e in effects if isinstance(e, ToAll))
        else:
            with pytest.raises(PolicyViolation, match=r"dev-1 claims .* \d+, here it is \d+"):
                aggregator.step(state, event, trio.now, entropy)


def test_the_same_join_twice_begins_no_second_epoch(trio: Stage) -> None:
    before = down(trio)
    join = before.members["dev-1"].entry.join
    assert trio.receive("cloud", trio.sign("dev-1", join)) == []
    assert down(trio) is before


def test_a_key_offered_for_the_next_epoch_begins_none(trio: Stage) -> None:
    """After keying each member has left a key; the epoch goes on."""
    state = down(trio)
    assert state.phase is Phase.READY
    assert all(child.renewal is not None for child in state.members.values())
    assert not state.pending


# ---- orders


def test_an_order_without_enough_members_fails_at_once(stage: Stage, order: OrderOf) -> None:
    stage.add("cloud", "cloud", limits=Limits(min_members=2))
    stage.happen("cloud", order(1))
    assert stage.failures("cloud") == [(1, "0 members are keyed, 2 are needed")]


def test_an_order_while_keying_waits_for_the_keys(stage: Stage, order: OrderOf) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
    held = held_back(stage, "dev-2", wire.Bundles)
    stage.begin()
    stage.happen("cloud", order(1))
    assert down(stage).phase is Phase.KEYING
    stage.receive("cloud", held[0].data)
    stage.run()
    assert [one.plan.cohort for one in stage.sums("cloud")] == [DEVICES]


def test_an_order_lets_in_who_waits_before_it_begins(trio: Stage) -> None:
    state = down(trio)
    patient = replace(state.who, limits=replace(state.who.limits, expected=9))
    cloud = trio.voices["cloud"].endpoint
    cloud.joint = replace(cloud.joint, down=replace(state, who=patient))
    trio.device("dev-4", "cloud")
    trio.happen("dev-4", Begin(1))
    trio.run()
    assert down(trio).phase is Phase.READY
    trio.order("cloud", 1)
    assert trio.sums("cloud")[0].plan.cohort == (*DEVICES, "dev-4")


@pytest.mark.parametrize("round_", [0, 1, 2])
def test_a_spent_round_is_not_run_again(trio: Stage, round_: int) -> None:
    trio.order("cloud", 1)
    trio.order("cloud", 2)
    trio.order("cloud", round_)
    assert trio.failures("cloud") == [(round_, f"round {round_} is spent here, the next is 3")]
    assert len(trio.sums("cloud")) == 2


def test_an_order_for_fewer_devices_than_are_beneath_fails(trio: Stage) -> None:
    trio.order("cloud", 1, devices=2)
    assert trio.failures("cloud") == [(1, "3 devices are beneath, the order is for 2 in all")]
    trio.order("cloud", 1)
    assert len(trio.sums("cloud")) == 1


def test_an_order_that_could_overflow_the_ring_fails(trio: Stage) -> None:
    trio.order("cloud", 1, devices=10**6, max_samples=10_000)
    ((_, reason),) = trio.failures("cloud")
    assert reason == "1000000 devices of up to 10000 samples overflow a 32-bit ring"
    assert not trio.letters(wire.Plan)


def test_a_cancelled_round_ends_with_the_reason_given(waiting: Stage) -> None:
    waiting.happen("cloud", Cancel(2, "another round"))
    assert down(waiting).phase is Phase.COLLECTING
    waiting.happen("cloud", Cancel(1, "the parent gave it up"))
    waiting.run()
    assert waiting.failures("cloud") == [(1, "the parent gave it up")]
    assert waiting.voices["dev-3"].up.phase is Part.READY


def test_an_order_that_still_waits_can_be_cancelled(stage: Stage, order: OrderOf) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
    held = held_back(stage, "dev-2", wire.Bundles)
    stage.begin()
    stage.happen("cloud", order(1))
    stage.happen("cloud", Cancel(1, "no longer wanted"))
    assert stage.failures("cloud") == [(1, "no longer wanted")]
    stage.receive("cloud", held[0].data)
    stage.run()
    assert down(stage).phase is Phase.READY
    assert not stage.sums("cloud")
