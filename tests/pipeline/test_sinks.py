import asyncio
import json
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from edgechoir.errors import LinkError, OperatorError
from edgechoir.inference.prediction import Prediction
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.pipeline.sinks.document import line
from edgechoir.pipeline.sinks.http import HttpSink
from edgechoir.pipeline.sinks.jsonl import JsonlSink
from edgechoir.pipeline.sinks.mqtt import MqttSink
from edgechoir.pipeline.sinks.sqlite import SqliteSink


def answer(i: int) -> Sample:
    prediction = Prediction(as_values([0.25, 0.75]), 1, 0.75, 3, 0.001)
    return Sample("a", float(i), as_values([1, 2]), 1, prediction)


def test_callback_gets_one_answer_after_the_other() -> None:
    got: list[float] = []

    async def callback(one: Sample) -> None:
        got.append(one.time)

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


def test_blocking_callback_runs_in_a_thread() -> None:
    threads: list[str] = []

    def callback(one: Sample) -> None:
        threads.append(threading.current_thread().name)

    asyncio.run(CallbackSink("cb", callback).write([answer(0)]))
    assert threads != [threading.main_thread().name]


def test_line_of_a_sample_without_an_answer_has_its_values() -> None:
    said = json.loads(line(Sample("a", 1.0, as_values([[1, None], [2, float("inf")]]))))
    assert said == {"time": 1.0, "key": "a", "x": [1.0, None, 2.0, None], "y": None}


def test_table_keeps_the_newest_rows(tmp_path: Path) -> None:
    path = tmp_path / "answers.db"

    async def run() -> None:
        sink = SqliteSink(path, rows=3)
        await sink.write([answer(i) for i in range(4)])
        await sink.write([answer(4), Sample("b", 5.0, as_values([7]))])
        await sink.close()

    asyncio.run(run())
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute('SELECT time, key, label, "values", y FROM answers').fetchall()
    assert rows == [
        (3.0, "a", 1, "[0.25,0.75]", 1.0),
        (4.0, "a", 1, "[0.25,0.75]", 1.0),
        (5.0, "b", None, "[7.0]", None),
    ]


def test_batch_is_posted_in_lines_and_a_refusal_is_an_error() -> None:
    bodies: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        bodies.append(head + await reader.readexactly(length))
        status = b"200 OK" if len(bodies) == 1 else b"403 Forbidden"
        writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def run() -> None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            sink = HttpSink(f"http://127.0.0.1:{port}/answers", token="t" * 16)
            await sink.write([answer(0), answer(1)])
            with pytest.raises(OSError, match="403"):
                await sink.write([answer(2)])

    asyncio.run(run())
    head, body = bodies[0].split(b"\r\n\r\n")
    assert head.startswith(b"POST /answers HTTP/1.1")
    assert b"Bearer " + b"t" * 16 in head
    assert body == line(answer(0)) + line(answer(1))


def test_batch_is_published_whole_and_a_failure_is_an_error() -> None:
    published: list[bytes] = []
    closed = asyncio.Event()

    async def publish(payload: bytes) -> None:
        if len(published) == 3:
            raise LinkError("no broker")
        published.append(payload)

    async def close() -> None:
        closed.set()

    async def run() -> None:
        sink = MqttSink(publish, close)
        await sink.write([answer(0), answer(1)])
        await sink.write([answer(2)])
        with pytest.raises(LinkError):
            await sink.write([answer(3)])
        await sink.close()

    asyncio.run(run())
    assert [json.loads(payload)["time"] for payload in published] == [0, 1, 2]
    assert closed.is_set()


@pytest.mark.parametrize(
    "make",
    [
        lambda path: SqliteSink(path / "none" / "a.db"),
        lambda path: SqliteSink(path / "a.db", rows=0),
        lambda path: HttpSink("file:///etc/passwd"),
    ],
)
def test_sink_that_could_never_write_is_refused(
    make: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(OperatorError):
        make(tmp_path)
