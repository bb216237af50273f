"""A member sings once per round, masked, in a cohort it accepts, and refuses the rest by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import (
    BadSignature,
    Malformed,
    OutOfPlace,
    PolicyViolation,
    RemoteError,
    Replayed,
)
from edgechoir.identity.keys import sign
from edgechoir.identity.policy import Policy
from edgechoir.learning.privacy.terms import BOUND, NOISE, Terms
from edgechoir.learning.task import Task
from edgechoir.rounds import participant
from edgechoir.rounds.aggregator import Limits
from edgechoir.rounds.agreement import make_consent
from edgechoir.rounds.cohort import masked_vector, open_upload
from edgechoir.rounds.endpoint import Outcome, Outgoing
from edgechoir.rounds.epoch import answer_info, encoding_of, roster_hash
from edgechoir.rounds.events import (
    Abandon,
    Begin,
    Contribution,
    ExpandMask,
    MaskReady,
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
from edgechoir.rounds.participant import (
    JOIN_RETRY_S,
    KEYING_S,
    MAX_SKIP,
    QUIET_S,
    Participant,
    Phase,
)
from edgechoir.secagg.boxes import commitment
from edgechoir.secagg.masking import expand_mask, sum_seeds
from edgechoir.secagg.pads import Keystream, add_pads
from edgechoir.secagg.sealing import new_kem_key, seal, unseal
from edgechoir.types import Ring

if TYPE_CHECKING:
    from tests.rounds.conftest import Letter, Stage

Kind = TypeVar("Kind", bound=wire.Message)

DEVICES = ("dev-1", "dev-2", "dev-3")


def up(stage: Stage, name: str = "dev-1") -> Participant:
    return stage.voices[name].up


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


def the(kind: type[Kind], messages: list[wire.Message]) -> Kind:
    """The one message of a kind among others."""
    (one,) = (message for message in messages if isinstance(message, kind))
    return one


def plan_for(stage: Stage, turn: int = 1, **changes: Any) -> wire.Plan:
    """A plan as the cloud would make it for the whole trio; round r is tried in turn r."""
    down, model = stage.voices["cloud"].down, up(stage).model
    assert model is not None
    plan = wire.Plan(
        epoch=down.epoch,
        turn=turn,
        round=turn,
        roster=down.roster,
        min_survivors=2,
        bits=32,
        cohort=DEVICES,
        model_version=0,
        model_hash=model[1],
        task=b'{"kind":"train"}',
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


def call(stage: Stage, plan: wire.Plan, to: str = "dev-1") -> list[Outcome]:
    """The cloud calls one member, with the boxes that the others have left for its next turn."""
    left = stage.voices["cloud"].down.prepared
    boxes = tuple((by, dict(one.boxes)[to]) for by, one in sorted(left.items()) if by != to)
    return show(stage, wire.Call(wire.encode(plan), boxes), to)


def prepared_turn(messages: list[wire.Message]) -> int:
    """The turn for which a member leaves something now."""
    return the(wire.Prepare, messages).turn


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
    assert trio.sums("cloud")[0].survivors == DEVICES


def test_a_quiet_parent_is_left_the_same_once_more(trio: Stage) -> None:
    """It may have lost what this member prepared; other bytes would not fit those it has."""
    first = trio.letters(wire.Prepare, sender="dev-1")
    trio.advance(QUIET_S + 0.1)
    again = trio.letters(wire.Prepare, sender="dev-1")
    assert len(again) == len(first) + 1
    assert trio.message(again[-1].data) == trio.message(first[-1].data)
    assert not trio.voices["cloud"].endpoint.drops


def test_who_withdraws_says_so_and_hears_no_more(trio: Stage) -> None:
    outcomes = trio.happen("dev-1", Withdraw("battery low"))
    assert said(trio, outcomes) == [wire.Leave("battery low")]
    state = up(trio)
    assert (state.phase, state.kem, state.wake) == (Phase.IDLE, None, None)
    assert not state.chains
    assert not state.secrets
    assert state.provision is None
    trio.run()
    trio.order("cloud", 1)
    assert up(trio).phase is Phase.IDLE
    assert trio.sums("cloud")[0].survivors == DEVICES[1:]


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
    for changed in (replace(roster, epoch=0), replace(roster, threshold=3)):
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
    (join,) = said(trio, show(trio, replace(roster, epoch=5)))
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
    stage.device("dev-1", "cloud", policy=Policy(min_members=3, min_devices=2))
    stage.device("dev-2", "cloud")
    stage.begin()
    assert up(stage).phase is Phase.OUT
    assert stage.voices["dev-1"].endpoint.drops == {"policy": 1}
    assert stage.refusals("dev-1") == [
        "a roster of 2 members with 2 devices; this member's policy asks for 3 and 2"
    ]
    assert not stage.letters(wire.Bundles, sender="dev-1")


@pytest.mark.parametrize(("each", "phase"), [(1, Phase.OUT), (2, Phase.READY)])
def test_devices_beneath_members_count_for_the_policy(
    stage: Stage, each: int, phase: Phase
) -> None:
    """Two nodes are enough where four devices are beneath them, and not where two are."""
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for name in DEVICES[:2]:
        stage.device(name, "cloud", policy=Policy(min_devices=4))
        stage.happen(name, Begin(each))
    stage.run()
    assert {up(stage, name).phase for name in DEVICES[:2]} == {phase}


@pytest.fixture
def quartet(stage: Stage) -> Stage:
    """Four devices, not begun, of which dev-1 thinks that half may collude."""
    stage.add("cloud", "cloud", limits=Limits(expected=4))
    wary = Policy(min_devices=2, colluders_one_in=2)
    for name in (*DEVICES, "dev-4"):
        stage.device(name, "cloud", policy=wary if name == "dev-1" else None)
    return stage


def test_a_threshold_below_what_the_policy_makes_of_it_is_refused(quartet: Stage) -> None:
    quartet.begin()
    assert quartet.refusals("dev-1") == [
        "a roster of 4 with threshold 3; this member's policy asks for 4 to 4"
    ]
    assert up(quartet).phase is Phase.OUT
    assert up(quartet, "dev-2").phase is not Phase.OUT


def test_a_threshold_above_what_the_policy_asks_for_is_kept_to(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=4, colluders_one_in=2))
    for name in (*DEVICES, "dev-4"):
        stage.device(name, "cloud")
    stage.begin()
    assert {up(stage, name).threshold for name in (*DEVICES, "dev-4")} == {4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"threshold": 0}, "a roster of 3 with threshold 0; this member's policy asks for 2 to 3"),
        ({"threshold": 1}, "asks for 2 to 3"),
        ({"threshold": 4}, "a roster of 3 with threshold 4"),
        ({"keystream": 2}, "keystream 2 is not known here"),
        ({"keystream": 255}, "keystream 255 is not known here"),
    ],
)
def test_a_roster_with_a_threshold_or_cipher_that_there_is_not_is_refused(
    stage: Stage, change: dict[str, int], message: str
) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")

    def carry(letter: Letter) -> list[Letter]:
        roster = stage.message(letter.data)
        if not isinstance(roster, wire.Roster):
            return [letter]
        return [replace(letter, data=stage.sign("cloud", replace(roster, **change)))]  # type: ignore[arg-type]

    stage.carry = carry
    stage.begin()
    assert not stage.letters(wire.Bundles)
    for name in DEVICES:
        assert message in stage.refusals(name)[0]
        assert stage.voices[name].endpoint.drops == {"policy": 1}


def test_a_new_epoch_interrupts_work(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    trio.order("cloud", 1)
    kems = {name: up(trio, name).kem for name in DEVICES}
    joins = tuple(
        trio.sign(name, wire.Join("cloud", kem.public, 1, 0, 1, 0))
        for name, kem in kems.items()
        if kem is not None
    )
    outcomes = show(trio, wire.Roster(2, 2, 0, up(trio).aggregator_kem, joins))
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
    stage.advance(stage.voices["cloud"].down.who.limits.preparing + 0.1)
    (done,) = stage.sums("cloud")
    assert {"dev-1", "dev-2"} - set(done.plan.cohort), "a cohort has a secret for each pair in it"
    assert np.array_equal(done.total, stage.plain_sum(done))


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


def test_a_call_that_overtakes_the_delivery_waits_for_it(keying: Stage) -> None:
    """The turn begins without this member, which has left nothing for it; it is in the next."""
    keying.order("cloud", 2)
    keying.advance(keying.voices["cloud"].down.who.limits.preparing + 0.1)
    assert up(keying).phase is Phase.KEYING
    assert up(keying).early is not None
    messages = said(keying, show(keying, delivery_for(keying, "dev-1")))
    assert [m.turn for m in messages if isinstance(m, wire.Prepare)] == [1, 2]
    assert up(keying).phase is Phase.READY
    keying.run()
    assert [one.survivors for one in keying.sums("cloud")[1:]] == [DEVICES[1:]]
    keying.order("cloud", 3)
    done = keying.sums("cloud")[-1]
    assert (done.plan.round, done.survivors) == (3, DEVICES)
    assert np.array_equal(done.total, keying.plain_sum(done))


def test_an_old_call_read_while_keying_does_not_cost_the_delivery(keying: Stage) -> None:
    """A call of the epoch before, late on its way: refused, and the new epoch goes on."""
    call(keying, plan_for(keying, 1, epoch=1, roster=bytes(32)))
    outcomes = show(keying, delivery_for(keying, "dev-1"))
    assert isinstance(refusal(outcomes).error, OutOfPlace)
    assert up(keying).phase is Phase.READY
    keying.run()
    keying.order("cloud", 2)
    assert keying.sums("cloud")[-1].survivors == DEVICES


# ---- plans it will not follow


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"cohort": ("dev-1",)}, "policy", "a cohort of 1 is below the threshold 2"),
        ({"clip": 100.5}, "policy", "clip 100.5 is above this member's 100.0"),
        ({"cohort": (*DEVICES, "dev-4")}, "policy", "no pair secret with dev-4"),
        ({"cohort": ("dev-1", "dev-2", "dev-2")}, "malformed", "names a member twice"),
        ({"cohort": ("dev-1", "dev-1", "dev-2")}, "malformed", "names a member twice"),
        ({"round": 0}, "replayed", "plan of round 0, but round 0 is spent"),
        ({"devices": 10**6, "max_samples": 10**6}, "bad_update", "overflow a 32-bit ring"),
        ({"devices": 20_000, "bits": 16}, "bad_update", "overflow a 16-bit ring"),
        ({"devices": 100, "bits": 8}, "bad_update", "overflow a 8-bit ring"),
        ({"bits": 24}, "bad_update", "a ring of 24 bits"),
        ({"bits": 0}, "bad_update", "a ring of 0 bits"),
        ({"clip": 5e-324}, "bad_update", "a clip of 4.94066e-324"),
    ],
)
def test_a_plan_it_cannot_accept_is_answered_with_the_reason(
    trio: Stage, changes: dict[str, Any], reason: str, message: str
) -> None:
    messages = said(trio, call(trio, replace(plan_for(trio), **changes)))
    abort = the(wire.Abort, messages)
    assert message in abort.reason
    assert (abort.epoch, abort.turn) == (1, 1)
    assert prepared_turn(messages) == 2, "the next turn may be better"
    assert trio.voices["dev-1"].endpoint.drops == {reason: 1}
    assert up(trio).phase is Phase.READY
    assert up(trio).last_round == 0, "nothing was spent"
    call(trio, plan_for(trio, 2))
    assert up(trio).phase is Phase.SENT, "a sound plan is followed all the same"


def test_a_cohort_below_its_minimum_is_counted_as_policy_and_not_followed(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    stage.device("dev-1", "cloud", policy=Policy(min_members=3, min_devices=2))
    for name in DEVICES[1:]:
        stage.device(name, "cloud")
    stage.begin()
    stage.order("cloud", 1)
    assert len(stage.sums("cloud")) == 1
    stage.lose("dev-3")
    stage.order("cloud", 2)
    ((_, reason),) = stage.failures("cloud")
    said_no = "a cohort of 2 members with 2 devices; this member's policy asks for 3 and 2"
    assert f"dev-1 gave up ({said_no})" in reason
    assert stage.voices["dev-1"].endpoint.drops == {"policy": 1}


def test_a_cohort_below_the_threshold_is_not_followed(stage: Stage) -> None:
    """Its sum could never be opened by answers of this roster."""
    stage.add("cloud", "cloud", limits=Limits(expected=4))
    for name in (*DEVICES, "dev-4"):
        stage.device(name, "cloud")
    stage.begin()
    outcomes = call(stage, plan_for(stage, cohort=("dev-1", "dev-2")))
    assert "a cohort of 2 is below the threshold 3" in str(refusal(outcomes).error)


def test_the_largest_clip_it_allows_is_allowed(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for name in DEVICES[:2]:
        stage.device(name, "cloud", policy=Policy(min_devices=2, max_clip=2.0))
    stage.begin()
    stage.order("cloud", 1, clip=2.0)
    assert len(stage.sums("cloud")) == 1
    stage.order("cloud", 2, clip=2.0000001)
    ((_, reason),) = stage.failures("cloud")
    assert "clip 2.0000001 is above this member's 2.0" in reason


def private_plan(stage: Stage, bound: float, stretched: float = 1.0) -> wire.Plan:
    """With noise of ten times the bound, and `stretched` times the room that this takes."""
    plan = replace(plan_for(stage), max_samples=1)
    task = Task("train", {BOUND: bound, NOISE: 10.0}).encode()
    clip = Terms(bound, 10.0).clip(plan.dimension, plan.devices, plan.bits)
    return replace(plan, task=task, clip=clip * stretched)


def test_room_for_noise_is_not_held_against_a_private_plan(trio: Stage) -> None:
    plan = private_plan(trio, 90.0)
    assert plan.clip > 900
    call(trio, plan)
    assert up(trio).phase is Phase.SENT


@pytest.mark.parametrize(
    ("bound", "stretched", "message"),
    [
        (101.0, 1.0, "norm bound 101.0 is above this member's 100.0"),
        (90.0, 1.001, "but noise takes no more than"),
    ],
)
def test_a_private_plan_has_no_more_room_than_its_bound_and_noise_take(
    trio: Stage, bound: float, stretched: float, message: str
) -> None:
    messages = said(trio, call(trio, private_plan(trio, bound, stretched)))
    assert message in the(wire.Abort, messages).reason


def test_a_plan_for_fewer_devices_than_it_stands_for_is_refused(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        stage.device(name, "cloud")
        stage.happen(name, Begin(4))
    stage.run()
    outcomes = call(stage, plan_for(stage, devices=3))
    assert "4 devices here, the plan is for 3 in all" in str(refusal(outcomes).error)


@pytest.mark.parametrize("turn", [0, 1, 2])
def test_a_plan_of_an_earlier_turn_is_a_replay(trio: Stage, turn: int) -> None:
    trio.order("cloud", 1)
    trio.order("cloud", 2)
    before = up(trio)
    outcomes = call(trio, plan_for(trio, turn, round=9, seed=77))
    assert isinstance(refusal(outcomes).error, Replayed)
    assert len(outcomes) == 1
    assert up(trio) is before


def test_a_round_that_is_spent_is_not_sung_in_a_later_turn(trio: Stage) -> None:
    """An aggregator that wants two vectors of one round."""
    trio.order("cloud", 1)
    outcomes = call(trio, plan_for(trio, 2, round=1))
    assert "plan of round 1, but round 1 is spent" in str(refusal(outcomes).error)
    assert up(trio).phase is Phase.READY


def test_a_round_far_ahead_is_not_sung(trio: Stage) -> None:
    """It would be written down, and no later round could follow it."""
    outcomes = call(trio, plan_for(trio, round=2**32 - 1))
    assert refusal(outcomes).error.reason == "policy"
    assert up(trio).last_round == 0


def test_a_round_that_was_given_up_is_not_begun_again(trio: Stage) -> None:
    """Else a mask made for the one turn could come in the other, for a ring of another width."""
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio, bits=16))
    (expand,) = trio.of("dev-1", ExpandMask)
    trio.happen("dev-1", NoContribution(1, "too hot"))
    outcomes = call(trio, plan_for(trio, 2, round=1, bits=32, dimension=18))
    assert "plan of round 1, but round 1 is spent" in str(refusal(outcomes).error)
    late = expand_mask(expand.seeds, expand.length, np.uint16, expand.keystream)
    assert trio.happen("dev-1", MaskReady(1, late)) == []
    assert up(trio).phase is Phase.READY


def test_a_plan_of_another_epoch_is_out_of_place(trio: Stage) -> None:
    before = up(trio)
    for changed in (plan_for(trio, epoch=2), plan_for(trio, roster=bytes(32))):
        assert isinstance(refusal(call(trio, changed)).error, OutOfPlace)
    assert up(trio) is before


def test_a_plan_that_cannot_be_read_is_malformed(trio: Stage) -> None:
    before = up(trio)
    for plan in (b"", wire.encode(plan_for(trio)) + b"\0"):
        assert isinstance(refusal(show(trio, wire.Call(plan, ()))).error, Malformed)
    assert up(trio) is before


def test_a_turn_too_far_ahead_is_refused(trio: Stage) -> None:
    """It would have this member derive its chains for hours."""
    before = up(trio)
    for turn in (MAX_SKIP + 1, 2**32 - 1):
        outcomes = call(trio, plan_for(trio, turn))
        assert isinstance(refusal(outcomes).error, PolicyViolation)
        assert f"plan of turn {turn} after turn 0" in str(refusal(outcomes).error)
    assert up(trio) is before
    assert prepared_turn(said(trio, call(trio, plan_for(trio, MAX_SKIP)))) == MAX_SKIP + 1


def test_a_plan_without_it_makes_a_member_prepare_the_next_turn(trio: Stage) -> None:
    """A newcomer, or one whose Prepare was lost: a Call tells it where the others are."""
    outcomes = call(trio, plan_for(trio, 3, cohort=("dev-2", "dev-3")))
    (prepare,) = said(trio, outcomes)
    assert isinstance(prepare, wire.Prepare)
    assert (prepare.epoch, prepare.turn) == (1, 4)
    assert [reader for reader, _ in prepare.boxes] == ["dev-2", "dev-3"]
    assert (up(trio).phase, up(trio).seen) == (Phase.READY, 3)


def test_a_plan_for_a_turn_it_has_left_nothing_for_is_sat_out(trio: Stage) -> None:
    """Nobody holds shares of its secrets of that turn, so its vector could never be opened."""
    messages = said(trio, call(trio, plan_for(trio, 2)))
    assert prepared_turn(messages) == 3
    assert not trio.of("dev-1", Work)
    call(trio, plan_for(trio, 3))
    assert up(trio).phase is Phase.SENT


# ---- boxes


def test_boxes_that_do_not_open_are_counted_and_the_turn_goes_on(trio: Stage) -> None:
    """Its own vector is as safe without them; it only has fewer shares to give."""
    left = trio.voices["cloud"].down.prepared
    good = dict(left["dev-3"].boxes)["dev-1"]
    wrong = dict(left["dev-2"].boxes)["dev-3"]
    plan = wire.encode(plan_for(trio))
    show(trio, wire.Call(plan, (("dev-2", wrong), ("dev-3", good))))
    assert trio.refusals("dev-1") == [
        "the box of 'dev-2': shares do not open: not of this turn, or not intact"
    ]
    state = up(trio)
    assert state.phase is Phase.SENT
    assert state.turn is not None
    assert set(state.turn.held) == {"dev-1", "dev-3"}


def test_a_call_for_another_member_is_out_of_place(trio: Stage) -> None:
    """A broker delivers it to the wrong one: its own, which comes after it, is the one that counts.
    Else it would hold no share of anybody, and its answer would open nothing."""
    before = up(trio)
    left = trio.voices["cloud"].down.prepared
    plan = wire.encode(plan_for(trio))
    for other in ("dev-2", "dev-3"):
        boxes = tuple((by, dict(one.boxes)[other]) for by, one in left.items() if by != other)
        outcomes = show(trio, wire.Call(plan, boxes))
        assert "a call for another member" in str(refusal(outcomes).error)
    assert up(trio) is before
    assert trio.voices["dev-1"].endpoint.drops == {"out_of_place": 2}
    call(trio, plan_for(trio))
    turn = up(trio).turn
    assert turn is not None
    assert set(turn.held) == set(DEVICES)


def test_a_box_that_is_not_there_is_counted(trio: Stage) -> None:
    show(trio, wire.Call(wire.encode(plan_for(trio)), ()))
    assert [str(one) for one in trio.refusals("dev-1")] == [
        "the box of 'dev-2': there is none",
        "the box of 'dev-3': there is none",
    ]
    assert up(trio).phase is Phase.SENT


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
    outcomes = call(trio, plan_for(trio, model_version=3, model_hash=b"3" * 32, deadline=5.0))
    assert outcomes == []
    trio.advance(5.1)
    reason = "model version 3 did not arrive before the deadline"
    assert trio.of("dev-1", Abandon) == [Abandon(1, reason)]
    abort = trio.message(trio.letters(wire.Abort, sender="dev-1")[-1].data)
    assert abort == wire.Abort(1, 1, reason)
    assert up(trio).phase is Phase.READY
    trio.happen("dev-1", ModelHeld(3, b"3" * 32))
    assert not trio.of("dev-1", Work)


def test_work_that_takes_too_long_is_given_up(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio, deadline=5.0))
    trio.advance(5.1)
    reason = "the work was not done within 5 s"
    assert trio.of("dev-1", Abandon) == [Abandon(1, reason)]
    abort = trio.message(trio.letters(wire.Abort, sender="dev-1")[-1].data)
    assert abort == wire.Abort(1, 1, reason)
    trio.train("dev-1", plan_for(trio))
    trio.run()
    assert not trio.letters(wire.Upload, sender="dev-1"), "too late is not sent"


def test_a_turn_that_the_parent_ends_is_abandoned(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio))
    for other in (wire.Abort(1, 9, "another turn"), wire.Abort(2, 1, "another epoch")):
        assert show(trio, other) == []
    assert up(trio).phase is Phase.WORKING
    outcomes = show(trio, wire.Abort(1, 1, "dev-2 was lost"))
    assert outcomes[0] == Abandon(1, "dev-2 was lost")
    assert prepared_turn(said(trio, outcomes)) == 2
    assert up(trio).phase is Phase.READY
    trio.queue.clear()
    trio.train("dev-1", plan_for(trio))
    assert not trio.queue


def test_a_turn_that_ends_after_the_upload_asks_for_nothing(trio: Stage) -> None:
    """What the next turn needs was in the upload."""
    call(trio, plan_for(trio))
    assert up(trio).phase is Phase.SENT
    assert show(trio, wire.Abort(1, 1, "dev-2 was lost")) == []
    assert up(trio).phase is Phase.READY


def test_the_next_plan_ends_work_on_the_one_before(trio: Stage) -> None:
    """It has not prepared the next turn, so it is in the one after it."""
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio, 1))
    outcomes = call(trio, plan_for(trio, 2))
    assert outcomes[0] == Abandon(1, "turn 2 has begun")
    assert prepared_turn(said(trio, outcomes)) == 3
    call(trio, plan_for(trio, 3))
    trio.queue.clear()
    trio.train("dev-1", plan_for(trio, 1))
    assert not trio.queue, "the vector of round 1 has no place in round 3"
    trio.train("dev-1", plan_for(trio, 3))
    assert up(trio).phase is Phase.SENT


def test_work_that_is_not_possible_is_given_up_with_the_reason(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio))
    assert trio.happen("dev-1", NoContribution(7, "another round")) == []
    messages = said(trio, trio.happen("dev-1", NoContribution(1, "no samples yet")))
    assert the(wire.Abort, messages) == wire.Abort(1, 1, "no samples yet")
    assert prepared_turn(messages) == 2
    assert up(trio).phase is Phase.READY


@pytest.mark.parametrize(
    "vector",
    [np.zeros(17, np.uint32), np.zeros(19, np.uint32), np.zeros(18, np.uint16)],
    ids=["short", "long", "of the other ring"],
)
def test_a_vector_of_another_length_or_ring_never_leaves(trio: Stage, vector: Ring) -> None:
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio))
    abort = the(wire.Abort, said(trio, trio.happen("dev-1", Contribution(1, vector))))
    assert "expected uint32 (18,)" in abort.reason
    assert up(trio).last_round == 0


def test_a_vector_beyond_its_devices_share_never_leaves(trio: Stage) -> None:
    """Else the sum could wrap, and nobody could tell."""
    trio.idle = {"dev-1"}
    plan = plan_for(trio)
    call(trio, plan)
    vector = np.zeros(18, np.uint32)
    vector[3] = encoding_of(plan).share + 1
    abort = the(wire.Abort, said(trio, trio.happen("dev-1", Contribution(1, vector))))
    assert "exceeds what 1 devices may add up to" in abort.reason


# ---- masks


def upload_of(stage: Stage, outcomes: list[Outcome]) -> tuple[Ring, wire.Prepare]:
    """The masked vector in an upload, and what came with it."""
    kem = stage.voices["cloud"].down.kem
    assert kem is not None
    upload = the(wire.Upload, said(stage, outcomes))
    contents = open_upload(kem, upload, "dev-1")
    turn = up(stage).turn
    assert turn is not None
    vector = masked_vector(contents, encoding_of(turn.plan), "dev-1")
    return vector, wire.decode_as(wire.Prepare, contents.prepare)


@pytest.mark.parametrize("bits", [16, 32])
@pytest.mark.parametrize("ahead", [True, False])
def test_an_upload_is_the_vector_and_the_whole_mask(trio: Stage, ahead: bool, bits: int) -> None:
    """Whether the host has made the mask while training went on, or not."""
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio, bits=bits))
    (expand,) = trio.of("dev-1", ExpandMask)
    assert expand.bits == bits
    assert len(expand.seeds) == 3, "its own, and one for each other member"
    dtype = np.dtype(f"u{bits // 8}")
    mask = expand_mask(expand.seeds, expand.length, dtype, expand.keystream)
    if ahead:
        assert trio.happen("dev-1", MaskReady(1, mask)) == []
    vector: Ring = np.arange(expand.length).astype(dtype)
    masked, _ = upload_of(trio, trio.happen("dev-1", Contribution(1, vector)))
    assert masked.dtype == dtype
    assert np.array_equal(masked - mask, vector)


def test_a_mask_of_another_round_or_length_is_not_used(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio))
    before = up(trio)
    for ready in (
        MaskReady(2, np.zeros(18, np.uint32)),
        MaskReady(1, np.zeros(17, np.uint32)),
    ):
        assert trio.happen("dev-1", ready) == []
        assert up(trio) is before


def test_an_upload_brings_what_the_next_turn_needs(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio))
    outcomes = trio.happen("dev-1", Contribution(1, np.zeros(18, np.uint32)))
    _, prepare = upload_of(trio, outcomes)
    state = up(trio)
    assert prepare.turn == 2
    assert state.provision is not None
    assert prepare.boxes == state.provision.boxes
    assert prepare.commit_b == commitment(b"b", state.provision.b)
    assert [type(message) for message in said(trio, outcomes)] == [wire.Upload]


# ---- once, and only forward


def test_that_pads_are_spent_is_recorded_before_the_upload_is_sent(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio))
    state = up(trio)
    vector = np.zeros(18, np.uint32)
    after, effects = participant.step(
        state, Contribution(1, vector), trio.now, trio.voices["dev-1"].entropy
    )
    record, to_parent = effects
    assert isinstance(record, Record)
    assert isinstance(to_parent, ToParent)
    assert (record.epoch, record.round) == (1, 1)
    assert record.upload == to_parent.message
    assert (after.phase, after.last_round, after.uploaded) == (Phase.SENT, 1, 1)


def test_a_second_vector_for_a_round_is_not_sent(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    before = up(trio)
    other = np.ones(18, np.uint32)
    assert trio.happen("dev-1", Contribution(1, other)) == []
    assert up(trio) is before


def test_the_chains_of_a_spent_turn_cannot_be_derived_any_more(trio: Stage) -> None:
    earlier = up(trio).chains
    for round_ in (1, 2, 3):
        trio.order("cloud", round_)
    state = up(trio)
    for them, chain in state.chains.items():
        assert chain.turn == 4
        assert chain.key == earlier[them].at(4).key
        for turn in (1, 2, 3):
            with pytest.raises(OutOfPlace):
                chain.at(turn)


def test_nothing_of_a_finished_turn_is_kept(trio: Stage) -> None:
    """Neither its b nor the shares of the others' secrets."""
    trio.order("cloud", 1)
    state = up(trio)
    assert (state.turn, state.present) == (None, None)
    assert state.provision is not None
    assert state.provision.turn == 2


def test_rounds_may_be_skipped_and_turns_are_not(trio: Stage) -> None:
    for round_ in (1, 5, 60):
        trio.order("cloud", round_)
    assert [one.plan.round for one in trio.sums("cloud")] == [1, 5, 60]
    assert [one.plan.turn for one in trio.sums("cloud")] == [1, 2, 3]
    for done in trio.sums("cloud"):
        assert np.array_equal(done.total, trio.plain_sum(done))


# ---- reveals


@pytest.fixture
def collecting(trio: Stage) -> Stage:
    """dev-1 and dev-2 have uploaded; dev-3 has work and does none."""
    trio.idle = {"dev-3"}
    trio.order("cloud", 1)
    return trio


def reveal_of(stage: Stage, **changes: Any) -> wire.Reveal:
    """What the cloud would say now: dev-1 and dev-2 survive; not yet signed by anybody."""
    turn = stage.voices["cloud"].down.turn
    assert turn is not None
    survivors = ("dev-1", "dev-2")
    reveal = wire.Reveal(
        epoch=1,
        turn=1,
        context=turn.context,
        survivors=survivors,
        receipts=tuple(turn.receipts[name] for name in survivors),
        consents=(),
    )
    return replace(reveal, **changes)


def consents(stage: Stage, *names: str) -> tuple[tuple[str, bytes], ...]:
    """The signatures of these members under `reveal_of`'s survivors."""
    reveal = reveal_of(stage)
    keys = {name: stage.identities[name].key for name in names}
    return tuple(
        (name, make_consent(key, reveal.context, reveal.survivors)) for name, key in keys.items()
    )


def shares_in(stage: Stage, answer: wire.Answer, name: str) -> dict[str, bytes]:
    kem = stage.voices["cloud"].down.kem
    assert kem is not None
    inside = unseal(kem, answer.sealed, answer_info(answer.context, name))
    return dict(wire.decode_as(wire.Opened, inside).shares)


def test_where_somebody_is_missing_the_survivors_are_signed_before_anything_is_opened(
    collecting: Stage,
) -> None:
    turn = up(collecting).turn
    assert turn is not None
    (consent,) = said(collecting, show(collecting, reveal_of(collecting)))
    assert isinstance(consent, wire.Consent)
    assert (consent.epoch, consent.turn, consent.context) == (1, 1, turn.context)
    again = said(collecting, show(collecting, reveal_of(collecting)))
    assert again == [consent], "asked twice it signs the same"
    signed = reveal_of(collecting, consents=consents(collecting, "dev-1", "dev-2"))
    answer = the(wire.Answer, said(collecting, show(collecting, signed)))
    shares = shares_in(collecting, answer, "dev-1")
    assert shares == {
        "dev-1": turn.held["dev-1"].b,
        "dev-2": turn.held["dev-2"].b,
        "dev-3": turn.held["dev-3"].k,
    }


def test_where_nobody_is_missing_the_sum_is_opened_at_once(trio: Stage) -> None:
    trio.order("cloud", 1)
    assert not trio.letters(wire.Consent)
    assert len(trio.letters(wire.Reveal, to="dev-1")) == 1
    assert len(trio.letters(wire.Answer, to="cloud")) == 3


def test_a_member_that_gives_up_still_answers(collecting: Stage) -> None:
    collecting.happen("dev-3", NoContribution(1, "too hot"))
    collecting.run()
    (letter,) = collecting.letters(wire.Answer, sender="dev-3")
    answer = collecting.message(letter.data)
    assert isinstance(answer, wire.Answer)
    assert set(shares_in(collecting, answer, "dev-3")) == set(DEVICES)
    (done,) = collecting.sums("cloud")
    assert done.survivors == ("dev-1", "dev-2")
    assert np.array_equal(done.total, collecting.plain_sum(done))


def test_a_member_that_has_signed_or_answered_never_uploads_in_that_turn(
    collecting: Stage,
) -> None:
    """Its K may be opened by then, and with it all its pads."""
    outcomes = show(collecting, reveal_of(collecting), "dev-3")
    assert outcomes[0] == Abandon(1, "the turn goes on without this member")
    messages = said(collecting, outcomes)
    assert prepared_turn(messages) == 2
    the(wire.Consent, messages)
    collecting.train("dev-3", plan_for(collecting))
    signed = reveal_of(collecting, consents=consents(collecting, "dev-1", "dev-2"))
    the(wire.Answer, said(collecting, show(collecting, signed, "dev-3")))
    collecting.train("dev-3", plan_for(collecting))
    collecting.run()
    assert not collecting.letters(wire.Upload, sender="dev-3")


def test_nobody_answers_twice_in_a_turn(collecting: Stage) -> None:
    """Not even with the same: what was sent is sent, and what follows must be another set."""
    signed = reveal_of(collecting, consents=consents(collecting, "dev-1", "dev-2"))
    show(collecting, reveal_of(collecting))
    show(collecting, signed)
    before = up(collecting)
    assert before.answered == 1
    for again in (signed, replace(signed, survivors=DEVICES), reveal_of(collecting)):
        assert show(collecting, again) == []
    assert up(collecting) is before


def test_a_state_that_has_answered_refuses_a_second_reveal_by_itself(collecting: Stage) -> None:
    """Even if its turn were still there: the mark stands on its own."""
    state = replace(up(collecting), answered=1)
    check_refused(collecting, reveal_of(collecting), Replayed, "a second reveal of turn 1", state)


def check_refused(
    stage: Stage,
    reveal: wire.Reveal,
    error: type[RemoteError],
    message: str,
    state: Participant | None = None,
) -> None:
    """dev-1 raises on it, and is as it was."""
    cloud = stage.voices["cloud"]
    event = Received(cloud.identity.address, cloud.instance, reveal, b"")
    with pytest.raises(error, match=message):
        participant.step(
            up(stage) if state is None else state, event, stage.now, stage.voices["dev-1"].entropy
        )


REFUSED: list[tuple[dict[str, Any], type[RemoteError], str]] = [
    ({"context": bytes(32)}, PolicyViolation, "under another plan than this member's"),
    ({"survivors": ("dev-1", "dev-1")}, Malformed, "names a member twice"),
    ({"survivors": ("dev-1", "dev-9")}, Malformed, "one outside of the cohort"),
    ({"survivors": ("dev-1",)}, PolicyViolation, "1 survivors, 2 are needed"),
    ({"survivors": ()}, PolicyViolation, "0 survivors, 2 are needed"),
    ({"receipts": ()}, Malformed, "0 receipts of 2 survivors"),
    ({"receipts": (bytes(64), bytes(64))}, BadSignature, "signature"),
    ({"turn": 2}, OutOfPlace, "a reveal of turn 2, turn 1 is the last seen"),
    ({"epoch": 2}, OutOfPlace, "a reveal of turn 1, turn 1 is the last seen"),
]


@pytest.mark.parametrize(("changes", "error", "message"), REFUSED)
def test_a_survivor_set_that_is_none_is_not_answered(
    collecting: Stage, changes: dict[str, Any], error: type[RemoteError], message: str
) -> None:
    check_refused(collecting, reveal_of(collecting, **changes), error, message)
    check_refused(
        collecting,
        reveal_of(collecting, **{"consents": consents(collecting, "dev-1", "dev-2"), **changes}),
        error,
        message,
    )


def test_a_receipt_of_another_survivor_is_none(collecting: Stage) -> None:
    """dev-2's vector may be masked for another plan, whatever dev-1 has signed."""
    receipts = reveal_of(collecting).receipts
    for wrong in (receipts[::-1], (receipts[0], receipts[0])):
        check_refused(
            collecting, reveal_of(collecting, receipts=wrong), BadSignature, "does not fit"
        )


def test_a_survivor_set_that_counts_a_vector_it_never_sent_is_not_answered(
    collecting: Stage,
) -> None:
    reveal = reveal_of(collecting, survivors=("dev-1", "dev-3"))
    outcomes = show(collecting, reveal, "dev-3")
    assert "counts this member, which has not uploaded" in str(refusal(outcomes).error)
    assert up(collecting, "dev-3").phase is Phase.WORKING


def test_a_survivor_set_other_than_the_signed_one_is_not_answered(collecting: Stage) -> None:
    show(collecting, reveal_of(collecting))
    collecting.train("dev-3", plan_for(collecting))
    collecting.queue.clear()
    for survivors in (DEVICES, ("dev-1", "dev-3"), ("dev-2", "dev-3")):
        check_refused(
            collecting,
            reveal_of(collecting, survivors=survivors, consents=consents(collecting, *DEVICES)),
            PolicyViolation,
            "other than the one this member has signed",
        )


def test_too_few_signatures_under_the_survivors_open_nothing(collecting: Stage) -> None:
    """Twice the same, of a stranger, or of another set: they count for nothing."""
    one = consents(collecting, "dev-1")
    other = make_consent(
        collecting.identities["dev-2"].key, reveal_of(collecting).context, ("dev-1", "dev-3")
    )
    for given in (one, one + one, (*one, ("dev-9", one[0][1])), (*one, ("dev-2", other))):
        check_refused(
            collecting,
            reveal_of(collecting, consents=given),
            PolicyViolation,
            "1 members have signed these survivors, expected 2",
        )


def test_a_survivor_set_below_the_policy_is_not_answered(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in DEVICES:
        wary = Policy(min_members=3, min_devices=2) if name == "dev-1" else None
        stage.device(name, "cloud", policy=wary)
    stage.begin()
    stage.idle = {"dev-3"}
    stage.order("cloud", 1)
    check_refused(stage, reveal_of(stage), PolicyViolation, "a survivor set of 2 members with 2")


def test_a_survivor_set_below_what_the_plan_promised_is_not_answered(trio: Stage) -> None:
    """An aggregator that asks for little when it is too late to refuse."""
    plan = plan_for(trio, min_survivors=3)
    call(trio, plan)
    turn = up(trio).turn
    assert turn is not None
    reveal = wire.Reveal(1, 1, turn.context, ("dev-1", "dev-2"), (bytes(64),) * 2, ())
    check_refused(trio, reveal, PolicyViolation, "2 survivors, 3 are needed")


def test_a_turn_that_was_ended_is_not_opened_afterwards(collecting: Stage) -> None:
    show(collecting, wire.Abort(1, 1, "the operator stopped it"))
    before = up(collecting)
    assert before.answered == 1
    signed = reveal_of(collecting, consents=consents(collecting, "dev-1", "dev-2"))
    for reveal in (reveal_of(collecting), signed):
        assert show(collecting, reveal) == []
    assert up(collecting) is before


def test_a_reveal_of_a_turn_it_had_no_part_in_is_nothing_to_it(trio: Stage) -> None:
    call(trio, plan_for(trio, cohort=("dev-2", "dev-3")))
    before = up(trio)
    reveal = wire.Reveal(1, 1, bytes(32), ("dev-2", "dev-3"), (bytes(64),) * 2, ())
    assert show(trio, reveal) == []
    assert up(trio) is before


# ---- a lying aggregator


@pytest.mark.parametrize("same", [True, False])
def test_members_that_were_shown_different_plans_do_not_add_up(trio: Stage, same: bool) -> None:
    """dev-1 trains another model than the rest; the pads with it stay in the sum as noise, even
    for one who has all their own masks."""
    kem = trio.voices["cloud"].down.kem
    assert kem is not None
    total, plain = np.zeros(18, np.uint32), np.zeros(18, np.uint32)
    for name in DEVICES:
        plan = plan_for(trio, seed=0 if same or name != "dev-1" else 1)
        upload = the(wire.Upload, uploads_after(trio, plan, name))
        contents = open_upload(kem, upload, name)
        total += masked_vector(contents, encoding_of(plan), name)
        plain += trio.vectors[name, 1]
        present = up(trio, name).present
        assert present is not None
        add_pads(total, sum_seeds({name: present.b}, {}, upload.context), Keystream.AES)
    assert (total == plain).all() if same else (total != plain).all()


def uploads_after(stage: Stage, plan: wire.Plan, name: str) -> list[wire.Message]:
    """What a member sends when it is called, and has done its work."""
    stage.queue.clear()
    call(stage, plan, name)
    sent = [stage.message(letter.data) for letter in stage.queue if letter.sender == name]
    stage.queue.clear()
    return sent


def test_an_honest_aggregator_refuses_the_upload_for_another_plan(trio: Stage) -> None:
    """Somebody between shows dev-1 a plan of its own; the others' sum is right without it."""

    def carry(letter: Letter) -> list[Letter]:
        message = trio.message(letter.data)
        if letter.to != "dev-1" or not isinstance(message, wire.Call):
            return [letter]
        plan = replace(wire.decode_as(wire.Plan, message.plan), seed=99)
        changed = replace(message, plan=wire.encode(plan))
        return [replace(letter, data=trio.sign("cloud", changed))]

    trio.carry = carry
    trio.order("cloud", 1)
    assert trio.voices["cloud"].endpoint.drops == {"out_of_place": 1}
    trio.advance(8.1)
    (done,) = trio.sums("cloud")
    assert done.survivors == DEVICES[1:]
    assert np.array_equal(done.total, trio.plain_sum(done))
    assert set(trio.voices["dev-1"].endpoint.drops) == {"policy"}
    assert not trio.letters(wire.Answer, sender="dev-1")


def test_only_its_parent_may_tell_a_member_what_to_do(trio: Stage) -> None:
    trio.add("cloud", "cloud-2", limits=Limits())
    before = up(trio)
    data = trio.sign("cloud-2", wire.Call(wire.encode(plan_for(trio)), ()))
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
    message = wire.Call(wire.encode(plan_for(trio)), ())
    data = trio.sign("cloud", message)
    opened = trio.open(data)
    event = Received(opened.sender, opened.instance, message, data)
    entropy = trio.voices["dev-1"].entropy
    first, did = participant.step(state, event, trio.now, entropy)
    second, did_again = participant.step(state, event, trio.now, entropy)
    assert first == second
    assert [type(one) for one in did] == [type(one) for one in did_again]
    assert up(trio) is state


def test_a_mask_made_ahead_is_not_changed_by_the_upload_it_becomes(trio: Stage) -> None:
    trio.idle = {"dev-1"}
    call(trio, plan_for(trio))
    (expand,) = trio.of("dev-1", ExpandMask)
    mask = expand_mask(expand.seeds, expand.length, np.uint32, expand.keystream)
    mask.flags.writeable = False
    trio.happen("dev-1", MaskReady(1, mask))
    vector = np.ones(18, np.uint32)
    vector.flags.writeable = False
    trio.happen("dev-1", Contribution(1, vector))
    assert up(trio).phase is Phase.SENT
