"""Bodies come out as they went in, and whatever is not a body is Malformed and nothing else."""

import struct
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechoir import wire
from edgechoir.errors import LocalError, Malformed
from edgechoir.secagg.boxes import BOX_BYTES
from edgechoir.secagg.sealing import OVERHEAD
from edgechoir.secagg.shamir import SHARE_BYTES

Body = wire.Message | wire.Inner
Bodies = st.SearchStrategy[Body]

SLOW = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

PLAN = wire.Plan(
    epoch=1,
    turn=4,
    round=2,
    roster=bytes(32),
    min_survivors=2,
    bits=32,
    cohort=("dev-1", "dev-2"),
    model_version=3,
    model_hash=bytes(range(32)),
    task=b'{"kind":"train"}',
    dimension=10,
    devices=2,
    clip=1.5,
    max_samples=100,
    epochs=1,
    batch_size=32,
    learning_rate=0.05,
    seed=9,
    deadline=60.0,
)
JOIN = wire.Join("node-1", b"k" * 1216, devices=3, last_round=4, last_epoch=5, renew=1)
PREPARE = wire.Prepare(7, 4, (("dev-1", b"b" * 82),), b"e" * 48, bytes(32), b"K" * 32)
PREPARE = wire.Prepare(7, 8, (("dev-1", b"box"), ("dev-2", b"")), b"escrow", bytes(32), bytes(32))
EXAMPLES: dict[str, Body] = {
    "Join": JOIN,
    "Roster": wire.Roster(7, 2, 1, b"k" * 1216, (b"first", b"second")),
    "Bundles": wire.Bundles(7, bytes(32), (("dev-1", b"box"), ("dev-2", b""))),
    "Delivery": wire.Delivery(7, bytes(32), (("dev-1", b"box"),)),
    "Call": wire.Call(b"a plan", (("dev-1", b"box"),)),
    "Prepare": PREPARE,
    "Upload": wire.Upload(7, 8, bytes(32), bytes(64), b"sealed vector"),
    "Reveal": wire.Reveal(
        7, 8, bytes(32), ("dev-1", "dev-2"), (bytes(64), bytes(64)), (("dev-1", bytes(64)),)
    ),
    "Consent": wire.Consent(7, 8, bytes(32), bytes(64)),
    "Answer": wire.Answer(7, 8, bytes(32), b"sealed shares"),
    "Abort": wire.Abort(7, 8, "too hot to train: 81 °C"),
    "Model": wire.Model(3, 8, bytes(32), b"\0\0\x80?" * 10, (("mean", b"m" * 8),), 2, 200, 0),
    "Leave": wire.Leave("stopped by its operator"),
    "Plan": PLAN,
    "Contents": wire.Contents(wire.encode(PREPARE), b"\1\0" * 10),
    "Opened": wire.Opened((("dev-1", b"s" * 33), ("dev-2", b"s" * 33))),
}
INNER = (wire.Plan, wire.Contents, wire.Opened)


def read(like: Body, body: bytes | memoryview) -> Body:
    """As a receiver does: by the number of the kind, or as what must stand in its place."""
    if isinstance(like, INNER):
        return wire.decode_as(type(like), body)
    return wire.decode(like.KIND, body)


@pytest.fixture(params=list(EXAMPLES.values()), ids=list(EXAMPLES))
def example(request: pytest.FixtureRequest) -> Body:
    body: Body = request.param
    return body


def plan_with(field: str, value: Any) -> wire.Plan:
    return replace(PLAN, **{field: value})


def test_there_is_an_example_of_every_kind() -> None:
    assert {type(m) for m in EXAMPLES.values()} == {*wire.KINDS.values(), *INNER}


def test_every_kind_has_its_own_number_and_codes_all_its_fields() -> None:
    for kind, message in wire.KINDS.items():
        assert kind == message.KIND
    assert len(wire.KINDS) == 13
    for example in EXAMPLES.values():
        assert list(example.FIELDS) == [field.name for field in fields(example)]


@SLOW
@given(data=st.data())
def test_a_message_comes_out_as_it_went_in(bodies: Bodies, data: st.DataObject) -> None:
    message = data.draw(bodies)
    assert read(message, wire.encode(message)) == message


@SLOW
@given(data=st.data())
def test_a_body_is_read_from_a_memoryview_too(bodies: Bodies, data: st.DataObject) -> None:
    message = data.draw(bodies)
    assert read(message, memoryview(wire.encode(message))) == message


def test_a_body_cut_at_any_length_is_malformed(example: Body) -> None:
    body = wire.encode(example)
    for length in range(len(body)):
        with pytest.raises(Malformed):
            read(example, body[:length])


def test_one_byte_too_many_is_malformed(example: Body) -> None:
    with pytest.raises(Malformed, match="1 bytes too many"):
        read(example, wire.encode(example) + b"\0")


@pytest.mark.parametrize("kind", [0, 5, 15, 255, -1])
def test_an_unknown_kind_is_malformed(kind: int) -> None:
    with pytest.raises(Malformed, match=f"kind {kind} is not one of"):
        wire.decode(kind, wire.encode(PLAN))


@pytest.mark.parametrize("inner", INNER)
@SLOW
@given(body=st.binary(max_size=300))
def test_arbitrary_bytes_inside_a_message_are_malformed_or_canonical(
    inner: type[wire.Inner], body: bytes
) -> None:
    try:
        read_ = wire.decode_as(inner, body)
    except Malformed:
        return
    assert wire.encode(read_) == body


@SLOW
@given(kind=st.integers(0, 16), body=st.binary(max_size=300))
def test_arbitrary_bytes_are_malformed_or_canonical(kind: int, body: bytes) -> None:
    try:
        message = wire.decode(kind, body)
    except Malformed:
        return
    assert wire.encode(message) == body


@SLOW
@given(data=st.data())
def test_a_changed_body_is_malformed_or_canonical(bodies: Bodies, data: st.DataObject) -> None:
    """Bytes overwritten, cut out and put in, so that lengths lie about what follows them."""
    message = data.draw(bodies)
    body = bytearray(wire.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        stop = data.draw(st.integers(start, min(start + 8, len(body))))
        body[start:stop] = data.draw(st.binary(max_size=8))
    try:
        changed = read(message, bytes(body))
    except Malformed:
        return
    assert wire.encode(changed) == bytes(body)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 2e300])
@pytest.mark.parametrize("field", ["clip", "learning_rate", "deadline"])
def test_a_number_that_is_not_finite_and_positive_is_malformed(field: str, number: float) -> None:
    mark = 123.456
    body = wire.encode(plan_with(field, mark))
    bad = body.replace(struct.pack(">d", mark), struct.pack(">d", number))
    with pytest.raises(Malformed, match=r"number .* is outside"):
        wire.decode_as(wire.Plan, bad)
    with pytest.raises(LocalError):
        wire.encode(plan_with(field, number))


@pytest.mark.parametrize("field", ["dimension", "devices", "max_samples", "epochs", "batch_size"])
def test_a_plan_that_counts_none_of_something_is_malformed(field: str) -> None:
    """What divides or sizes something later on is refused where it comes in."""
    layout, mark = (">H", 0xA5A5) if field in ("epochs", "batch_size") else (">I", 0xA5A5A5)
    body = wire.encode(plan_with(field, mark))
    zero = body.replace(struct.pack(layout, mark), struct.pack(layout, 0))
    with pytest.raises(Malformed, match="number 0 is outside 1"):
        wire.decode_as(wire.Plan, zero)


def test_a_plan_for_a_model_that_no_message_could_carry_is_malformed() -> None:
    mark = 0xA5A5A5
    body = wire.encode(replace(PLAN, dimension=mark))
    for dimension in (wire.MAX_DIMENSION + 1, 2**32 - 1):
        with pytest.raises(Malformed, match="outside"):
            wire.decode_as(
                wire.Plan, body.replace(struct.pack(">I", mark), struct.pack(">I", dimension))
            )
    largest = (wire.MAX_DIMENSION + 100) * 4  # and beside it a Prepare, its length and the box
    assert largest + 16384 + 2000 < wire.MAX_BLOB


def test_the_largest_plan_and_preparation_fit_their_fields() -> None:
    """32 members with the longest names: a limit reached would be an error of our own."""
    names = tuple(f"{i:032d}" for i in range(wire.MAX_MEMBERS))
    call = wire.Call(wire.encode(replace(PLAN, cohort=names)), tuple((n, bytes(82)) for n in names))
    assert wire.decode(call.KIND, wire.encode(call)) == call
    boxes = tuple((name, bytes(82)) for name in names)
    prepare = wire.encode(replace(PREPARE, boxes=boxes, escrow=bytes(32 * 31 + 16)))
    contents = wire.Contents(prepare, b"vector")
    assert wire.decode_as(wire.Contents, wire.encode(contents)) == contents
    opened = wire.encode(wire.Opened(tuple((name, bytes(33)) for name in names)))
    answer = wire.Answer(1, 1, bytes(32), bytes(len(opened) + 2000))
    assert wire.decode(answer.KIND, wire.encode(answer)) == answer


def test_a_join_for_no_device_is_malformed() -> None:
    body = wire.encode(replace(JOIN, devices=0xA5A5A5))
    with pytest.raises(Malformed, match="number 0 is outside 1"):
        wire.decode(1, body.replace(struct.pack(">I", 0xA5A5A5), bytes(4)))


def test_text_that_is_not_utf8_is_malformed() -> None:
    for bad in (b"\xff\xfe", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe2\x82"):
        with pytest.raises(Malformed, match="not UTF-8"):
            wire.decode(wire.Leave.KIND, struct.pack(">I", len(bad)) + bad)


@pytest.mark.parametrize("claimed", [wire.MAX_REASON + 1, 2**31, 2**32 - 1])
def test_a_length_above_the_limit_is_refused_before_anything_is_read(claimed: int) -> None:
    with pytest.raises(Malformed, match=f"at most {wire.MAX_REASON} bytes, saw {claimed}"):
        wire.decode(wire.Leave.KIND, struct.pack(">I", claimed))


@pytest.mark.parametrize("claimed", [wire.MAX_MEMBERS + 1, 2**32 - 1])
def test_a_count_above_the_limit_is_refused_before_anything_is_read(claimed: int) -> None:
    head = struct.pack(">I", 7) + struct.pack(">I", 32) + bytes(32)
    with pytest.raises(Malformed, match=f"at most {wire.MAX_MEMBERS} entries, saw {claimed}"):
        wire.decode(wire.Bundles.KIND, head + struct.pack(">I", claimed))


def test_a_blob_that_claims_more_than_there_is_takes_no_memory() -> None:
    head = struct.pack(">II", 7, 8) + struct.pack(">I", 32) + bytes(32)
    head += struct.pack(">I", 64) + bytes(64)
    with pytest.raises(Malformed, match=f"expected {wire.MAX_BLOB} bytes, 0 are left"):
        wire.decode(wire.Upload.KIND, head + struct.pack(">I", wire.MAX_BLOB))
    with pytest.raises(Malformed, match="at most"):
        wire.decode(wire.Upload.KIND, head + struct.pack(">I", wire.MAX_BLOB + 1))


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_hash_has_32_bytes(length: int) -> None:
    body = struct.pack(">I", 7) + struct.pack(">I", length) + bytes(length) + struct.pack(">I", 0)
    with pytest.raises(Malformed, match=f"expected 32 bytes, saw {length}"):
        wire.decode(wire.Bundles.KIND, body)
    with pytest.raises(LocalError, match=f"expected 32 bytes, saw {length}"):
        wire.encode(wire.Bundles(7, bytes(length), ()))


@pytest.mark.parametrize(
    "message",
    [
        replace(JOIN, devices=-1),
        replace(JOIN, devices=2**32),
        replace(JOIN, renew=256),
        replace(JOIN, parent="x" * 33),
        replace(JOIN, kem=bytes(2049)),
        replace(PLAN, cohort=("dev",) * 33),
        replace(PLAN, dimension=0),
        replace(PLAN, bits=-1),
        replace(PREPARE, commit_b=bytes(31)),
        replace(PREPARE, boxes=(("dev-1", bytes(129)),)),
        wire.Call(bytes(4096 + wire.MAX_TASK + 1), ()),
        wire.Reveal(1, 1, bytes(32), ("dev",) * 33, (), ()),
        wire.Opened((("dev-1", bytes(65)),)),
        replace(PLAN, seed=-1),
        replace(PLAN, bits=256),
        wire.Leave("ä" * 151),
        wire.Leave("\ud800"),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_our_own_error(message: Body) -> None:
    with pytest.raises(LocalError):
        wire.encode(message)


def test_the_largest_cohort_fits_its_messages() -> None:
    """Names as long as they may be, boxes and shares as `secagg` makes them, sealed."""
    names = tuple(f"{'x' * 30}{i:02}" for i in range(wire.MAX_MEMBERS))
    plan = wire.encode(replace(PLAN, cohort=names))
    boxes = tuple((name, bytes(BOX_BYTES)) for name in names[1:])
    prepare = wire.encode(replace(PREPARE, boxes=boxes, escrow=bytes(32 * len(boxes) + 16)))
    opened = wire.encode(wire.Opened(tuple((name, bytes(SHARE_BYTES)) for name in names)))
    for body in (
        wire.Call(plan, boxes),
        wire.Contents(prepare, b""),
        wire.Reveal(
            1, 1, bytes(32), names, (bytes(64),) * 32, tuple((name, bytes(64)) for name in names)
        ),
        wire.Answer(1, 1, bytes(32), bytes(len(opened) + OVERHEAD)),
    ):
        assert read(body, wire.encode(body)) == body
    assert 4 * wire.MAX_DIMENSION + len(prepare) + 500 + OVERHEAD < wire.MAX_BLOB


@SLOW
@given(text=st.text(max_size=400))
def test_any_text_can_be_cut_to_a_reason(text: str) -> None:
    cut = wire.reason(text)
    assert wire.decode(9, wire.encode(wire.Leave(cut))) == wire.Leave(cut)
    if len(text.encode(errors="replace")) <= wire.MAX_REASON:
        assert cut == text.encode(errors="replace").decode()


def test_a_reason_is_cut_between_characters() -> None:
    assert wire.reason("ä" * 200) == "ä" * 150
    assert wire.reason("x" + "ä" * 200) == "x" + "ä" * 149
    assert wire.reason("short") == "short"
