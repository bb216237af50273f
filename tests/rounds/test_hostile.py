"""A member or an aggregator that lies with a valid signature: nothing it sends breaks a process.

Real messages of a real run are changed field by field, signed again by their own sender, and given
to the process that got them, as it was then. Whatever it makes of them, it raises nothing, what it
refuses changes nothing, and it goes on: works, ticks, and takes the honest message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from hypothesis import event, given, settings
from hypothesis import strategies as st

from edgechoir import wire
from edgechoir.codec import Codec, Many, Number, Pair, Raw, Text
from edgechoir.errors import LocalError, RemoteError
from edgechoir.learning.fixed_point import Figures
from edgechoir.rounds.aggregator import Aggregator
from edgechoir.rounds.cohort import open_upload
from edgechoir.rounds.endpoint import Endpoint, Outcome, Outgoing
from edgechoir.rounds.epoch import answer_info, encoding_of, upload_info
from edgechoir.rounds.events import (
    Contribution,
    Gone,
    NoContribution,
    Refused,
    RoundDone,
    RoundFailed,
    Tick,
    Work,
)
from edgechoir.secagg.parcel import Parcel
from edgechoir.secagg.sealing import KemKey, seal, unseal

if TYPE_CHECKING:
    from tests.rounds.conftest import Delivered, Scene, Wrap

NAMES: Final = ("cloud", "node-1", "dev-11", "dev-12", "dev-9", "", "ä" * 16)
NUMBERS: Final = (0, 1, 2, 3, 4096, 2**16, 2**24, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**63)
REALS: Final = (5e-324, 1e-300, 1e-20, 0.5, 1.0, 100.0, 101.0, 1e20, 1e300)
LARGEST_TRAINED: Final = 4096
STEPS: Final = 40


def hostile(draw: st.DrawFn, codec: Codec, value: Any) -> Any:
    """Another value for a field, near the true one or at the ends of what fits."""
    match codec:
        case Number(layout, low, high) if layout == "d":
            return draw(st.sampled_from([r for r in REALS if low <= r <= high]))
        case Number(_, low, high):
            near = st.sampled_from([value - 1, value + 1, value + 4096, value + 4097])
            chosen = draw(st.one_of(near, st.sampled_from(NUMBERS)))
            return int(min(max(chosen, low), high))
        case Raw(_, exact):
            length = exact if exact is not None else draw(st.sampled_from([0, 1, len(value)]))
            fill = draw(st.sampled_from([b"\0", b"\xff", b"x"]))
            kept = draw(st.integers(0, min(length, len(value))))
            return bytes(value[:kept]) + fill * (length - kept)
        case Text():
            return draw(st.sampled_from(NAMES))
        case Pair(first, second):
            return hostile(draw, first, value[0]), draw(
                st.sampled_from([value[1], hostile(draw, second, value[1])])
            )
        case Many(each, limit):
            return hostile_list(draw, each, limit, value)
    raise AssertionError(f"no lie for {codec}")


def hostile_list(
    draw: st.DrawFn, each: Codec, limit: int, values: tuple[Any, ...]
) -> tuple[Any, ...]:
    match draw(st.sampled_from(["empty", "drop", "double", "reverse", "change", "many"])):
        case "empty":
            return ()
        case "drop":
            return values[1:]
        case "double":
            return (*values, *values[:1])[:limit]
        case "reverse":
            return values[::-1]
        case "many":
            return (values * limit)[:limit]
    return tuple(hostile(draw, each, one) if draw(st.booleans()) else one for one in values)


Told = TypeVar("Told", bound=wire.Message | wire.Inner)


@st.composite
def lies(draw: st.DrawFn, message: Told) -> Told:
    """Up to three fields are not what they were; in a Call it may be a field of its plan."""
    if isinstance(message, wire.Call) and draw(st.booleans()):
        plan = draw(lies(wire.decode_as(wire.Plan, message.plan)))
        try:
            return replace(message, plan=wire.encode(plan))
        except LocalError:
            return message  # not even a liar can write it down
    fields = draw(st.lists(st.sampled_from(list(message.FIELDS)), min_size=1, max_size=3))
    changes: dict[str, Any] = {}
    for name in fields:
        changes[name] = hostile(draw, message.FIELDS[name], getattr(message, name))
    return replace(message, **changes)


class Afterwards:
    """Goes on with a process as its host would."""

    def __init__(self, endpoint: Endpoint, now: float) -> None:
        self.endpoint = endpoint
        self.now = now
        self.steps = 0

    def host(self, outcomes: Sequence[Outcome]) -> None:
        """Do the work asked for; messages that go out must be ones that can be read."""
        for outcome in outcomes:
            if self.steps >= STEPS:
                return
            self.steps += 1
            match outcome:
                case Work(plan) if self.endpoint.joint.down is None:
                    self.host(self.endpoint.handle(self.answer(plan), self.now))
                case Outgoing(_, _, data):
                    assert data[:2] == b"EC"
                case Refused(error):
                    assert isinstance(error, RemoteError)
                    assert self.endpoint.drops[error.reason]
                case RoundDone(plan, _, total):
                    encoding_of(plan).decode(total)
                case _:
                    pass

    def answer(self, plan: wire.Plan) -> Contribution | NoContribution:
        if plan.dimension > LARGEST_TRAINED:
            return NoContribution(plan.round, "the model here has another dimension")
        nothing = np.zeros(plan.dimension, np.float32)
        noise = np.zeros(plan.dimension, np.uint32)
        vector = encoding_of(plan).encode(nothing, 1, Figures(), noise)
        return Contribution(plan.round, vector)

    def receive(self, data: bytes) -> None:
        self.host(self.endpoint.receive(data, self.now))

    def tick(self) -> None:
        wake = self.endpoint.joint.wake
        if wake is not None:
            self.host(self.endpoint.handle(Tick(), max(self.now, min(wake, self.now + 1e6))))


def process_of(scene: Scene, moment: Delivered) -> Afterwards:
    return Afterwards(scene.process_at(moment), moment.now)


def sign_again(scene: Scene, moment: Delivered, wrap: Wrap, kind: int, body: bytes) -> bytes:
    instance = scene.stage.open(moment.letter.data).instance
    return wrap(scene.stage.identities[moment.letter.sender], kind, body, instance, 10**6)


def give(process: Afterwards, data: bytes) -> None:
    """What comes back as a refusal alone has changed nothing, but that a late upload leaves what
    it prepares for the next turn."""
    before = process.endpoint.joint
    outcomes = process.endpoint.receive(data, process.now)
    refused = [one for one in outcomes if isinstance(one, Refused)]
    if refused and len(outcomes) == 1:
        event(f"refused: {refused[0].error.reason}")
        after = process.endpoint.joint
        if "had its survivors" in str(refused[0].error):
            assert before.down is not None
            assert after.down is not None
            assert after.down.turn is before.down.turn
        else:
            assert after is before
    else:
        event("taken")
    process.host(outcomes)


def go_on(process: Afterwards, moment: Delivered) -> None:
    """Time passes, the honest message comes, members go."""
    process.tick()
    process.receive(moment.letter.data)
    process.tick()
    down = process.endpoint.joint.down
    if down is not None:
        for name, child in down.members.items():
            gone = Gone(name, child.entry.instance, "was lost")
            process.host(process.endpoint.handle(gone, process.now))
        process.tick()


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_no_lie_in_a_field_breaks_a_process(
    scene: Scene, seal_up: Wrap, data: st.DataObject
) -> None:
    moment = data.draw(st.sampled_from(scene.moments), label="moment")
    true = scene.stage.message(moment.letter.data)
    lie = data.draw(lies(true), label="lie")
    try:
        body = wire.encode(lie)
    except LocalError:
        return  # not even a liar can write it down
    process = process_of(scene, moment)
    give(process, sign_again(scene, moment, seal_up, lie.KIND, body))
    go_on(process, moment)
    event(type(true).__name__)


@settings(deadline=None, max_examples=120)
@given(data=st.data(), kind=st.integers(0, 15), junk=st.binary(max_size=60))
def test_no_signed_junk_breaks_a_process(
    scene: Scene, seal_up: Wrap, data: st.DataObject, kind: int, junk: bytes
) -> None:
    """Bytes in the place of a body, or written over one, under any kind."""
    moment = data.draw(st.sampled_from(scene.moments))
    true = scene.stage.open(moment.letter.data).body
    at = data.draw(st.integers(0, len(true)))
    body = data.draw(st.sampled_from([junk, true[:at] + junk + true[at + len(junk) :]]))
    process = process_of(scene, moment)
    give(process, sign_again(scene, moment, seal_up, kind, body))
    go_on(process, moment)


@settings(deadline=None, max_examples=100)
@given(data=st.data())
def test_any_message_at_any_moment_breaks_no_process(
    scene: Scene, seal_up: Wrap, data: st.DataObject
) -> None:
    """True messages of other moments, signed anew by whoever speaks now."""
    moment = data.draw(st.sampled_from(scene.moments))
    other = data.draw(st.sampled_from(scene.moments))
    opened = scene.stage.open(other.letter.data)
    process = process_of(scene, moment)
    give(process, sign_again(scene, moment, seal_up, opened.kind, opened.body))
    go_on(process, moment)


# ---- what only the aggregator can open


def aggregator_at(moment: Delivered) -> tuple[Aggregator, KemKey]:
    down = moment.before.down
    assert down is not None
    assert down.kem is not None
    return down, down.kem


def parcel_of(kem: KemKey, contents: wire.Contents, info: bytes) -> memoryview:
    body = wire.encode(contents)
    parcel = Parcel(kem.public, len(body), info, lambda n: b"k" * n)
    parcel.write(body)
    return parcel.close()


def last_of_a_turn(scene: Scene, kind: type[wire.Message]) -> Delivered:
    """The last such message that a node with three devices took from one of them."""
    moments = [m for m in scene.moments if m.letter.to == "node-1"]
    return [m for m in moments if type(scene.stage.message(m.letter.data)) is kind][-1]


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    length=st.sampled_from([72, 72, 72, 0, 4, 68, 71, 76, 4096]),
)
def test_no_vector_sealed_by_a_member_breaks_the_round(
    scene: Scene, seal_up: Wrap, seed: int, length: int
) -> None:
    """The last upload of a turn is noise. Of another length it is refused; else all members answer
    honestly, no sum comes of it, and the turn has ended."""
    moment = last_of_a_turn(scene, wire.Upload)
    upload = scene.stage.message(moment.letter.data)
    assert isinstance(upload, wire.Upload)
    _, kem = aggregator_at(moment)
    contents = open_upload(kem, upload, moment.letter.sender)
    assert len(contents.vector) == 72
    noise = np.random.default_rng(seed).bytes(length)
    info = upload_info(upload.context, moment.letter.sender)
    lie = replace(upload, sealed=parcel_of(kem, replace(contents, vector=noise), info))
    process = process_of(scene, moment)
    data = sign_again(scene, moment, seal_up, lie.KIND, wire.encode(lie))
    outcomes = process.endpoint.receive(data, process.now)
    if length != 72:
        assert process.endpoint.drops == {"bad_update": 1}
        assert process.endpoint.joint is moment.before
        return
    for later in answers_to(scene, upload.context):
        outcomes += process.endpoint.receive(later, process.now)
    assert not any(isinstance(one, RoundDone) for one in outcomes)
    assert process.endpoint.drops == {"bad_update": 1}
    (failed,) = (one for one in outcomes if isinstance(one, RoundFailed))
    assert failed.reason.startswith("the masks do not come off: the sum")


def answers_to(scene: Scene, context: bytes) -> list[bytes]:
    """The answers that were given in the true run of a turn."""
    given_ = [m for m in scene.moments if m.letter.data[3] == wire.Answer.KIND]
    return [m.letter.data for m in given_ if context in bytes(m.letter.data)]


@settings(deadline=None, max_examples=120)
@given(data=st.data())
def test_no_lie_inside_an_upload_breaks_a_process(
    scene: Scene, seal_up: Wrap, data: st.DataObject
) -> None:
    """What a member leaves for the next turn, with fields that are not what they were."""
    uploads = [m for m in scene.moments if m.letter.data[3] == wire.Upload.KIND]
    moment = data.draw(st.sampled_from(uploads))
    upload = scene.stage.message(moment.letter.data)
    assert isinstance(upload, wire.Upload)
    _, kem = aggregator_at(moment)
    contents = open_upload(kem, upload, moment.letter.sender)
    prepare = data.draw(lies(wire.decode_as(wire.Prepare, contents.prepare)))
    try:
        contents = replace(contents, prepare=wire.encode(prepare))
    except LocalError:
        return
    info = upload_info(upload.context, moment.letter.sender)
    lie = replace(upload, sealed=parcel_of(kem, contents, info))
    process = process_of(scene, moment)
    give(process, sign_again(scene, moment, seal_up, lie.KIND, wire.encode(lie)))
    go_on(process, moment)


@settings(deadline=None, max_examples=120)
@given(data=st.data())
def test_no_lie_inside_an_answer_gives_another_sum(
    scene: Scene, seal_up: Wrap, data: st.DataObject
) -> None:
    """Shares that are false, missing, doubled, or of somebody else: the true sum, or none."""
    given_ = [
        m for m in scene.moments if m.letter.data[3] == wire.Answer.KIND and m.letter.to == "node-1"
    ]
    moment = data.draw(st.sampled_from(given_))
    answer = scene.stage.message(moment.letter.data)
    assert isinstance(answer, wire.Answer)
    _, kem = aggregator_at(moment)
    info = answer_info(answer.context, moment.letter.sender)
    opened = wire.decode_as(wire.Opened, unseal(kem, answer.sealed, info))
    lie = data.draw(lies(opened))
    try:
        sealed = seal(kem.public, wire.encode(lie), info)
    except LocalError:
        return
    process = process_of(scene, moment)
    changed = wire.encode(replace(answer, sealed=sealed))
    outcomes = process.endpoint.receive(
        sign_again(scene, moment, seal_up, answer.KIND, changed), process.now
    )
    for later in answers_to(scene, answer.context):
        outcomes += process.endpoint.receive(later, process.now)
    done = [one for one in outcomes if isinstance(one, RoundDone)]
    for one in done:
        assert np.array_equal(one.total, scene.stage.plain_sum(one))
    event("a sum" if done else "none")
    go_on(process, moment)


def test_a_scene_has_a_moment_of_every_kind_for_every_end(scene: Scene) -> None:
    """Else the tests above would try less than they say."""
    kinds = {type(scene.stage.message(m.letter.data)) for m in scene.moments}
    assert kinds == set(wire.KINDS.values()) - {wire.Model}
    readers = {m.letter.to for m in scene.moments}
    assert {"cloud", "node-1", "dev-11"} <= readers
