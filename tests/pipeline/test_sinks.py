import asyncio
import json
from pathlib import Path

import pytest

from edgechoir.errors import OperatorError
from edgechoir.inference.prediction import Prediction
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.sink import Answer
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.pipeline.sinks.jsonl import JsonlSink, line


def answer(i: int) -> Answer:
    prediction = Prediction(as_values([0.25, 0.75]), 1, 0.75, 3, 0.001)
    return Answer(Sample("a", float(i), as_values([1, 2]), 1), prediction)


def test_callback_gets_one_answer_after_the_other() -> None:
    got: list[float] = []

    async def callback(one: Answer) -> None:
        got.append(one.sample.time)

    asyncio.run(CallbackSink("cb", callback).write([answer(0), answer(1)]))
    assert got == [0.0, 1.0]


def test_line_is_json_without_the_input() -> None:
    assert json.loads(line(answer(5))) == {
        "time": 5.0,
        "key": "a",
        "label": 1,
        "confidence": 0.75,
        "values": [0.25, 0.75],
        "version": 3,
        "seconds": 0.001,
        "y": 1,
    }


def test_file_is_rotated_and_the_disk_never_fills(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    size = len(line(answer(10)))
    sink = JsonlSink(path, max_bytes=3 * size, keep=2)
    for start in range(10, 50, 5):
        asyncio.run(sink.write([answer(i) for i in range(start, start + 5)]))
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["answers.jsonl", "answers.jsonl.1", "answers.jsonl.2"]
    assert all(file.stat().st_size <= 3 * size for file in files)
    kept = [
        json.loads(text)["time"] for file in reversed(files) for text in file.read_text().split()
    ]
    assert kept == [float(i) for i in range(50 - len(kept), 50)]
    assert len(kept) > 6


def test_old_file_is_continued_and_keep_zero_starts_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    size = len(line(answer(10)))
    for i in (10, 11):
        asyncio.run(JsonlSink(path, max_bytes=2 * size, keep=0).write([answer(i)]))
    assert len(path.read_text().splitlines()) == 2
    asyncio.run(JsonlSink(path, max_bytes=2 * size, keep=0).write([answer(12)]))
    assert [json.loads(text)["time"] for text in path.read_text().splitlines()] == [12.0]
    assert list(tmp_path.iterdir()) == [path]


def test_sink_that_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="create it first"):
        JsonlSink(tmp_path / "none" / "a.jsonl")
    with pytest.raises(OperatorError, match="max_bytes"):
        JsonlSink(tmp_path / "a.jsonl", max_bytes=0)
