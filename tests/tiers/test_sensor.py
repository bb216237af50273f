"""From the sensor's section of a configuration to samples."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir.config.sensor import PythonSensor, ReplaySensor
from edgechoir.errors import OperatorError
from edgechoir.pipeline.sample import Sample
from edgechoir.tiers.sensor import make_source

if TYPE_CHECKING:
    from edgechoir.pipeline.source import Source


async def first(source: Source, count: int) -> list[Sample]:
    found: list[Sample] = []
    async with asyncio.timeout(20), source:
        async for sample in source:
            assert isinstance(sample, Sample)
            found.append(sample)
            if len(found) == count:
                break
    return found


def test_a_replay_gives_the_file_in_order_and_begins_again(tmp_path: Path) -> None:
    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    np.savez(tmp_path / "samples.npz", x=x, y=np.array([4, 5, 6]))
    sensor = ReplaySensor(path=tmp_path / "samples.npz", rate_hz=1000.0)
    found = asyncio.run(first(make_source(sensor), 4))
    assert [sample.y for sample in found] == [4, 5, 6, 4]
    np.testing.assert_array_equal(found[2].x, [4, 5])


def test_a_replay_can_be_shuffled(tmp_path: Path) -> None:
    np.savez(tmp_path / "samples.npz", x=np.zeros((50, 1)), y=np.arange(50))
    sensor = ReplaySensor(path=tmp_path / "samples.npz", rate_hz=10_000.0, shuffle=True)
    labels = [sample.y for sample in asyncio.run(first(make_source(sensor), 50))]
    assert labels != list(range(50))
    assert sorted(label for label in labels if label is not None) == list(range(50))


@pytest.mark.parametrize("name", ["at_its_own_pace", "in_the_loop", "one_a_call"])
def test_a_function_of_the_users_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "thermometer_of_a_test.py").write_text(
        "readings = iter([[1.0, 1.0], [2.0, 2.0]])\n\n"
        "def at_its_own_pace():\n"
        "    yield from readings\n\n"
        "async def in_the_loop():\n"
        "    for reading in readings:\n"
        "        yield reading\n\n"
        "def one_a_call():\n"
        "    return next(readings)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "thermometer_of_a_test", raising=False)
    source = make_source(PythonSensor(call=f"thermometer_of_a_test:{name}", rate_hz=1000.0))
    assert [sample.x.tolist() for sample in asyncio.run(first(source, 2))] == [[1, 1], [2, 2]]


def test_a_function_that_is_not_there_is_an_operator_error() -> None:
    with pytest.raises(OperatorError, match="no_such_module_of_a_test"):
        make_source(PythonSensor(call="no_such_module_of_a_test:read"))
