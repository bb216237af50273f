import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import OperatorError, WrongShape
from edgechoir.pipeline.keyed import Keyed
from edgechoir.pipeline.operators import (
    Deadband,
    Deadtime,
    filtered,
    mapped,
    scaled,
    selected,
    within,
)
from edgechoir.pipeline.sample import Sample, as_values


def at(time: float, *x: float, key: str = "a") -> Sample:
    return Sample(key, time, as_values(list(x)), 1)


def test_map_changes_the_values_alone() -> None:
    out = mapped(lambda x: [x.sum()])(at(5, 1, 2))
    assert out is not None
    assert (out.key, out.time, out.y, out.x.tolist()) == ("a", 5, 1, [3.0])


def test_filter_holds_back() -> None:
    keep = filtered(lambda sample: sample.x[0] > 1)
    assert keep(at(0, 1)) is None
    assert keep(at(0, 2)) is not None


def test_select_takes_the_values_in_the_given_order() -> None:
    out = selected([2, 0])(at(0, 1, 2, 3))
    assert out is not None
    assert out.x.tolist() == [3, 1]
    with pytest.raises(WrongShape):
        selected([3])(at(0, 1, 2, 3))


def test_scale_takes_one_number_or_one_for_each_value() -> None:
    out = scaled([1, 2], 10.0)(at(0, 3, 3))
    assert out is not None
    assert out.x.tolist() == [20, 10]
    with pytest.raises(WrongShape):
        scaled([1, 2], 1.0)(at(0, 3))
    with pytest.raises(OperatorError):
        scaled([1, 2], [1, 2, 3])


def test_range_holds_back_what_lies_outside() -> None:
    keep = within(0.0, [1.0, 2.0])
    assert keep(at(0, 1, 2)) is not None
    assert keep(at(0, 1.5, 2)) is None
    assert keep(at(0, -1, 2)) is None
    with pytest.raises(WrongShape):
        keep(at(0, 1))


@given(st.lists(st.floats(-10, 10, width=32), min_size=1, max_size=40), st.floats(0, 5, width=32))
def test_every_sample_is_within_the_deadband_of_the_last_one_given(
    values: list[float], width: float
) -> None:
    deadband, last = Deadband(width), None
    for time, value in enumerate(values):
        out = deadband(at(time, value))
        if out is None:
            assert last is not None
            assert abs(np.float32(value) - np.float32(last)) <= np.float32(width)
        else:
            last = value


def test_deadband_breaks_a_long_silence() -> None:
    deadband = Deadband(1.0, silence=10.0)
    assert [t for t in range(0, 30, 3) if deadband(at(t, 5.0))] == [0, 12, 24]


def test_deadband_is_kept_by_key_and_takes_widths_by_value() -> None:
    deadband = Deadband([1.0, 100.0])
    assert deadband(at(0, 0, 0, key="a"))
    assert deadband(at(0, 0, 0, key="b"))
    assert deadband(at(1, 0, 50, key="a")) is None
    assert deadband(at(2, 2, 0, key="a"))


def test_deadtime_waits_by_key_and_does_not_freeze_when_the_clock_is_set_back() -> None:
    deadtime = Deadtime(10.0)
    assert [t for t in (0, 5, 9, 10, 15, 20) if deadtime(at(t, 1))] == [0, 10, 20]
    assert deadtime(at(0, 1, key="b"))
    assert deadtime(at(3, 1))


@pytest.mark.parametrize("width", [-1.0, [1.0, -1.0], float("nan")])
def test_deadband_without_a_width_is_refused(width: float | list[float]) -> None:
    with pytest.raises(OperatorError):
        Deadband(width)


def test_state_is_kept_for_a_bounded_number_of_keys() -> None:
    keyed: Keyed[list[int]] = Keyed(list, limit=2)
    keyed["a"].append(1)
    keyed["b"].append(2)
    keyed["a"].append(3)
    keyed["c"].append(4)
    assert len(keyed) == 2
    assert keyed["a"] == [1, 3]
    assert keyed["b"] == []
