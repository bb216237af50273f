"""A turn ends with the exact sum of its survivors, or with a reason; then the next can run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import LocalError, PolicyViolation, UnknownMember
from edgechoir.learning.fixed_point import MAX_DEVICES
from edgechoir.rounds import aggregator
from edgechoir.rounds.aggregator import LAST, MAX_AHEAD, Aggregator, Limits, Phase
from edgechoir.rounds.agreement import make_consent, make_receipt
from edgechoir.rounds.cohort import Turn, masked_vector, open_upload
from edgechoir.rounds.epoch import answer_info, upload_info
from edgechoir.rounds.events import (
    Back,
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
from edgechoir.secagg.boxes import BOX_BYTES
from edgechoir.secagg.parcel import Parcel
from edgechoir.secagg.sealing import new_kem_key, seal

if TYPE_CHECKING:
    from tests.rounds.conftest import Letter, OrderOf, Stage

DEVICES = ("dev-1", "dev-2", "dev-3")


def down(stage: Stage, name: str = "cloud") -> Aggregator:
    return stage.voices[name].down


def held_back(stage: Stage, sender: str, kind: type[wire.Message]) -> list[Letter]:
    """From now on letters of this sender, or of anybody ("*"), and of this kind are gathered in
    the list, not delivered."""
    held: list[Letter] = []

    def carry(letter: Letter) -> list[Letter]:
        if sender in ("*", letter.sender) and letter.data[3] == kind.KIND:
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
        assert one.survivors == one.plan.cohort == DEVICES
        assert np.array_equal(one.total, trio.plain_sum(one))
    assert not any(voice.endpoint.drops for voice in trio.voices.values())


def test_a_sum_in_the_narrow_ring_is_exact_too(trio: Stage) -> None:
    trio.order("cloud", 1, bits=16)
    (done,) = trio.sums("cloud")
    assert done.total.dtype == np.uint16
    assert np.array_equal(done.total, trio.plain_sum(done))


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
        contents = open_upload(state.kem, upload, letter.sender)
        masked = masked_vector(contents, turn_of(trio).encoding, letter.sender)
        assert (masked != plain).all()
        # and no pair shares a difference: each coordinate has a pad of its own
        assert len(set((masked - plain).tolist())) == len(plain)


def test_plans_say_who_sings_and_under_which_epoch(trio: Stage) -> None:
    trio.order("cloud", 1, clip=0.5, deadline=7.0)
    (plan,) = (one.plan for one in trio.sums("cloud"))
    state = down(trio)
    assert (plan.epoch, plan.roster, plan.turn) == (state.epoch, state.roster, 1)
    assert (plan.clip, plan.deadline, plan.cohort) == (0.5, 7.0, DEVICES)
    assert (plan.min_survivors, plan.bits) == (2, 32)


def test_a_call_holds_the_boxes_for_its_reader_alone(trio: Stage) -> None:
    left = down(trio).prepared
    trio.order("cloud", 1)
    for reader in DEVICES:
        (letter,) = trio.letters(wire.Call, to=reader)
        call = trio.message(letter.data)
        assert isinstance(call, wire.Call)
        others = [name for name in DEVICES if name != reader]
        assert call.boxes == tuple((by, dict(left[by].boxes)[reader]) for by in others)


# ---- losses


def turn_of(stage: Stage) -> Turn:
    turn = down(stage).turn
    assert turn is not None
    return turn


def reason_of(stage: Stage) -> str:
    """Why the one failed round has failed."""
    ((_, reason),) = stage.failures("cloud")
    return reason


def lost(stage: Stage) -> None:
    stage.lose("dev-2")


def left(stage: Stage) -> None:
    stage.happen("dev-2", Withdraw("battery low"))
    stage.run()


def gave_up(stage: Stage) -> None:
    stage.happen("dev-2", NoContribution(1, "too hot to train: 81 °C"))
    stage.run()


def joined_anew(stage: Stage) -> None:
    stage.happen("dev-2", Begin(1))
    stage.run()


def slept(stage: Stage) -> None:
    stage.advance(6.1)


LOSSES: list[Callable[[Stage], None]] = [lost, left, gave_up, joined_anew, slept]


@pytest.mark.parametrize("loss", LOSSES)
def test_whoever_is_missing_before_its_upload_is_left_out_of_the_sum(
    trio: Stage, loss: Callable[[Stage], None]
) -> None:
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    assert down(trio).phase is Phase.COLLECTING
    loss(trio)
    (done,) = trio.sums("cloud")
    assert done.plan.cohort == DEVICES
    assert done.survivors == ("dev-1", "dev-3")
    assert np.array_equal(done.total, trio.plain_sum(done))
    assert not trio.failures("cloud")


@pytest.mark.parametrize("loss", LOSSES)
def test_two_without_a_third_to_stand_for_them_fail_with_the_reason(
    stage: Stage, loss: Callable[[Stage], None]
) -> None:
    """With two in the roster nobody may be absent: the other's vector would be the sum."""
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for name in DEVICES[:2]:
        stage.device(name, "cloud")
    stage.begin()
    stage.idle = {"dev-2"}
    stage.order("cloud", 1)
    loss(stage)
    reasons: dict[Callable[[Stage], None], str] = {
        lost: "dev-2 was lost",
        left: "dev-2 left (battery low)",
        gave_up: "dev-2 gave up (too hot to train: 81 °C)",
        joined_anew: "dev-2 joined anew",
        slept: "dev-2 had not uploaded",
    }
    assert reason_of(stage) == f"1 uploads, 2 are needed: {reasons[loss]}"
    assert not stage.sums("cloud")


def test_all_are_told_why_a_turn_has_failed(trio: Stage) -> None:
    trio.idle = {"dev-2", "dev-3"}
    trio.order("cloud", 1)
    trio.advance(6.1)
    reason = "1 uploads, 2 are needed: dev-2, dev-3 had not uploaded"
    assert trio.failures("cloud") == [(1, reason)]
    told = [trio.message(letter.data) for letter in trio.letters(wire.Abort, sender="cloud")]
    assert told == [wire.Abort(1, 1, reason)] * 3
    for name in DEVICES:
        assert trio.voices[name].up.phase is Part.READY


def test_the_turn_after_a_loss_runs_without_the_lost_and_without_new_keys(trio: Stage) -> None:
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    epoch = down(trio).epoch
    trio.lose("dev-2")
    trio.order("cloud", 2)
    done = trio.sums("cloud")[-1]
    assert done.plan.cohort == ("dev-1", "dev-3")
    assert (done.plan.epoch, done.plan.turn) == (epoch, 2)
    assert np.array_equal(done.total, trio.plain_sum(done))


def test_a_member_that_gave_up_sings_in_the_next_turn(trio: Stage) -> None:
    trio.idle = {"dev-2"}
    trio.order("cloud", 1)
    gave_up(trio)
    trio.idle = set()
    trio.order("cloud", 2)
    assert trio.sums("cloud")[-1].survivors == DEVICES
    assert trio.sums("cloud")[-1].plan.epoch == 1


def test_a_member_lost_after_its_upload_is_in_the_sum(trio: Stage) -> None:
    """Its b comes from the shares that the others hold."""
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    trio.lose("dev-1")
    assert not trio.failures("cloud")
    assert down(trio).phase is Phase.COLLECTING
    trio.train("dev-3", turn_of(trio).plan)
    trio.run()
    (done,) = trio.sums("cloud")
    assert done.survivors == DEVICES
    assert np.array_equal(done.total, trio.plain_sum(done))
    trio.idle = set()
    trio.order("cloud", 2)
    assert trio.sums("cloud")[-1].survivors == ("dev-2", "dev-3")


def test_a_member_that_joins_anew_after_its_upload_is_in_the_sum(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    trio.happen("dev-1", Begin(1))
    trio.run()
    assert not trio.failures("cloud")
    trio.train("dev-3", turn_of(trio).plan)
    trio.run()
    (done,) = trio.sums("cloud")
    assert done.survivors == DEVICES
    assert np.array_equal(done.total, trio.plain_sum(done))


def test_a_member_that_leaves_between_turns_is_left_out_of_the_next(trio: Stage) -> None:
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
    assert (down(trio).members, down(trio).turn) == (before.members, before.turn)
    assert not trio.failures("cloud")


def test_uploads_have_a_part_of_the_time_and_answers_the_rest(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1, deadline=8.0)
    trio.advance(5.9)
    assert down(trio).phase is Phase.COLLECTING
    assert not trio.letters(wire.Reveal)
    held_back(trio, "*", wire.Consent)
    trio.advance(0.2)
    assert down(trio).phase is Phase.UNMASKING
    assert down(trio).wake == turn_of(trio).deadline


def test_answers_that_do_not_come_fail_the_turn_at_its_deadline(trio: Stage) -> None:
    """And say who was silent."""

    def carry(letter: Letter) -> list[Letter]:
        answers = letter.data[3] == wire.Answer.KIND
        return [] if answers and letter.sender in ("dev-1", "dev-2") else [letter]

    trio.carry = carry
    trio.order("cloud", 1, deadline=8.0)
    assert down(trio).phase is Phase.UNMASKING
    trio.advance(7.9)
    assert not trio.failures("cloud")
    trio.advance(0.2)
    assert reason_of(trio) == "1 answers, 2 are needed; silent: dev-1, dev-2"
    assert not trio.sums("cloud")
    trio.carry = lambda letter: [letter]
    trio.order("cloud", 2)
    assert trio.sums("cloud")[0].survivors == DEVICES


def test_survivors_that_too_few_sign_are_not_opened(trio: Stage) -> None:
    def carry(letter: Letter) -> list[Letter]:
        signs = letter.data[3] == wire.Consent.KIND
        return [] if signs and letter.sender in ("dev-1", "dev-2") else [letter]

    trio.carry = carry
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    trio.advance(8.1)
    assert reason_of(trio) == "1 agree on the survivors, 2 must; silent: dev-1, dev-2"
    assert not trio.letters(wire.Answer)


def test_with_too_few_left_to_answer_the_turn_fails_at_once(trio: Stage) -> None:
    held_back(trio, "*", wire.Answer)
    trio.order("cloud", 1)
    assert down(trio).phase is Phase.UNMASKING
    trio.lose("dev-1")
    assert down(trio).phase is Phase.UNMASKING, "two can still answer"
    trio.lose("dev-2")
    assert trio.failures("cloud")[0] == (1, "1 can answer, 2 answers are needed")


def test_below_the_threshold_an_epoch_begins_anew_with_those_who_are_left(stage: Stage) -> None:
    """Four with a threshold of three: when two are gone the other two go on among themselves."""
    names = (*DEVICES, "dev-4")
    stage.add("cloud", "cloud", limits=Limits(expected=4))
    for name in names:
        stage.device(name, "cloud")
    stage.begin()
    stage.order("cloud", 1)
    stage.lose("dev-4")
    assert (down(stage).epoch, down(stage).phase) == (1, Phase.READY)
    stage.lose("dev-3")
    stage.advance(6)
    assert (down(stage).epoch, down(stage).phase) == (2, Phase.READY)
    assert tuple(down(stage).members) == ("dev-1", "dev-2")
    assert down(stage).threshold == 2
    stage.order("cloud", 2)
    done = stage.sums("cloud")[-1]
    assert done.survivors == ("dev-1", "dev-2")
    assert np.array_equal(done.total, stage.plain_sum(done))
    assert not stage.failures("cloud")


def test_below_the_minimum_the_epoch_ends_and_all_join_anew(trio: Stage) -> None:
    trio.lose("dev-2")
    trio.lose("dev-3")
    assert down(trio).phase is Phase.GATHERING
    assert trio.of("cloud", Membership)[-1].members == ()
    empty = trio.message(trio.letters(wire.Roster, to="dev-1")[-1].data)
    assert isinstance(empty, wire.Roster)
    assert empty.joins == ()
    for name in ("dev-2", "dev-3"):
        trio.device(name, "cloud")
        trio.happen(name, Begin(1))
    trio.run()
    trio.order("cloud", 1)
    assert trio.sums("cloud")[0].survivors == DEVICES


def test_a_reason_as_long_as_a_message_holds_is_passed_on(stage: Stage) -> None:
    """In bytes, not characters: a peer's reason must not become an error of ours."""
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for name in DEVICES[:2]:
        stage.device(name, "cloud")
    stage.begin()
    stage.idle = {"dev-2"}
    stage.order("cloud", 1)
    stage.receive("cloud", stage.sign("dev-2", wire.Abort(1, 1, "ä" * 150)))
    stage.run()
    reason = reason_of(stage)
    assert reason.startswith("1 uploads, 2 are needed: dev-2 gave up (äää")
    assert len(reason.encode()) in (299, 300)
    stage.order("cloud", 2)
    stage.receive("cloud", stage.sign("dev-2", wire.Leave("ä" * 150)))
    assert stage.failures("cloud")[-1][0] == 2


# ---- who is prepared


def test_a_turn_waits_a_little_for_those_who_are_not_prepared(trio: Stage) -> None:
    """A lost Prepare costs one turn: the Call tells its sender, and it is in the next."""
    trio.order("cloud", 1)
    drop = held_back(trio, "dev-3", wire.Upload)
    trio.order("cloud", 2)
    trio.advance(8.1)
    assert trio.sums("cloud")[-1].survivors == ("dev-1", "dev-2")
    assert drop
    trio.carry = lambda letter: [letter]
    trio.order("cloud", 3)
    assert down(trio).phase is Phase.READY, "nothing of dev-3 is here for turn 3"
    trio.advance(down(trio).who.limits.preparing + 0.1)
    done = trio.sums("cloud")[-1]
    assert (done.plan.round, done.plan.cohort) == (3, ("dev-1", "dev-2"))
    trio.order("cloud", 4)
    done = trio.sums("cloud")[-1]
    assert (done.plan.turn, done.survivors) == (4, DEVICES)
    assert np.array_equal(done.total, trio.plain_sum(done))


def test_a_prepare_that_comes_while_an_order_waits_begins_the_turn(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
    held = held_back(stage, "dev-3", wire.Prepare)
    stage.begin()
    stage.order("cloud", 1)
    assert down(stage).phase is Phase.READY
    stage.carry = lambda letter: [letter]
    stage.queue.extend(held)
    stage.run()
    assert stage.sums("cloud")[0].survivors == DEVICES


def test_with_too_few_prepared_the_order_fails_and_the_epoch_begins_anew(stage: Stage) -> None:
    """The epoch's first Prepares are lost but for one, so that nobody can be called."""
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")

    def carry(letter: Letter) -> list[Letter]:
        prepares = letter.data[3] == wire.Prepare.KIND and down(stage).epoch == 1
        return [] if prepares and letter.sender != "dev-1" else [letter]

    stage.carry = carry
    stage.begin()
    stage.order("cloud", 1)
    stage.advance(down(stage).who.limits.preparing + 0.1)
    assert reason_of(stage) == "1 members are prepared, 2 are needed"
    stage.advance(6)
    assert down(stage).epoch > 1
    stage.order("cloud", 2)
    assert stage.sums("cloud")[-1].survivors == DEVICES


def test_who_has_no_secret_with_another_is_not_in_a_cohort_with_it(stage: Stage) -> None:
    """Three of four have all; the one that lacks boxes for one other is left out."""
    names = (*DEVICES, "dev-4")
    stage.add("cloud", "cloud", limits=Limits(expected=4))
    for name in names:
        stage.device(name, "cloud")
    stage.begin()
    endpoint = stage.voices["cloud"].endpoint
    state = down(stage)
    prepared = dict(state.prepared)
    lacking = prepared["dev-4"]
    boxes = tuple(box for box in lacking.boxes if box[0] != "dev-2")
    escrow = lacking.escrow[:-32]
    prepared["dev-4"] = replace(lacking, boxes=boxes, escrow=escrow)
    endpoint.joint = replace(endpoint.joint, down=replace(state, prepared=prepared))
    stage.order("cloud", 1)
    (done,) = stage.sums("cloud")
    assert done.plan.cohort == DEVICES
    assert np.array_equal(done.total, stage.plain_sum(done))
    stage.order("cloud", 2)
    assert stage.sums("cloud")[-1].plan.cohort == names, "it was called, and has prepared anew"


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"turn": 3}, "out_of_place", "dev-1 prepares turn 3 of epoch 1, the next is turn 2"),
        ({"turn": 2**32 - 1}, "out_of_place", "the next is turn 2 of epoch 1"),
        ({"epoch": 2}, "out_of_place", "of epoch 2, the next is"),
        ({"boxes": (("dev-3", b"b" * BOX_BYTES), ("dev-2", b"b" * BOX_BYTES))}, "malformed", "oth"),
        ({"boxes": (("dev-2", b"b" * BOX_BYTES),) * 2}, "malformed", "others than the roster"),
        ({"boxes": (("dev-1", b"b" * BOX_BYTES),)}, "malformed", "others than the roster"),
        ({"boxes": (("dev-9", b"b" * BOX_BYTES),)}, "malformed", "others than the roster"),
        ({"boxes": (("dev-2", b"b" * (BOX_BYTES - 1)),)}, "malformed", "bytes long"),
        ({"escrow": b""}, "malformed", "an escrow of 0 bytes"),
        ({"escrow": bytes(32)}, "malformed", "an escrow of 32 bytes"),
    ],
)
def test_a_prepare_that_cannot_be_used_is_refused(
    trio: Stage, changes: dict[str, Any], reason: str, message: str
) -> None:
    trio.order("cloud", 1)
    good = down(trio).prepared["dev-1"]
    assert good.turn == 2
    data = trio.sign("dev-1", replace(good, **changes))
    assert message in refused(trio, data, reason)
    trio.order("cloud", 2)
    assert trio.sums("cloud")[-1].survivors == DEVICES


def test_a_prepare_of_a_turn_that_is_over_is_no_fault_of_its_sender(trio: Stage) -> None:
    trio.order("cloud", 1)
    before = down(trio)
    old = replace(before.prepared["dev-1"], turn=1)
    assert trio.receive("cloud", trio.sign("dev-1", old)) == []
    assert down(trio) is before


def test_a_prepare_of_a_stranger_is_refused(trio: Stage) -> None:
    trio.device("dev-4", "cloud")
    data = trio.sign("dev-4", down(trio).prepared["dev-1"])
    assert "device/dev-4 is not in epoch" in refused(trio, data, "unknown_member")


# ---- uploads that are none


def parcel_of(kem_public: bytes, contents: bytes, info: bytes) -> memoryview:
    parcel = Parcel(kem_public, len(contents), info, lambda n: b"k" * n)
    parcel.write(contents)
    return parcel.close()


def upload_of(stage: Stage, name: str, vector: bytes | None = None, **changes: Any) -> wire.Upload:
    """An upload as `name` could make it, with random values in the place of masked ones; what it
    prepares for the next turn is as good as it should be."""
    state, turn = down(stage), turn_of(stage)
    assert state.kem is not None
    if vector is None:
        numbers = np.random.default_rng(5)
        vector = numbers.integers(0, 2**32, turn.encoding.length, np.uint32).tobytes()
    prepare = replace(turn.provisions[name], turn=turn.plan.turn + 1)
    contents = wire.encode(wire.Contents(vector, wire.encode(prepare)))
    upload = wire.Upload(
        turn.plan.epoch,
        turn.plan.turn,
        turn.context,
        make_receipt(stage.identities[name].key, turn.context),
        parcel_of(state.kem.public, contents, upload_info(turn.context, name)),
    )
    return replace(upload, **changes)


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


def then_the_turn_still_ends(stage: Stage) -> None:
    stage.train("dev-3", turn_of(stage).plan)
    stage.run()
    (done,) = stage.sums("cloud")
    assert done.survivors == DEVICES
    assert np.array_equal(done.total, stage.plain_sum(done))


def test_a_second_upload_of_a_member_is_not_counted(waiting: Stage) -> None:
    data = waiting.sign("dev-1", upload_of(waiting, "dev-1"))
    assert "dev-1 has no upload to make" in refused(waiting, data, "out_of_place")
    then_the_turn_still_ends(waiting)


def test_the_same_upload_again_is_a_replay(waiting: Stage) -> None:
    (letter,) = waiting.letters(wire.Upload, sender="dev-1")
    refused(waiting, letter.data, "replayed")
    then_the_turn_still_ends(waiting)


def test_an_upload_of_a_stranger_is_not_counted(waiting: Stage) -> None:
    waiting.device("dev-4", "cloud")
    data = waiting.sign("dev-4", upload_of(waiting, "dev-3"))
    assert "device/dev-4 is not in epoch" in refused(waiting, data, "unknown_member")
    then_the_turn_still_ends(waiting)


def test_an_upload_of_a_member_of_another_tier_with_the_same_id_is_not_counted(
    waiting: Stage,
) -> None:
    upload = upload_of(waiting, "dev-3")
    waiting.voices["impostor"] = waiting.add("node", "dev-3", "cloud")
    data = waiting.sign("impostor", upload)
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
    after, _ = aggregator.step(state, same, waiting.now, waiting.voices["cloud"].entropy)
    assert after.phase is Phase.UNMASKING


def test_an_upload_for_another_turn_epoch_or_context_is_not_counted(waiting: Stage) -> None:
    upload = upload_of(waiting, "dev-3")
    for changed in (
        replace(upload, turn=2),
        replace(upload, epoch=upload.epoch + 1),
        replace(upload, context=bytes(32)),
    ):
        refused(waiting, waiting.sign("dev-3", changed), "out_of_place")
    then_the_turn_still_ends(waiting)


def test_an_upload_without_a_true_receipt_is_not_counted(waiting: Stage) -> None:
    """The other members would refuse to open a sum with it, so it would fail the turn for all."""
    context = turn_of(waiting).context
    other = make_receipt(waiting.identities["dev-2"].key, context)
    elsewhere = make_receipt(waiting.identities["dev-3"].key, bytes(32))
    for receipt in (bytes(64), other, elsewhere):
        data = waiting.sign("dev-3", upload_of(waiting, "dev-3", receipt=receipt))
        refused(waiting, data, "bad_signature")
    then_the_turn_still_ends(waiting)


def test_an_upload_of_another_length_is_refused(waiting: Stage) -> None:
    for length in (0, 4 * 17, 4 * 18 - 1, 4 * 19):
        data = waiting.sign("dev-3", upload_of(waiting, "dev-3", bytes(length)))
        message = refused(waiting, data, "bad_update")
        assert f"dev-3 sent {length} bytes, expected 72" in message
    then_the_turn_still_ends(waiting)


def test_an_upload_that_holds_something_else_is_refused(waiting: Stage) -> None:
    kem = down(waiting).kem
    assert kem is not None
    info = upload_info(turn_of(waiting).context, "dev-3")
    for inside in (b"", bytes(72), wire.encode(wire.Contents(bytes(72), b"no prepare"))):
        sealed = parcel_of(kem.public, inside, info)
        data = waiting.sign("dev-3", upload_of(waiting, "dev-3", sealed=sealed))
        refused(waiting, data, "malformed")
    then_the_turn_still_ends(waiting)


def test_a_parcel_sealed_by_another_member_or_to_another_key_is_refused(waiting: Stage) -> None:
    copied = upload_of(waiting, "dev-1").sealed
    data = waiting.sign("dev-3", upload_of(waiting, "dev-3", sealed=copied))
    refused(waiting, data, "malformed")
    other = new_kem_key(waiting.voices["dev-3"].entropy)
    info = upload_info(turn_of(waiting).context, "dev-3")
    sealed = parcel_of(other.public, bytes(72), info)
    data = waiting.sign("dev-3", upload_of(waiting, "dev-3", sealed=sealed))
    refused(waiting, data, "malformed")
    then_the_turn_still_ends(waiting)


def test_masks_that_do_not_come_off_are_noticed_and_never_passed_on(waiting: Stage) -> None:
    waiting.receive("cloud", waiting.sign("dev-3", upload_of(waiting, "dev-3")))
    waiting.run()
    assert not waiting.sums("cloud")
    ((round_, reason),) = waiting.failures("cloud")
    assert round_ == 1
    assert reason.startswith("the masks do not come off: the sum")
    drops = waiting.voices["cloud"].endpoint.drops
    assert drops["bad_update"] == 1
    waiting.idle = set()
    waiting.order("cloud", 2)
    waiting.advance(8.1)
    assert [one.plan.round for one in waiting.sums("cloud")] == [2]


def test_giving_up_after_the_upload_is_refused(waiting: Stage) -> None:
    data = waiting.sign("dev-1", wire.Abort(1, 1, "on second thoughts"))
    assert "dev-1 gives up turn 1 after its upload" in refused(waiting, data, "out_of_place")
    then_the_turn_still_ends(waiting)


def test_giving_up_another_turn_changes_nothing(waiting: Stage) -> None:
    before = down(waiting)
    for other in (wire.Abort(1, 7, "?"), wire.Abort(7, 1, "?")):
        assert waiting.receive("cloud", waiting.sign("dev-3", other)) == []
    assert down(waiting) is before


def test_a_late_upload_is_not_counted_but_what_it_prepares_is_kept(waiting: Stage) -> None:
    """Its pads may be laid open by then; that it comes at all shows that it is there."""
    late = upload_of(waiting, "dev-3")
    held = held_back(waiting, "*", wire.Consent)
    waiting.advance(6.1)
    assert down(waiting).phase is Phase.UNMASKING
    (outcome,) = waiting.receive("cloud", waiting.sign("dev-3", late))
    assert isinstance(outcome, Refused)
    assert "the upload of dev-3 came after turn 1 had its survivors" in str(outcome.error)
    assert down(waiting).prepared["dev-3"].turn == 2
    assert turn_of(waiting).survivors == ("dev-1", "dev-2")
    waiting.carry = lambda letter: [letter]
    waiting.queue.extend(held)
    waiting.run()
    (done,) = waiting.sums("cloud")
    assert done.survivors == ("dev-1", "dev-2")
    assert np.array_equal(done.total, waiting.plain_sum(done))


def test_an_upload_after_the_end_of_its_turn_is_out_of_place(waiting: Stage) -> None:
    late = upload_of(waiting, "dev-3")
    waiting.advance(8.1)
    assert "no place while ready" in refused(waiting, waiting.sign("dev-3", late), "out_of_place")


# ---- consents and answers that are none


@pytest.fixture
def opening(waiting: Stage) -> Stage:
    """dev-1 and dev-2 survive, all three have signed, and nobody's answer has arrived."""
    held_back(waiting, "*", wire.Answer)
    waiting.advance(6.1)
    assert down(waiting).phase is Phase.UNMASKING
    assert len(turn_of(waiting).consents) == 2
    return waiting


def answer_of(stage: Stage, name: str, **shares: bytes) -> wire.Answer:
    """An answer as `name` could make it, with zeros for shares but for those given."""
    state, turn = down(stage), turn_of(stage)
    assert state.kem is not None
    inside = wire.Opened(tuple(shares.items()) or tuple((name, bytes(33)) for name in DEVICES))
    sealed = seal(state.kem.public, wire.encode(inside), answer_info(turn.context, name))
    return wire.Answer(turn.plan.epoch, turn.plan.turn, turn.context, sealed)


def true_answer(stage: Stage, name: str) -> wire.Answer:
    """The one that was held back."""
    (answer,) = (
        stage.message(one.data)
        for who, one in stage.outcomes
        if who == name and hasattr(one, "data") and one.data[3] == wire.Answer.KIND
    )
    assert isinstance(answer, wire.Answer)
    return answer


def test_the_threshold_of_answers_is_enough(opening: Stage) -> None:
    for name in ("dev-3", "dev-1"):
        opening.receive("cloud", opening.sign(name, true_answer(opening, name)))
    (done,) = opening.sums("cloud")
    assert done.survivors == ("dev-1", "dev-2")
    assert np.array_equal(done.total, opening.plain_sum(done))
    before = down(opening)
    data = opening.sign("dev-2", true_answer(opening, "dev-2"))
    assert opening.receive("cloud", data) == [], "one more is no fault"
    assert down(opening) is before


def test_answers_of_strangers_are_not_counted(opening: Stage) -> None:
    opening.device("dev-4", "cloud")
    data = opening.sign("dev-4", answer_of(opening, "dev-4"))
    assert "device/dev-4 is not in epoch" in refused(opening, data, "unknown_member")


def test_a_second_answer_is_not_counted(opening: Stage) -> None:
    opening.receive("cloud", opening.sign("dev-1", true_answer(opening, "dev-1")))
    data = opening.sign("dev-1", answer_of(opening, "dev-1"))
    assert "dev-1 has no answer to give" in refused(opening, data, "out_of_place")


def test_an_answer_that_is_none_is_refused(opening: Stage) -> None:
    answer = answer_of(opening, "dev-1")
    kem = down(opening).kem
    assert kem is not None
    info = answer_info(turn_of(opening).context, "dev-1")
    for changed, reason in (
        (replace(answer, turn=2), "out_of_place"),
        (replace(answer, epoch=2), "out_of_place"),
        (replace(answer, context=bytes(32)), "out_of_place"),
        (replace(answer, sealed=b""), "malformed"),
        (answer_of(opening, "dev-2"), "malformed"),
        (replace(answer, sealed=seal(kem.public, b"junk", info)), "malformed"),
        (answer_of(opening, "dev-1", **{"dev-9": bytes(33)}), "malformed"),
    ):
        refused(opening, opening.sign("dev-1", changed), reason)
    doubled = wire.Opened((("dev-1", bytes(33)), ("dev-1", bytes(33))))
    twice = replace(answer, sealed=seal(kem.public, wire.encode(doubled), info))
    refused(opening, opening.sign("dev-1", twice), "malformed")


def test_wrong_shares_are_got_around_with_one_more_answer(opening: Stage) -> None:
    opening.receive("cloud", opening.sign("dev-1", answer_of(opening, "dev-1")))
    opening.receive("cloud", opening.sign("dev-2", true_answer(opening, "dev-2")))
    assert not opening.sums("cloud")
    opening.receive("cloud", opening.sign("dev-3", true_answer(opening, "dev-3")))
    (done,) = opening.sums("cloud")
    assert np.array_equal(done.total, opening.plain_sum(done))


def test_wrong_shares_alone_fail_the_turn_with_the_reason(opening: Stage) -> None:
    opening.receive("cloud", opening.sign("dev-1", answer_of(opening, "dev-1")))
    opening.receive("cloud", opening.sign("dev-2", true_answer(opening, "dev-2")))
    opening.advance(2.1)
    assert reason_of(opening) == "the shares in the answers do not open the sum; silent: dev-3"
    assert not opening.sums("cloud")


def test_a_share_that_is_no_number_of_the_field_is_a_wrong_one(opening: Stage) -> None:
    for bad in (b"", b"\xff" * 33, b"\xff" * 64):
        shares = dict.fromkeys(DEVICES, bad)
        turn = turn_of(opening)
        state = down(opening)
        answers = {"dev-1": shares, "dev-2": dict.fromkeys(DEVICES, bytes(33))}
        endpoint = opening.voices["cloud"].endpoint
        with_them = replace(state, turn=replace(turn, answers=answers))
        endpoint.joint = replace(endpoint.joint, down=with_them)
        data = opening.sign("dev-3", answer_of(opening, "dev-3"))
        assert opening.receive("cloud", data) == []
        assert not opening.sums("cloud")


def test_an_escrow_that_its_key_does_not_open_fails_the_turn(trio: Stage) -> None:
    """A member that leaves junk, commits to a true key, and goes away: nothing opens, nobody is
    worse off than without it."""
    endpoint = trio.voices["cloud"].endpoint
    state = down(trio)
    spoilt = replace(state.prepared["dev-3"], escrow=bytes(len(state.prepared["dev-3"].escrow)))
    prepared = {**state.prepared, "dev-3": spoilt}
    endpoint.joint = replace(endpoint.joint, down=replace(state, prepared=prepared))
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    trio.advance(8.1)
    assert reason_of(trio) == "the shares in the answers do not open the sum"


def test_consents_that_are_none_are_refused(waiting: Stage) -> None:
    held_back(waiting, "*", wire.Consent)
    waiting.advance(6.1)
    turn = turn_of(waiting)
    key = waiting.identities["dev-1"].key
    good = wire.Consent(1, 1, turn.context, make_consent(key, turn.context, turn.survivors))
    for changed, reason in (
        (replace(good, signature=bytes(64)), "bad_signature"),
        (replace(good, signature=make_consent(key, turn.context, DEVICES)), "bad_signature"),
        (replace(good, signature=make_consent(key, bytes(32), turn.survivors)), "bad_signature"),
        (replace(good, turn=2), "out_of_place"),
        (replace(good, context=bytes(32)), "out_of_place"),
    ):
        refused(waiting, waiting.sign("dev-1", changed), reason)
    waiting.device("dev-4", "cloud")
    refused(waiting, waiting.sign("dev-4", good), "unknown_member")
    assert waiting.receive("cloud", waiting.sign("dev-1", good)) == []
    assert turn_of(waiting).consents == {"dev-1": good.signature}
    assert waiting.receive("cloud", waiting.sign("dev-1", good)) == [], "once more is no fault"


def test_where_nobody_is_missing_no_consent_is_taken(trio: Stage) -> None:
    held_back(trio, "*", wire.Answer)
    trio.order("cloud", 1)
    turn = turn_of(trio)
    key = trio.identities["dev-1"].key
    consent = wire.Consent(1, 1, turn.context, make_consent(key, turn.context, DEVICES))
    data = trio.sign("dev-1", consent)
    assert "dev-1 has no consent to give" in refused(trio, data, "out_of_place")


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
    assert down(stage).threshold == 2, "of the roster, in which it still stands"
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
    trio.train("dev-3", turn_of(trio).plan)
    trio.run()
    assert trio.sums("cloud")[0].survivors == DEVICES, "the running turn goes on without it"
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


def test_rounds_go_on_above_every_one_that_a_member_has_spent(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    stage.device("dev-1", "cloud", last_round=41)
    stage.device("dev-2", "cloud", last_round=7)
    stage.begin()
    assert stage.of("cloud", Membership)[-1].last_round == 41
    stage.order("cloud", 41)
    assert stage.failures("cloud") == [(41, "round 41 is spent here, the next is 42")]
    stage.order("cloud", 42)
    assert [one.plan.round for one in stage.sums("cloud")] == [42]
    assert stage.sums("cloud")[0].plan.turn == 1


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
    assert down(trio).last_round == 2
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
            assert (after.epoch, after.last_round) == (LAST + 1, LAST)
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
    assert not trio.letters(wire.Call)
    trio.order("cloud", 1)
    assert len(trio.sums("cloud")) == 1, "what was prepared is still good"


def test_a_cancelled_round_ends_with_the_reason_given(waiting: Stage) -> None:
    waiting.happen("cloud", Cancel(2, "another round"))
    assert down(waiting).phase is Phase.COLLECTING
    waiting.happen("cloud", Cancel(1, "the parent gave it up"))
    waiting.run()
    assert waiting.failures("cloud") == [(1, "the parent gave it up")]
    assert waiting.voices["dev-3"].up.phase is Part.READY
    waiting.idle = set()
    waiting.order("cloud", 2)
    assert waiting.sums("cloud")[0].survivors == DEVICES


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


@pytest.mark.parametrize(
    ("lacking", "phase"), [(wire.Bundles, Phase.KEYING), (wire.Prepare, Phase.READY)]
)
def test_one_order_is_carried_out_at_a_time(
    stage: Stage, order: OrderOf, lacking: type[wire.Message], phase: Phase
) -> None:
    """A second one while the first still waits is the host's mistake: nobody would be told that
    the first has failed."""
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
    held_back(stage, "dev-3", lacking)
    stage.begin()
    stage.happen("cloud", order(1))
    assert down(stage).phase is phase
    with pytest.raises(LocalError, match="round 2 is ordered while round 1 waits to begin"):
        stage.happen("cloud", order(2))


# ---- a child that is gone, in each phase


def test_whoever_is_gone_is_gone_in_each_phase(stage: Stage, order: OrderOf) -> None:
    """Gathering, keying, ready, collecting, unmasking: it is never waited for."""
    stage.add("cloud", "cloud", limits=Limits(expected=5, join_wait=1.0))
    names = [f"dev-{i}" for i in range(1, 6)]
    for name in names:
        stage.device(name, "cloud")
        if name != "dev-5":
            stage.happen(name, Begin(1))
    stage.run()
    assert down(stage).phase is Phase.GATHERING
    stage.lose("dev-4")
    assert "dev-4" not in down(stage).pending

    held = held_back(stage, "dev-3", wire.Bundles)
    stage.happen("dev-5", Begin(1))
    stage.run()
    stage.advance(1.1)
    assert down(stage).phase is Phase.KEYING
    stage.lose("dev-3")
    assert held
    assert down(stage).phase is Phase.READY
    assert tuple(down(stage).members) == ("dev-1", "dev-2", "dev-5")

    stage.carry = lambda letter: [letter]
    stage.idle = {"dev-5"}
    stage.order("cloud", 1)
    assert down(stage).phase is Phase.COLLECTING
    stage.lose("dev-5")
    assert down(stage).phase is not Phase.COLLECTING
    assert stage.failures("cloud") == [(1, "2 uploads, 3 are needed: dev-5 was lost")], (
        "the threshold of a roster of four is three"
    )
    stage.advance(6)
    stage.order("cloud", 2)
    assert stage.sums("cloud")[-1].survivors == ("dev-1", "dev-2")


def test_a_child_gone_while_ready_is_not_called(trio: Stage) -> None:
    trio.lose("dev-3")
    assert trio.of("cloud", Membership)[-1].members == ("dev-1", "dev-2")
    trio.order("cloud", 1)
    assert trio.sums("cloud")[0].plan.cohort == ("dev-1", "dev-2")
    assert not trio.letters(wire.Call, to="dev-3")


def test_a_child_gone_while_unmasking_is_in_the_sum_and_not_waited_for(waiting: Stage) -> None:
    held = held_back(waiting, "*", wire.Answer)
    waiting.advance(6.1)
    waiting.lose("dev-1")
    assert down(waiting).phase is Phase.UNMASKING
    waiting.carry = lambda letter: [letter]
    waiting.queue.extend(one for one in held if one.sender != "dev-1")
    waiting.run()
    (done,) = waiting.sums("cloud")
    assert done.survivors == ("dev-1", "dev-2")
    assert np.array_equal(done.total, waiting.plain_sum(done))
    assert tuple(down(waiting).members) == ("dev-2", "dev-3")


def test_a_child_that_was_only_cut_off_is_back_in_the_same_epoch(trio: Stage) -> None:
    """Its next call finds it where it was, and it sings from the turn after that."""
    voice = trio.voices["dev-3"]
    trio.lose("dev-3")
    trio.order("cloud", 1)
    trio.voices["dev-3"] = voice
    trio.voices["cloud"].endpoint.reclaim(voice.identity.address, voice.instance)
    trio.happen("cloud", Back("dev-3", voice.instance))
    assert tuple(down(trio).members) == DEVICES
    trio.order("cloud", 2)
    trio.advance(down(trio).who.limits.preparing + 0.1)
    assert trio.sums("cloud")[-1].survivors == DEVICES[:2]
    trio.order("cloud", 3)
    done = trio.sums("cloud")[-1]
    assert (done.plan.epoch, done.survivors) == (1, DEVICES)
    assert np.array_equal(done.total, trio.plain_sum(done))


def test_another_process_of_a_lost_child_is_not_the_one_that_is_back(trio: Stage) -> None:
    voice = trio.voices["dev-3"]
    trio.lose("dev-3")
    before = down(trio)
    trio.happen("cloud", Back("dev-3", b"another!"))
    trio.happen("cloud", Back("stranger", voice.instance))
    assert down(trio) is before
