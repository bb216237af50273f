"""Status, metrics and predictions: what is written is read back, what is hostile is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import Malformed
from edgechoir.monitor.document import MAX_BYTES
from edgechoir.monitor.health import Usage, health, usage
from edgechoir.monitor.records import Metrics, PredictionRecord
from edgechoir.monitor.schema import DOCUMENTS, schema
from edgechoir.monitor.status import (
    BrokerStatus,
    Health,
    InferenceStatus,
    MemberState,
    ModelStatus,
    RoundStatus,
    Status,
    TrainingStatus,
    parse,
    parse_at,
)
from edgechoir.transport.topics import topic
from edgechoir.types import Address, MemberId

LEAST: dict[str, Any] = {
    "federation": "digits",
    "tier": "device",
    "member": "dev-01",
    "instance": "00ff",
    "state": "online",
    "since": 1,
    "updated": 2.5,
}
FULL = Status(
    federation="digits",
    tier="node",
    member="node-1",
    instance="00ff",
    state=MemberState.ONLINE,
    since=1.0,
    updated=2.0,
    parent="cloud",
    model=ModelStatus(version=3, sha256="0123456789ab", accuracy=0.97),
    round=RoundStatus(
        number=7,
        phase="collecting",
        members=3,
        expected=5,
        last_outcome="failed",
        reason="2 survivors, 3 needed",
        seconds=1.5,
        bytes_up=10,
        bytes_down=20,
    ),
    inference=InferenceStatus(answered=10, missed=1, p50_ms=0.4, p99_ms=1.2, provider="CPU"),
    training=TrainingStatus(available=True, state="idle"),
    drops={"malformed": 2},
    broker=BrokerStatus(reconnects=1, protocol="5"),
    health=Health(rss_mb=97.5, cpu_percent=3.0, uptime_s=60.0),
)


def document(**changes: Any) -> bytes:
    return json.dumps({**LEAST, **changes}).encode()


def test_a_status_is_read_back_as_it_was_written() -> None:
    assert parse(FULL.to_json()) == FULL


def test_what_a_tier_does_not_have_is_left_out() -> None:
    keys = json.loads(parse(document()).to_json()).keys()
    assert keys == {*LEAST, "schema_version", "drops"}


def test_a_key_of_a_later_version_is_passed_over() -> None:
    assert parse(document(colour="blue", model={"version": 1, "shape": []})).model == ModelStatus(
        version=1
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_version": 2},
        {"state": "asleep"},
        {"member": "Dev/01"},
        {"tier": "moon"},
        {"instance": "0"},
        {"instance": "zz"},
        {"since": -1},
        {"updated": "now"},
        {"drops": {str(n): n for n in range(65)}},
        {"drops": {"malformed": -1}},
        {"model": []},
        {"round": {"number": 1}},
    ],
)
def test_a_wrong_value_is_malformed(changes: dict[str, Any]) -> None:
    with pytest.raises(Malformed, match=r"^status: "):
        parse(document(**changes))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b"{" * 5000,
        document()[:-1],
        document().replace(b"dev-01", b"dev-\xff"),
        document(colour=1).replace(b'"colour": 1', b'"colour": ' + b"[" * 9 + b"]" * 9),
        document(colour="x" * MAX_BYTES),
        document(colour=1).replace(b": 1}", b": NaN}").replace(b"2.5", b"NaN"),
        document().replace(b"2.5", b"9" * 5000),
    ],
)
def test_a_hostile_document_is_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        parse(payload)


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=8,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_bytes_are_read_or_malformed(payload: bytes) -> None:
    with pytest.raises(Malformed):
        parse(payload)


@given(
    st.sampled_from([*sorted(LEAST), "model", "round", "drops", "health"]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
        lambda inner: st.dictionaries(
            st.sampled_from(["version", "number", "phase", "rss_mb"]), inner, max_size=2
        ),
    ),
)
def test_what_is_read_can_be_written(key: str, value: Any) -> None:
    try:
        status = parse(document(**{key: value}))
    except Malformed:
        return
    assert parse(status.to_json()) == status


@given(st.text(max_size=300))
def test_no_control_character_passes(text: str) -> None:
    status = Status.model_validate({**LEAST, "state": MemberState.ONLINE, "drops": {text: 1}})
    (reason,) = status.drops
    assert len(reason) <= 200
    assert not set(reason) & {*map(chr, range(32)), *map(chr, range(127, 160)), "\u202e", "\u2066"}
    assert parse(status.to_json()) == status


def test_numbers_of_numpy_are_numbers() -> None:
    model = ModelStatus.model_validate({"version": 1, "accuracy": np.float32(0.5)})
    assert model.accuracy == 0.5


@pytest.mark.parametrize("value", [math.nan, math.inf, np.float32("nan")])
def test_a_number_that_is_not_finite_is_not_known(value: float) -> None:
    metrics = Metrics(
        federation="d", tier="cloud", member="c", round=1, at=1.0, outcome="done", loss=value
    )
    assert metrics.loss is None
    assert b"loss" not in metrics.to_json()


def test_a_status_must_be_of_the_member_of_its_topic() -> None:
    own = topic("digits", Address("device", MemberId("dev-01")), "status")
    other = topic("digits", Address("device", MemberId("dev-02")), "status")
    assert parse_at(own, document()).member == "dev-01"
    with pytest.raises(Malformed, match="digits/device/dev-01"):
        parse_at(other, document())


def test_a_prediction_is_read_back_as_it_was_written() -> None:
    record = PredictionRecord(
        federation="d",
        tier="device",
        member="a",
        at=1.0,
        version=2,
        label=3,
        confidence=0.9,
        values=(0.1, 0.9),
        latency_ms=0.4,
    )
    assert PredictionRecord.from_json(record.to_json()) == record


@pytest.mark.parametrize("channel", DOCUMENTS)
def test_a_schema_describes_every_key(channel: str) -> None:
    properties = schema(channel)["properties"]
    assert properties.keys() == DOCUMENTS[channel].model_fields.keys()
    assert "schema_version" not in schema(channel)["required"]


def test_memory_and_cpu_of_this_process_are_read() -> None:
    first = usage(10.0)
    sum(range(2_000_000))
    second = usage(12.0)
    assert first.rss_bytes is not None
    assert first.rss_bytes > 5_000_000
    assert first.cpu_s is not None
    assert second.cpu_s is not None
    assert second.cpu_s >= first.cpu_s
    assert health(4.0, first, second).uptime_s == 8.0


def test_a_process_name_with_brackets_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "statm").write_text("100 50 3 4 5 6 7\n")
    (tmp_path / "stat").write_text("7 (a) b (c) S " + " ".join(map(str, range(4, 53))))
    read = usage(1.0, tmp_path)
    assert read.cpu_s is not None
    assert read.cpu_s > 0
    assert read.rss_bytes is not None


def test_health_is_not_known_without_proc(tmp_path: Path) -> None:
    nothing = usage(1.0, tmp_path / "none")
    assert nothing == Usage(1.0, None, None)
    assert health(0.0, nothing, Usage(2.0, None, None)) == Health(uptime_s=2.0)


def test_cpu_is_the_share_of_the_time_between_two_readings() -> None:
    measured = health(0.0, Usage(10.0, 1.0, 0), Usage(14.0, 2.0, 50_000_000))
    assert measured == Health(rss_mb=50.0, cpu_percent=25.0, uptime_s=14.0)
