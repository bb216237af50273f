import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadSample, MissingValue, OperatorError, WrongShape
from edgechoir.inference.prediction import Prediction
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.keyed import Keyed
from edgechoir.pipeline.operators import (
    Deadband,
    Deadtime,
    Filter,
    FlatMap,
    JoinLatest,
    Map,
    Range,
    Scale,
    Select,
    Split,
    Valve,
    answer_values,
)
from edgechoir.pipeline.sample import Sample, as_values


def at(time: float, *x: float, key: str = "a") -> Sample:
    return Sample(key, time, as_values(list(x)), 1)


def test_map_changes_the_values_alone() -> None:
    out = Map(lambda x: [x.sum()])(at(5, 1, 2))
    assert out is not None
    assert (out.key, out.time, out.y, out.x.tolist()) == ("a", 5, 1, [3.0])


def test_filter_holds_back() -> None:
    keep = Filter(lambda sample: sample.x[0] > 1)
    assert keep(at(0, 1)) is None
    assert keep(at(0, 2)) is not None


def test_select_takes_the_values_in_the_given_order() -> None:
    out = Select([2, 0])(at(0, 1, 2, 3))
    assert out is not None
    assert out.x.tolist() == [3, 1]
    with pytest.raises(WrongShape):
        Select([3])(at(0, 1, 2, 3))


def test_scale_takes_one_number_or_one_for_each_value() -> None:
    out = Scale([1, 2], 10.0)(at(0, 3, 3))
    assert out is not None
    assert out.x.tolist() == [20, 10]
    with pytest.raises(WrongShape):
        Scale([1, 2], 1.0)(at(0, 3))
    with pytest.raises(OperatorError):
        Scale([1, 2], [1, 2, 3])


def test_range_holds_back_what_lies_outside() -> None:
    keep = Range(0.0, [1.0, 2.0])
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


def test_range_in_blocks_is_range_one_by_one() -> None:
    block = Block("a", np.arange(4.0), as_values([[0, 1], [5, 1], [1, 1], [1, np.nan]]), None)
    for keep in (Range(0.0, 2.0), Range(None, [2.0, 2.0])):
        kept = keep.block(block)
        assert kept is not None
        assert kept.time.tolist() == [s.time for s in block.samples() if keep(s) is not None]
    assert Range(9.0, None).block(block) is None


@given(st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=30))
def test_block_gives_what_its_samples_give_one_by_one(values: list[float]) -> None:
    block = Block("a", np.arange(float(len(values))), as_values([[v, 1.0] for v in values]), None)
    for operator in (
        Scale(1.0, [2.0, 3.0]),
        Select([1, 0]),
        Map(lambda x: x * 2),
        Map(lambda rows: rows.sum(axis=1, keepdims=True), rows=True),
    ):
        given_out = operator.block(block)
        assert isinstance(given_out, Block)
        one_by_one = [operator(sample) for sample in block.samples()]
        np.testing.assert_allclose(given_out.x, np.stack([s.x for s in one_by_one]), rtol=1e-6)


def test_flat_map_gives_none_one_or_many_within_a_bound() -> None:
    each = FlatMap(lambda sample: [[value] for value in sample.x if value > 0], most=2)
    given_out = each(at(5, 1, -1, 2))
    assert isinstance(given_out, list)
    assert [(s.time, s.x.tolist()) for s in given_out if isinstance(s, Sample)] == [
        (5, [1]),
        (5, [2]),
    ]
    assert each(at(5, -1)) == []
    with pytest.raises(BadSample, match="more than 2"):
        each(at(5, 1, 1, 1))


def test_split_names_an_output_and_refuses_a_name_that_is_none() -> None:
    split = Split(
        lambda s: "hot" if s.x[0] > 1 else "cold" if s.x[0] == 0 else None, ["hot", "cold"]
    )
    assert split(at(0, 2)).output == "hot"
    assert split(at(0, 0)).output == "cold"
    with pytest.raises(BadSample, match="use one of hot, cold"):
        split(at(0, 1))
    with pytest.raises(OperatorError):
        Split(str, ["one"])


def test_valve_follows_its_control_and_a_missing_value_leaves_it_as_it_is() -> None:
    valve = Valve()
    assert valve(at(0, 1))
    valve.note(at(0, 0.0))
    assert valve(at(0, 1)) is None
    with pytest.raises(MissingValue):
        valve.note(at(0, np.nan))
    assert not valve.is_open
    valve.note(at(0, 1.0))
    assert valve(at(0, 1))


def test_join_waits_for_the_other_input_and_forgets_what_is_too_old() -> None:
    join = JoinLatest(max_age=10.0)
    assert join(at(0, 1)) is None
    join.note(at(0, 7, 8, key="weather"))
    out = join(at(5, 1))
    assert out is not None
    assert out.x.tolist() == [1, 7, 8]
    assert join(at(11, 1)) is None


def test_join_by_key_meets_its_own_kind_alone() -> None:
    join = JoinLatest(by_key=True)
    join.note(at(0, 7, key="a"))
    assert join(at(1, 1, key="b")) is None
    assert join(at(1, 1, key="a")) is not None


def test_answer_takes_the_place_of_the_values() -> None:
    answer = Prediction(as_values([0.5, 0.5]), 0, 0.5, 1, 0.0)
    out = answer_values(Sample("a", 0.0, as_values([1]), None, answer))
    assert out.x.tolist() == [0.5, 0.5]
    assert out.answer is answer
    with pytest.raises(MissingValue):
        answer_values(at(0, 1))
