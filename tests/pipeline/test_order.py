"""Late samples, and clocks that jump."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import OperatorError, OutOfOrder
from edgechoir.pipeline.order import MAX_HELD, Reorder
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.window import TimeWindow


def at(time: float, key: str = "a") -> Sample:
    return Sample(key, time, as_values([time]))


def times(given_out: list[object]) -> list[float]:
    return [sample.time for sample in given_out if isinstance(sample, Sample)]


@given(st.lists(st.tuples(st.integers(0, 500), st.floats(0, 5)), max_size=60))
def test_nothing_within_the_wait_is_lost_and_all_comes_in_order(
    readings: list[tuple[int, float]],
) -> None:
    """Each sample is up to 5 s late; 5 s are waited."""
    arrivals = sorted(readings, key=lambda reading: reading[0] + reading[1])
    reorder, out = Reorder(5.0, jump=1000.0), list[float]()
    for time, _ in arrivals:
        out += times(list(reorder(at(time))))
    out += times(list(reorder.finish()))
    assert out == sorted(float(time) for time, _ in readings)


def test_later_than_the_wait_is_a_dead_letter() -> None:
    reorder = Reorder(2.0)
    assert reorder(at(10)) == []
    assert times(list(reorder(at(12)))) == [10]
    with pytest.raises(OutOfOrder, match="3 s late, waits 2"):
        reorder(at(9))
    assert times(list(reorder(at(11)))) == []
    assert times(list(reorder(at(14)))) == [11, 12]


@pytest.mark.parametrize("jump", [-1e9, -3600.0, 3600.0, 1e9])
def test_clock_that_is_set_gives_out_what_is_held_and_begins_anew(jump: float) -> None:
    reorder = Reorder(2.0)
    for time in (100, 102, 101):
        reorder(at(time))
    assert times(list(reorder(at(101 + jump)))) == [101, 102]
    assert times(list(reorder(at(104 + jump)))) == [101 + jump]
    assert reorder.jumps == 1


def test_one_wrong_year_and_its_correction_cost_no_sample() -> None:
    reorder, out = Reorder(1.0), list[float]()
    for time in (10, 11, 4e9, 12, 13):
        out += times(list(reorder(at(time))))
    out += times(list(reorder.finish()))
    assert out == [10, 11, 4e9, 12, 13]


def test_keys_have_clocks_of_their_own_and_equal_times_keep_their_order() -> None:
    reorder = Reorder(1.0)
    first, second = Sample("a", 5.0, as_values([1])), Sample("a", 5.0, as_values([2]))
    assert reorder(first) == reorder(second) == reorder(at(1e6, "b")) == []
    assert reorder(at(7)) == [first, second]


def test_number_held_is_bounded() -> None:
    reorder = Reorder(1e6)
    out = [sample for i in range(MAX_HELD + 5) for sample in reorder(at(i))]
    assert times(list(out)) == [0, 1, 2, 3, 4]


def test_wait_that_cannot_work_is_refused() -> None:
    for seconds, jump in ((0.0, None), (5.0, 1.0), (float("nan"), None)):
        with pytest.raises(OperatorError):
            Reorder(seconds, jump)


def test_ordered_samples_fill_a_window_that_refuses_late_ones() -> None:
    reorder, window, means = Reorder(2.0), TimeWindow(3.0, summary=["mean"]), list[float]()
    for time in (0, 1, 3, 2, 4, 6, 5, 7, 8):
        for sample in reorder(at(time)):
            assert isinstance(sample, Sample)
            out = window(sample)
            means += [] if out is None else out.x.tolist()
    assert means == [2, 3, 4, 5]


@pytest.mark.parametrize("jump", [1e9, 60.0])
def test_window_holds_nothing_of_before_a_gap_or_a_clock_set_forward(jump: float) -> None:
    window, counts = TimeWindow(3.0, summary=["count"]), list[float]()
    for time in (0, 1, 2, 3 + jump, 4 + jump, 5 + jump, 6 + jump):
        out = window(at(time))
        counts += [] if out is None else out.x.tolist()
    assert counts == [1, 2, 3, 3]
