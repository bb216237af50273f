import asyncio
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Protocol

import numpy as np
import pytest

from edgechoir.errors import OperatorError
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sources.replay import Replay, read


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
            read(path, x, y)


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
