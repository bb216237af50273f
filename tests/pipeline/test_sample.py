import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadSample, MissingValue, OperatorError, OutOfRange, WrongShape
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.check import Check
from edgechoir.pipeline.sample import Bound, Bounds, Label, Sample, as_values


def sample(*x: float | None, time: float = 0.0, y: Label | None = None) -> Sample:
    return Sample("s", time, as_values(list(x)), y)


def test_good_sample_goes_through_as_it_is() -> None:
    good = sample(1.0, 2.0, y=1)
    assert Check((2,), 0.0, [1.0, 2.0])(good) is good


def test_missing_value_is_refused_or_filled() -> None:
    with pytest.raises(MissingValue, match="1 of 2 values"):
        Check((2,))(sample(1.0, None))
    filled = Check((2,), missing="fill", fill=7.0)(sample(1.0, None))
    assert filled.x.tolist() == [1.0, 7.0]


def test_value_too_large_for_float32_is_missing() -> None:
    with pytest.raises(MissingValue):
        Check((2,))(sample(1.0, 1e300))


def test_filled_value_must_lie_in_range_too() -> None:
    with pytest.raises(OutOfRange):
        Check((1,), minimum=1.0, missing="fill", fill=0.0)(sample(None))


@pytest.mark.parametrize(
    ("minimum", "maximum"), [(1.5, None), (None, 1.5), ([1.0, 2.5], None), (None, [1.0, 1.9])]
)
def test_value_out_of_range_is_refused(minimum: Bound | None, maximum: Bound | None) -> None:
    with pytest.raises(OutOfRange):
        Check((2,), minimum, maximum)(sample(1.0, 2.0))


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(WrongShape):
        Check((3,))(sample(1.0, 2.0))


@pytest.mark.parametrize(("time", "y"), [(float("nan"), None), (0.0, float("inf"))])
def test_time_and_label_must_be_finite(time: float, y: Label | None) -> None:
    with pytest.raises(MissingValue):
        Check((1,))(sample(1.0, time=time, y=y))


@pytest.mark.parametrize(
    ("minimum", "maximum"), [([0.0, 1.0, 2.0], None), (2.0, 1.0), ([1.0, 5.0], [2.0, 4.0])]
)
def test_bounds_that_cannot_work_are_refused(minimum: Bound, maximum: Bound | None) -> None:
    with pytest.raises(OperatorError):
        Check((2,), minimum, maximum)


finite = st.floats(-100, 100, width=32)


@given(st.lists(finite, min_size=1, max_size=6), finite, finite)
def test_bounds_hold_just_when_every_value_lies_within(x: list[float], a: float, b: float) -> None:
    low, high = min(a, b), max(a, b)
    assert Bounds(low, high).hold(as_values(x)) == all(low <= value <= high for value in x)


def test_ragged_values_are_no_values() -> None:
    with pytest.raises(ValueError, match="inhomogeneous"):
        as_values([[1.0], [2.0, 3.0]])
    assert np.isnan(as_values([None])).all()


def test_last_good_value_of_the_key_stands_in_for_a_missing_one() -> None:
    check = Check((2,), missing="last")
    with pytest.raises(MissingValue):
        check(sample(1.0, None))
    check(sample(1.0, 2.0))
    assert check(sample(None, 3.0)).x.tolist() == [1.0, 3.0]
    assert check(sample(None, None)).x.tolist() == [1.0, 3.0]
    with pytest.raises(MissingValue):
        check(Sample("other", 0.0, as_values([1, None])))


def test_value_outside_is_clipped_or_taken_as_missing() -> None:
    clipped = Check((2,), 0.0, 10.0, outside="clip")(sample(-5.0, 99.0))
    assert clipped.x.tolist() == [0.0, 10.0]
    filled = Check((2,), 0.0, 10.0, missing="fill", fill=5.0, outside="missing")
    assert filled(sample(-5.0, 9.0)).x.tolist() == [5.0, 9.0]
    with pytest.raises(MissingValue):
        Check((2,), 0.0, 10.0, outside="missing")(sample(-5.0, 9.0))


def test_block_of_good_samples_goes_through_whole_and_another_must_be_taken_apart() -> None:
    check = Check((1,), 0.0, 10.0)
    good = Block("s", np.arange(3.0), as_values([[1], [2], [3]]), None)
    assert check.block(good) is good
    for x in ([[1], [99]], [[1], [None]], [[1, 1], [2, 2]]):
        with pytest.raises(BadSample):
            check.block(Block("s", np.arange(2.0), as_values(x), None))


def test_a_gap_that_is_kept_reaches_the_model_as_nan_and_bounds_hold_for_the_rest() -> None:
    check = Check((3,), 0.0, 10.0, missing="keep")
    kept = check(sample(1, np.inf, np.nan)).x
    assert np.array_equal(kept, np.array([1, np.nan, np.nan], np.float32), equal_nan=True)
    with pytest.raises(OutOfRange):
        check(sample(11, np.nan, 1))
    with pytest.raises(MissingValue):
        check(sample(np.nan, np.nan, np.nan))
    moved = Check((3,), 0.0, 10.0, missing="keep", outside="clip")(sample(11, np.nan, 1)).x
    assert np.array_equal(moved, np.array([10, np.nan, 1], np.float32), equal_nan=True)
    gone = Check((3,), 0.0, 10.0, missing="keep", outside="missing")(sample(11, 2, 1)).x
    assert np.array_equal(gone, np.array([np.nan, 2, 1], np.float32), equal_nan=True)
