from math import nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import OperatorError, OutOfOrder, WrongShape
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.window import MAX_ROWS, CountWindow, TimeWindow


def at(time: float, *x: float, key: str = "a", y: int | None = None) -> Sample:
    return Sample(key, time, as_values(list(x)), y)


@given(st.integers(1, 7), st.integers(1, 5), st.integers(0, 60))
def test_count_window_is_the_last_n_every_step(count: int, step: int, total: int) -> None:
    window = CountWindow(count, step)
    given_out = []
    for i in range(total):
        out = window(at(i, i, -i, y=i))
        if out is not None:
            given_out.append((out.time, out.y, out.x[:, 0].tolist()))
    ends = range(count - 1, total, step)
    assert given_out == [(e, e, list(range(e - count + 1, e + 1))) for e in ends]


def test_window_given_out_does_not_change_later() -> None:
    window = CountWindow(2)
    window(at(0, 0))
    first = window(at(1, 1))
    assert first is not None
    for i in range(2, 20):
        window(at(i, i))
    assert first.x.ravel().tolist() == [0, 1]


def test_each_key_has_a_window_of_its_own() -> None:
    window = CountWindow(2)
    assert window(at(0, 1, key="a")) is None
    assert window(at(0, 2, key="b")) is None
    out = window(at(1, 3, key="a"))
    assert out is not None
    assert (out.key, out.x.ravel().tolist()) == ("a", [1, 3])


def test_window_can_be_flat_or_summarised() -> None:
    flat, summed = CountWindow(2, flatten=True), CountWindow(2, summary=["mean", "max", "slope"])
    for window in (flat, summed):
        window(at(0, 1, 10))
    out, short = flat(at(1, 3, 30)), summed(at(1, 3, 30))
    assert out is not None
    assert out.x.tolist() == [1, 10, 3, 30]
    assert short is not None
    assert short.x.tolist() == [2, 20, 3, 30, 2, 20]


def test_odd_sample_costs_one_window_not_the_stream() -> None:
    window = CountWindow(2)
    window(at(0, 1, 2, 3))
    with pytest.raises(WrongShape):
        window(at(1, 1))
    window(at(2, 1))
    assert window(at(3, 2)) is not None


def test_time_window_summarises_the_last_seconds() -> None:
    window = TimeWindow(3.0, summary=["mean"])
    given_out = [(s.time, s.x.tolist()) for t in range(6) if (s := window(at(t, t)))]
    assert given_out == [(3, [2.0]), (4, [3.0]), (5, [4.0])]


def test_time_window_waits_between_two() -> None:
    window = TimeWindow(2.0, 2.0, summary=["last"])
    assert [s.time for t in range(8) if (s := window(at(t, t)))] == [2, 4, 6]


def test_late_sample_is_refused_and_a_clock_set_back_starts_anew() -> None:
    window = TimeWindow(10.0, summary=["mean"])
    window(at(100, 1))
    with pytest.raises(OutOfOrder):
        window(at(95, 1))
    assert window(at(50, 2)) is None
    out = window(at(60, 4))
    assert out is not None
    assert out.x.tolist() == [4.0]


def test_time_window_keeps_a_bounded_number_of_rows() -> None:
    window = TimeWindow(1e9, summary=["min"])
    for i in range(MAX_ROWS + 10):
        window(at(i, i))
    out = window(at(1e9, 1e9))
    assert out is not None
    assert out.x.tolist() == [11.0]


def test_time_window_restarts_on_another_shape() -> None:
    window = TimeWindow(1.0, summary=["mean"])
    window(at(0, 1))
    with pytest.raises(WrongShape):
        window(at(0.5, 1, 2))
    window(at(1, 1, 2))
    out = window(at(2, 3, 4))
    assert out is not None
    assert out.x.tolist() == [3, 4]


def test_windows_that_cannot_work_are_refused() -> None:
    for make in (
        lambda: CountWindow(0),
        lambda: CountWindow(3, 0),
        lambda: CountWindow(3, summary=["median"]),
        lambda: TimeWindow(0.0, summary=["mean"]),
        lambda: TimeWindow(nan, summary=["mean"]),
        lambda: TimeWindow(1.0, summary=[]),
    ):
        with pytest.raises(OperatorError):
            make()


@given(st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=20))
def test_slope_is_that_of_the_least_squares_line(values: list[float]) -> None:
    window = CountWindow(len(values), summary=["slope"])
    for i, value in enumerate(values):
        out = window(at(i, value))
    assert out is not None
    assert out.x[0] == pytest.approx(np.polyfit(range(len(values)), values, 1)[0], abs=1e-3)


@given(
    st.integers(1, 7),
    st.integers(1, 5),
    st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=8),
)
def test_windows_of_blocks_are_those_of_their_samples(
    count: int, step: int, runs: list[tuple[bool, int]]
) -> None:
    mixed, single, begun = CountWindow(count, step), CountWindow(count, step), 0
    for as_block, n in runs:
        time = np.arange(begun, begun + n, dtype=np.float64)
        block = Block("a", time, as_values(time[:, None]), np.arange(begun, begun + n))
        begun += n
        one_by_one = [out for s in block.samples() if (out := single(s)) is not None]
        if as_block:
            got = [out for out in mixed.block(block) if isinstance(out, Sample)]
        else:
            got = [out for s in block.samples() if (out := mixed(s)) is not None]
        assert [(s.time, s.y, s.x.tolist()) for s in got] == [
            (s.time, s.y, s.x.tolist()) for s in one_by_one
        ]
