import logging

import pytest

from edgechoir.errors import OutOfRange
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.stage import MAX_REASONS, Reasons, Stage


def test_stage_counts_what_it_takes_gives_holds_back_and_buries() -> None:
    def operator(sample: Sample) -> Sample | None:
        value = float(sample.x[0])
        if value == 1:
            raise OutOfRange("too much")
        if value == 2:
            raise KeyError("a bug of the user")
        return None if value == 3 else sample

    stage = Stage("odd", operator)
    given = [stage(Sample("a", 0.0, as_values([value]))) for value in (0, 1, 2, 3, 4, 1)]
    assert [out is not None for out in given] == [True, False, False, False, True, False]
    stats = stage.stats()
    assert (stats.name, stats.taken, stats.given) == ("odd", 6, 2)
    assert stats.dead == {"out_of_range": 2, "KeyError": 1}
    assert stats.seconds > 0


def test_only_the_first_of_a_kind_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    reasons = Reasons("here")
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            reasons.add(OutOfRange("again"))
    assert len(caplog.records) == 1
    assert reasons.counts() == {"out_of_range": 50}


def test_number_of_reasons_is_bounded() -> None:
    reasons = Reasons("here")
    for i in range(3 * MAX_REASONS):
        reasons.add(type(f"Error{i}", (Exception,), {})())
    assert len(reasons.counts()) == MAX_REASONS + 1
    assert reasons.counts()["other"] == 2 * MAX_REASONS
