import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sources.message import MAX_PAYLOAD
from edgechoir.pipeline.sources.mqtt import MqttSource


class Hands(Protocol):
    time: float

    def clock(self) -> Clock: ...


def read(payloads: Sequence[bytes], clock: Clock | None = None) -> tuple[list[Sample], int]:
    async def messages() -> AsyncIterator[bytes]:
        for payload in payloads:
            yield payload

    async def run() -> tuple[list[Sample], int]:
        async with MqttSource(messages(), key="here", clock=clock) as source:
            samples = [sample async for sample in source]
            return samples, source.counts.get("malformed", 0)

    return asyncio.run(run())


def test_message_becomes_a_sample(hands: Hands) -> None:
    full = b'{"x": [[1, null], [2.5, 3]], "y": 1, "time": 12.5, "key": "boiler"}'
    (first, second), malformed = read([full, b'{"x": [1]}'], hands.clock())
    assert malformed == 0
    assert (first.key, first.time, first.y, first.x.shape) == ("boiler", 12.5, 1, (2, 2))
    assert np.isnan(first.x[0, 1])
    assert (second.key, second.time, second.y) == ("here", 1000.0, None)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[1, 2]",
        b"{}",
        b'{"x": []}',
        b'{"x": 1}',
        b'{"x": "12"}',
        b'{"x": ["1"]}',
        b'{"x": [[1], [1, 2]]}',
        b'{"x": [1], "y": "cat"}',
        b'{"x": [1], "y": NaN}',
        b'{"x": [1], "time": Infinity}',
        b'{"x": [1], "key": ""}',
        b'{"x": [1], "extra": 1}',
        b'{"x": [' + b"1," * MAX_PAYLOAD + b"1]}",
        json.dumps({"x": [1], "key": "k" * 65}).encode(),
    ],
)
def test_malformed_message_is_counted_and_the_next_is_read(payload: bytes) -> None:
    samples, malformed = read([payload, b'{"x": [7]}'])
    assert malformed == 1
    assert [sample.x.tolist() for sample in samples] == [[7.0]]


@given(st.lists(st.binary(max_size=60), max_size=8))
def test_no_bytes_stop_the_source(payloads: list[bytes]) -> None:
    samples, malformed = read(payloads)
    assert len(samples) + malformed == len(payloads)


def test_label_may_come_without_values() -> None:
    (label,), malformed = read([b'{"key": "part-17", "y": 1}'])
    assert malformed == 0
    assert (label.key, label.y, label.x.size) == ("part-17", 1, 0)
