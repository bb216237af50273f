"""Labels that come after their samples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import OperatorError
from edgechoir.pipeline.labels import LateLabels
from edgechoir.pipeline.sample import Sample, as_values


def reading(key: str, time: float) -> Sample:
    return Sample(key, time, as_values([time]))


def label(key: str, y: int, time: float = 0.0) -> Sample:
    return Sample(key, time, as_values([]), y)


def test_label_is_for_every_sample_of_its_key_that_waits() -> None:
    late = LateLabels()
    for key, time in (("p1", 1), ("p2", 2), ("p1", 3)):
        late.hold(reading(key, time), 0.0)
    assert [(s.time, s.y) for s in late.label(label("p1", 4), 1.0)] == [(1, 4), (3, 4)]
    assert late.label(label("p1", 5), 2.0) == []
    assert (len(late), late.labelled, late.unmatched) == (1, 2, 1)


def test_label_with_a_tolerance_is_for_the_readings_at_its_time() -> None:
    late = LateLabels(tolerance=1.0)
    for time in range(6):
        late.hold(reading("boiler", time), float(time))
    assert [s.time for s in late.label(label("boiler", 1, 2.5), 9.0)] == [2, 3]
    assert [s.time for s in late.label(label("boiler", 0, 2.0), 9.0)] == [1]
    assert len(late) == 3


def test_sample_whose_label_never_comes_is_forgotten() -> None:
    late = LateLabels(wait=10.0)
    late.hold(reading("p1", 0), 0.0)
    late.hold(reading("p2", 0), 8.0)
    assert late.label(label("p1", 1), 11.0) == []
    assert late.label(label("p2", 1), 11.0) != []
    assert (len(late), late.expired) == (0, 1)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.booleans()), max_size=80))
def test_number_that_waits_is_bounded_and_counted(events: list[tuple[str, bool]]) -> None:
    late = LateLabels(most=5)
    held = given_out = 0
    for now, (key, is_label) in enumerate(events):
        if is_label:
            given_out += len(late.label(label(key, 1), float(now)))
        else:
            late.hold(reading(key, now), float(now))
            held += 1
        assert len(late) <= 5
        assert held == given_out + late.expired + len(late)


def test_bounds_that_cannot_work_are_refused() -> None:
    for wait, tolerance, most in ((0.0, None, 1), (1.0, -1.0, 1), (1.0, None, 0)):
        with pytest.raises(OperatorError):
            LateLabels(wait, tolerance, most)
