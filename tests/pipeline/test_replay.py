import asyncio
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from edgechoir.errors import OperatorError
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sources.recording import Columns, read_recording
from edgechoir.pipeline.sources.replay import Replay


class Hands(Protocol):
    time: float
    slept: list[float]

    def clock(self) -> Clock: ...


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    path = tmp_path / "rows.npz"
    np.savez(path, x=np.arange(10, dtype=np.float64).reshape(5, 2), y=np.array([0, 1, 2, 0, 1]))
    return path


def take(source: Replay, n: int, each: Callable[[int], None] = lambda _: None) -> list[Sample]:
    async def run() -> list[Sample]:
        taken: list[Sample] = []
        async with source:
            async for sample in source:
                assert isinstance(sample, Sample)
                taken.append(sample)
                each(len(taken))
                if len(taken) == n:
                    break
        return taken

    return asyncio.run(run())


def test_npz_is_replayed_once_in_order_with_labels(npz: Path) -> None:
    samples = take(Replay(npz, None, y="y"), 99)
    assert [sample.x.tolist() for sample in samples] == [[2 * i, 2 * i + 1] for i in range(5)]
    assert [sample.y for sample in samples] == [0, 1, 2, 0, 1]
    assert samples[0].x.dtype == np.float32
    assert isinstance(samples[0].y, int)


def test_loop_goes_on_and_a_seed_shuffles_each_pass_anew(npz: Path) -> None:
    firsts = [s.x[0] for s in take(Replay(npz, None, loop=True, seed=3), 15)]
    passes = [firsts[i : i + 5] for i in (0, 5, 10)]
    assert all(sorted(one) == [0, 2, 4, 6, 8] for one in passes)
    assert passes[0] != passes[1]
    assert firsts == [s.x[0] for s in take(Replay(npz, None, loop=True, seed=3), 15)]


def test_csv_columns_are_taken_by_name_and_an_empty_field_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("b,label,a\n1,0,2\n,1.5,3\n")
    samples = take(Replay(path, None, x=["a", "b"], y="label"), 99)
    assert samples[0].x.tolist() == [2, 1]
    assert samples[1].x[0] == 3
    assert np.isnan(samples[1].x[1])
    assert [sample.y for sample in samples] == [0, 1.5]


def test_ticks_lie_on_a_grid_that_does_not_drift(npz: Path, hands: Hands) -> None:
    """The consumer takes 30 ms of each 100 ms; the samples still come every 100 ms."""
    times: list[float] = []

    def work(_: int) -> None:
        times.append(hands.time)
        hands.time += 0.03

    source = Replay(npz, 10.0, loop=True, clock=hands.clock())
    samples = take(source, 1000, work)
    np.testing.assert_allclose(np.array(times), 1000 + 0.1 * np.arange(1000), atol=1e-9)
    assert [sample.time for sample in samples] == times
    assert source.counts == {}


def test_short_stall_is_caught_up_and_counted(npz: Path, hands: Hands) -> None:
    def stall(n: int) -> None:
        hands.time += 0.055 if n == 3 else 0.0

    source = Replay(npz, 100.0, loop=True, clock=hands.clock())
    take(source, 20, stall)
    assert hands.time == pytest.approx(1000.19)
    assert source.counts == {"late": 4}


def test_long_stall_moves_the_grid_on_without_a_flood(npz: Path, hands: Hands) -> None:
    def stall(n: int) -> None:
        hands.time += 10.005 if n == 3 else 0.0

    source = Replay(npz, 100.0, loop=True, clock=hands.clock())
    samples = take(source, 8, stall)
    assert [sample.x[0] for sample in samples] == [0, 2, 4, 6, 8, 0, 2, 4]
    assert source.counts["late"] == pytest.approx(1000, abs=2)
    assert len([pause for pause in hands.slept if pause > 0.009]) >= 5


def test_recordings_that_cannot_be_replayed_are_refused(npz: Path, tmp_path: Path) -> None:
    names = count()

    def file(text: bytes, suffix: str) -> Path:
        path = tmp_path / f"bad{next(names)}{suffix}"
        path.write_bytes(text)
        return path

    pickled = tmp_path / "pickled.npz"
    np.savez(pickled, x=np.array([{"a": 1}], dtype=object))
    uneven = tmp_path / "uneven.npz"
    np.savez(uneven, x=np.zeros((3, 2)), y=np.zeros(2))
    words = tmp_path / "words.npz"
    np.savez(words, x=np.zeros((1, 2)), y=np.array(["a"]))
    for path, x, y, says in (
        (tmp_path / "none.npz", "x", None, "cannot be replayed"),
        (npz, "z", None, "no array 'z', only"),
        (npz, ["a", "b"], None, "one array"),
        (pickled, "x", None, "cannot be replayed"),
        (uneven, "x", "y", "with n labels"),
        (words, "x", "y", "expected numbers"),
        (file(b"not a zip", ".npz"), "x", None, "cannot be replayed"),
        (file(b"a,b\n1,2\n", ".csv"), ["c"], None, "no column 'c'"),
        (file(b"a,b\n1,2\n1,x\n", ".csv"), ["a", "b"], None, "line 3"),
        (file(b"a,b\n1\n", ".csv"), ["a"], "b", "line 2"),
        (file(b"a,b\n", ".csv"), ["a"], None, "no samples"),
        (file(b"", ".csv"), ["a"], None, "no column"),
        (file(b"\xff\xfe", ".csv"), ["a"], None, "cannot be replayed"),
    ):
        with pytest.raises(OperatorError, match=says):
            read_recording(path, Columns(x, y))


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan")])
def test_rate_must_be_above_zero(npz: Path, rate: float) -> None:
    with pytest.raises(OperatorError, match="above 0"):
        Replay(npz, rate)


def test_replay_that_is_not_open_says_so(npz: Path) -> None:
    async def run() -> None:
        async for _ in Replay(npz, None):
            pass

    with pytest.raises(OperatorError, match="async with"):
        asyncio.run(run())


TIMES = "time,a,machine\n1970-01-01T00:01:40,1,m1\n101,2,m2\n1970-01-01T00:01:45+00:00,3,m1\n"


def test_recording_is_replayed_at_its_own_pace_times_as_fast(tmp_path: Path, hands: Hands) -> None:
    path = tmp_path / "timed.csv"
    path.write_text(TIMES)
    given_at: list[float] = []
    source = Replay(
        path, x="a", time="time", keys="machine", speed=2.0, loop=True, clock=hands.clock()
    )
    samples = take(source, 5, lambda _: given_at.append(hands.time))
    assert [(s.key, s.x.tolist()) for s in samples[:3]] == [("m1", [1]), ("m2", [2]), ("m1", [3])]
    # In the second pass the recording goes on as if it had never ended.
    assert [s.time for s in samples] == [100, 101, 105, 107.5, 108.5]
    assert [time - 1000 for time in given_at] == [0, 0.5, 2.5, 3.75, 4.25]


def test_times_that_go_back_come_at_once(tmp_path: Path, hands: Hands) -> None:
    path = tmp_path / "back.csv"
    path.write_text("time,a\n100,1\n50,2\n51,3\n")
    source = Replay(path, x="a", time="time", speed=1.0, clock=hands.clock())
    assert [s.time for s in take(source, 9)] == [100, 50, 51]
    assert hands.time == 1001


def test_blocks_hold_every_sample_once_with_its_label(npz: Path, hands: Hands) -> None:
    async def run() -> list[Block]:
        async with Replay(npz, 10.0, y="y", block=2, clock=hands.clock()) as source:
            return [item async for item in source if isinstance(item, Block)]

    blocks = asyncio.run(run())
    assert [len(block) for block in blocks] == [2, 2, 1]
    assert np.concatenate([block.x[:, 0] for block in blocks]).tolist() == [0, 2, 4, 6, 8]
    assert [s.y for block in blocks for s in block.samples()] == [0, 1, 2, 0, 1]
    assert np.diff(np.concatenate([b.time for b in blocks[:2]])) == pytest.approx([0.1] * 3)
    assert hands.time == pytest.approx(1000.4)


def test_parquet_is_replayed_or_the_extra_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        path.write_bytes(b"PAR1")
        with pytest.raises(OperatorError, match=r"edgechoir\[parquet\]"):
            read_recording(path, Columns("a"))
        return
    columns = {"a": [1.0, None], "b": [3, 4], "w": [[1.0, 2.0], [3.0, 4.0]], "t": ["5", "6"]}
    parquet.write_table(pyarrow.table(columns), path)
    recording = read_recording(path, Columns(["a", "b"], "b", "t"))
    assert recording.x[0].tolist() == [1, 3]
    assert np.isnan(recording.x[1, 0])
    assert (recording.y, recording.time is not None) == ([3, 4], True)
    assert read_recording(path, Columns("w")).x.tolist() == [[1, 2], [3, 4]]
    with pytest.raises(OperatorError, match="no column 'c'"):
        read_recording(path, Columns("c"))


@pytest.mark.parametrize(
    "make",
    [
        lambda path: Replay(path, speed=1.0),
        lambda path: Replay(path, 1.0, time="y", speed=1.0),
        lambda path: Replay(path, speed=0.0, time="y"),
        lambda path: Replay(path, 1.0, block=0),
        lambda path: Replay(path, speed=1.0, time="y", block=2),
        lambda path: Replay(path, 1.0, time="y", seed=1),
    ],
)
def test_paces_that_do_not_agree_are_refused(make: Callable[[Path], object], npz: Path) -> None:
    with pytest.raises(OperatorError):
        make(npz)


def test_recording_without_a_time_in_a_row_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gap.csv"
    path.write_text("time,a\n100,1\nnan,2\n")
    with pytest.raises(OperatorError, match="missing"):
        read_recording(path, Columns("a", time="time"))
