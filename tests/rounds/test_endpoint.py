"""Bad input at a process's door: refused, counted by its reason, and nothing else happens."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir import wire
from edgechoir.errors import RemoteError
from edgechoir.identity.envelope import DOMAIN
from edgechoir.identity.keys import sign
from edgechoir.rounds.aggregator import Limits
from edgechoir.rounds.endpoint import CHANNEL_OF, Endpoint, ModelArrived, Outgoing
from edgechoir.rounds.events import Begin, NoContribution, Refused, Tick, Withdraw

if TYPE_CHECKING:
    from tests.rounds.conftest import Delivered, Identity, IdentityOf, Scene, Stage, Wrap

MODEL: Final = wire.Model(1, 1, bytes(32), bytes(48), (), 3, 30, 0)
YEARS_S: Final = 10 * 365 * 86_400


@dataclass(slots=True)
class Door:
    """A process just before an honest message of some kind reaches it, and that message."""

    endpoint: Endpoint
    sender: Identity
    instance: bytes
    honest: bytes
    kind: int
    body: bytes
    now: float
    wrap: Wrap

    def signed(self, body: bytes, kind: int | None = None, ahead: int = 1000) -> bytes:
        """Another message of the honest sender's process."""
        kind = self.kind if kind is None else kind
        return self.wrap(self.sender, kind, body, self.instance, ahead)

    def refuses(self, data: bytes, reason: str, *, later: float = 0.0) -> None:
        before, drops = self.endpoint.joint, self.endpoint.drops.copy()
        (outcome,) = self.endpoint.receive(data, self.now + later)
        assert isinstance(outcome, Refused)
        assert outcome.error.reason == reason
        assert self.endpoint.drops - drops == {reason: 1}
        assert self.endpoint.joint is before

    def takes(self, data: bytes) -> None:
        outcomes = self.endpoint.receive(data, self.now)
        assert not any(isinstance(outcome, Refused) for outcome in outcomes)


KINDS: Final = [kind for kind in wire.KINDS.values() if kind is not wire.Model]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def door(request: pytest.FixtureRequest, scene: Scene, seal_up: Wrap) -> Door:
    """Each test that asks for a door runs for every kind of message."""
    return open_door(scene, scene.one(request.param), seal_up)


def open_door(scene: Scene, moment: Delivered, wrap: Wrap) -> Door:
    letter = moment.letter
    opened = scene.stage.open(letter.data)
    return Door(
        endpoint=scene.process_at(moment),
        sender=scene.stage.identities[letter.sender],
        instance=opened.instance,
        honest=letter.data,
        kind=opened.kind,
        body=opened.body,
        now=moment.now,
        wrap=wrap,
    )


def test_the_honest_message_is_taken(door: Door) -> None:
    door.takes(door.honest)
    assert not door.endpoint.drops


# ---- malformed


def test_an_envelope_cut_short_or_too_long_is_malformed(door: Door) -> None:
    for data in (b"", door.honest[:1], door.honest[:-1], door.honest[:300], door.honest + b"\0"):
        door.refuses(data, "malformed")
    door.takes(door.honest)


def test_a_signed_body_cut_short_or_too_long_is_malformed(door: Door) -> None:
    """What the sender's own key signs is not believed either."""
    bodies = [door.body[:-1], door.body + b"\0", b""]
    for number, body in enumerate(bodies):
        door.refuses(door.signed(body, ahead=1000 + number), "malformed")
    door.takes(door.signed(door.body, ahead=2000))


@pytest.mark.parametrize("kind", [0, 5, 255])
def test_a_kind_that_there_is_not_is_malformed(door: Door, kind: int) -> None:
    door.refuses(door.signed(door.body, kind=kind), "malformed")


def test_another_version_of_the_envelope_is_malformed(door: Door) -> None:
    door.refuses(door.honest[:2] + b"\x02" + door.honest[3:], "malformed")


def test_an_envelope_beyond_the_limit_is_malformed(door: Door) -> None:
    door.refuses(door.honest[:-64] + bytes(1 << 20), "malformed")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -1.0, 0.0])
def test_a_plan_with_a_clip_that_is_no_number_is_malformed(
    scene: Scene, seal_up: Wrap, number: float
) -> None:
    door = open_door(scene, scene.one(wire.Call), seal_up)
    clip = struct.pack(">d", 1.0)
    assert door.body.count(clip) == 1
    door.refuses(door.signed(door.body.replace(clip, struct.pack(">d", number))), "malformed")


# ---- signatures and certificates


def test_an_unsigned_message_is_refused(door: Door) -> None:
    door.refuses(door.honest[:-64] + bytes(64), "bad_signature")
    door.takes(door.honest)


def test_a_message_signed_with_another_key_is_refused(door: Door, identify: IdentityOf) -> None:
    """Another member of the fleet writes in the sender's name."""
    head = door.honest[:-64]
    other = identify("device", "dev-of-others")
    door.refuses(head + sign(other.key, DOMAIN, head), "bad_signature")
    door.takes(door.honest)


def test_a_signature_over_something_else_is_refused(door: Door) -> None:
    other = door.signed(door.body)
    door.refuses(door.honest[:-64] + other[-64:], "bad_signature")


def test_a_body_exchanged_under_its_signature_is_refused(door: Door) -> None:
    changed = bytearray(door.honest)
    changed[-65] ^= 1
    door.refuses(bytes(changed), "bad_signature")
    door.takes(door.honest)


def test_a_member_of_another_fleet_is_refused(door: Door, identify: IdentityOf) -> None:
    """Same federation, same id, another CA."""
    address = door.sender.address
    foreign = identify(address.tier, str(address.member), "another fleet")
    door.refuses(door.wrap(foreign, door.kind, door.body, bytes(8), 0), "bad_certificate")
    door.takes(door.honest)


def test_a_certificate_that_has_expired_is_refused(door: Door) -> None:
    door.refuses(door.honest, "bad_certificate", later=YEARS_S)


def test_a_certificate_not_yet_valid_is_refused(door: Door) -> None:
    """A device whose clock has not been set yet."""
    door.refuses(door.honest, "bad_certificate", later=-YEARS_S)


# ---- who, and once


def test_the_same_message_twice_is_a_replay(door: Door) -> None:
    door.takes(door.honest)
    door.refuses(door.honest, "replayed")


def test_an_older_message_of_its_kind_is_a_replay(door: Door) -> None:
    door.takes(door.signed(door.body, ahead=5000))
    door.refuses(door.signed(door.body, ahead=4999), "replayed")
    door.refuses(door.honest, "replayed")


def test_a_second_process_of_the_same_identity_is_refused(door: Door) -> None:
    """Two devices with the same key: the first keeps its place."""
    door.takes(door.honest)
    second = door.wrap(door.sender, door.kind, door.body, b"second!!", 10**6)
    door.refuses(second, "duplicate_identity")


def test_a_process_that_was_given_up_and_came_back_keeps_its_place(door: Door) -> None:
    door.takes(door.honest)
    door.endpoint.release(door.sender.address, door.instance)
    door.endpoint.reclaim(door.sender.address, door.instance)
    door.endpoint.receive(door.signed(door.body), door.now)
    second = door.wrap(door.sender, door.kind, door.body, b"second!!", 10**6)
    door.refuses(second, "duplicate_identity")


def test_a_process_that_has_ended_speaks_no_more(door: Door) -> None:
    door.takes(door.honest)
    door.endpoint.release(door.sender.address, door.instance)
    door.endpoint.receive(door.wrap(door.sender, door.kind, door.body, b"second!!", 1), door.now)
    door.refuses(door.signed(door.body, ahead=10**6), "replayed")


def test_a_stranger_of_the_fleet_is_refused(door: Door, identify: IdentityOf) -> None:
    """A valid certificate, a valid signature, and no place here. To join is anybody's right, and
    the Leave of somebody who is not there leaves everything as it is. A tier with children takes a
    stranger for one of them, who has nothing to say from above."""
    tier = door.sender.address.tier
    stranger = identify(tier, f"{tier}-of-others")
    data = door.wrap(stranger, door.kind, door.body, b"stranger", 1)
    if door.kind == wire.Join.KIND:
        door.takes(data)
    elif door.kind == wire.Leave.KIND:
        before = door.endpoint.joint
        assert door.endpoint.receive(data, door.now) == []
        assert door.endpoint.joint == before
    else:
        from_above = wire.KINDS[door.kind] in (wire.Roster, wire.Delivery, wire.Call, wire.Reveal)
        has_children = door.endpoint.joint.down is not None
        door.refuses(data, "out_of_place" if from_above and has_children else "unknown_member")


def test_a_message_of_a_kind_that_its_sender_may_not_send_is_out_of_place(
    scene: Scene, seal_up: Wrap
) -> None:
    """A child that orders its parent about, and a parent that answers its own call."""
    call = open_door(scene, scene.one(wire.Call), seal_up)
    upload = open_door(scene, scene.one(wire.Upload), seal_up)
    upload.refuses(upload.signed(call.body, kind=wire.Call.KIND), "out_of_place")
    call.refuses(call.signed(upload.body, kind=wire.Upload.KIND), "out_of_place")


# ---- models


def model_door(scene: Scene, wrap: Wrap) -> Door:
    return open_door(scene, scene.one(wire.Call), wrap)


def test_a_model_of_the_cloud_arrives_as_it_was_signed(
    scene: Scene, seal_up: Wrap, identify: IdentityOf
) -> None:
    door = model_door(scene, seal_up)
    data = seal_up(identify("cloud", "cloud"), MODEL.KIND, wire.encode(MODEL), bytes(8), 7)
    assert door.endpoint.receive(data, door.now) == [ModelArrived(MODEL, data)]
    assert door.endpoint.receive(data, door.now, retained=True) == [ModelArrived(MODEL, data)]


@pytest.mark.parametrize("tier", ["device", "node", "edge-cloud"])
def test_a_model_that_the_cloud_has_not_signed_is_refused(
    scene: Scene, seal_up: Wrap, identify: IdentityOf, tier: str
) -> None:
    """Not even one of the member's own parent."""
    door = model_door(scene, seal_up)
    parent = door.sender if tier == door.sender.address.tier else identify(tier, "other")
    door.refuses(seal_up(parent, MODEL.KIND, wire.encode(MODEL), bytes(8), 7), "bad_model")


def test_a_model_cut_short_or_of_another_fleet_is_refused(
    scene: Scene, seal_up: Wrap, identify: IdentityOf
) -> None:
    door = model_door(scene, seal_up)
    cloud, body = identify("cloud", "cloud"), wire.encode(MODEL)
    door.refuses(seal_up(cloud, MODEL.KIND, body[:-1], bytes(8), 7), "malformed")
    good = seal_up(cloud, MODEL.KIND, body, bytes(8), 7)
    door.refuses(good[:-64] + bytes(64), "bad_signature")
    foreign = identify("cloud", "cloud", "another fleet")
    door.refuses(seal_up(foreign, MODEL.KIND, body, bytes(8), 7), "bad_certificate")


# ---- any change at all


def changed(draw: st.DrawFn, data: bytes) -> bytes:
    """`data` with something overwritten, taken out, put in, doubled or cut off."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, max(len(out) - 1, 0)))
        stop = draw(st.integers(start, min(start + 16, len(out))))
        match draw(st.sampled_from(["overwrite", "flip", "double", "cut", "zero"])):
            case "overwrite":
                out[start:stop] = draw(st.binary(max_size=16))
            case "flip":
                if start < len(out):
                    out[start] ^= 1 << draw(st.integers(0, 7))
            case "double":
                out[start:start] = out[start:stop]
            case "cut":
                del out[start:]
            case "zero":
                out[start:stop] = bytes(stop - start)
    return bytes(out)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_no_changed_envelope_of_any_kind_gets_through(scene: Scene, data: st.DataObject) -> None:
    moment = data.draw(st.sampled_from(scene.moments), label="moment")
    bad = data.draw(st.composite(changed)(moment.letter.data))
    if bad == moment.letter.data:
        return
    endpoint = scene.process_at(moment)
    (outcome,) = endpoint.receive(bad, moment.now)
    assert isinstance(outcome, Refused)
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.reason in {"malformed", "bad_signature", "bad_certificate"}
    assert endpoint.drops == {outcome.error.reason: 1}
    assert endpoint.joint is moment.before


@settings(deadline=None)
@given(junk=st.binary(max_size=500), prefix=st.integers(0, 400))
def test_no_junk_gets_through(scene: Scene, junk: bytes, prefix: int) -> None:
    moment = scene.moments[0]
    endpoint = scene.process_at(moment)
    (outcome,) = endpoint.receive(moment.letter.data[:prefix] + junk, moment.now)
    assert isinstance(outcome, Refused)
    assert endpoint.joint is moment.before


# ---- what goes out


def test_each_message_goes_out_on_its_channel(stage: Stage) -> None:
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for name in ("dev-1", "dev-2"):
        stage.device(name, "cloud")
    stage.begin()
    stage.order("cloud", 1)
    stage.idle = {"dev-2"}
    stage.order("cloud", 2)
    stage.happen("dev-2", NoContribution(2, "too hot"))
    stage.run()
    stage.happen("dev-1", Withdraw("bye"))
    stage.happen("dev-1", Begin(1))
    channels: dict[type, set[str]] = {}
    plan, roster = CHANNEL_OF[wire.Reveal], CHANNEL_OF[wire.Roster]
    for _, out in stage.outcomes:
        if isinstance(out, Outgoing):
            channels.setdefault(type(stage.message(out.data)), set()).add(out.channel)
            assert bool(out.member) == (out.channel == "down")
    up, down = {"up"}, {"down"}
    assert channels == {
        wire.Join: up,
        wire.Bundles: up,
        wire.Prepare: up,
        wire.Upload: up,
        wire.Answer: up,
        wire.Leave: up,
        wire.Delivery: down,
        wire.Call: down,
        wire.Roster: {roster},
        wire.Reveal: {plan},
        wire.Abort: {plan, "up"},
    }


def test_messages_are_numbered_upwards_from_process_to_process(trio: Stage) -> None:
    numbers: dict[bytes, list[int]] = {}
    for one in trio.delivered:
        opened = trio.open(one.letter.data)
        if one.letter.sender != "cloud":
            numbers.setdefault(opened.instance, []).append(opened.sequence)
    assert len(numbers) == 3
    for sequence in numbers.values():
        assert sequence == sorted(set(sequence))


def test_refusals_of_the_state_machines_own_are_counted_too(trio: Stage) -> None:
    """A plan that is below the policy is refused, and said no to; the next turn is prepared."""
    down = trio.voices["cloud"].down
    plan = wire.Plan(
        epoch=down.epoch,
        turn=1,
        round=1,
        roster=down.roster,
        min_survivors=2,
        bits=32,
        cohort=("dev-1",),
        model_version=0,
        model_hash=bytes(32),
        task=b'{"kind":"train"}',
        dimension=1,
        devices=3,
        clip=1.0,
        max_samples=1,
        epochs=1,
        batch_size=1,
        learning_rate=1.0,
        seed=0,
        deadline=1.0,
    )
    outcomes = trio.receive("dev-1", trio.sign("cloud", wire.Call(wire.encode(plan), ())))
    assert [type(one) for one in outcomes] == [Refused, Outgoing, Outgoing]
    sent = [trio.message(one.data) for one in outcomes if isinstance(one, Outgoing)]
    assert [type(message) for message in sent] == [wire.Abort, wire.Prepare]
    assert trio.voices["dev-1"].endpoint.drops == {"policy": 1}


# ---- a clock that is set


def test_what_is_due_moves_back_with_the_clock(trio: Stage) -> None:
    """Else a process whose clock was ahead by a year would wait for a year."""
    endpoint = trio.voices["dev-1"].endpoint
    wake = endpoint.joint.wake
    assert wake is not None
    endpoint.handle(Tick(), trio.now - YEARS_S)
    assert endpoint.joint.wake == pytest.approx(wake - YEARS_S)


def test_the_deadline_of_a_turn_moves_back_with_the_clock(trio: Stage) -> None:
    trio.idle = {"dev-3"}
    trio.order("cloud", 1, deadline=8.0)
    endpoint = trio.voices["cloud"].endpoint
    endpoint.handle(Tick(), trio.now - YEARS_S)
    down = endpoint.joint.down
    assert down is not None
    assert down.turn is not None
    assert down.turn.deadline == pytest.approx(trio.now - YEARS_S + 8.0)
    assert down.wake == pytest.approx(trio.now - YEARS_S + 8.0 * down.who.limits.collecting)


def test_a_clock_that_goes_on_moves_nothing(trio: Stage) -> None:
    endpoint = trio.voices["dev-1"].endpoint
    before = endpoint.joint
    endpoint.handle(Tick(), trio.now + 1.0)
    endpoint.handle(Tick(), trio.now + 1.0)
    assert endpoint.joint == before
