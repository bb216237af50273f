"""What a cohort's sum tells of the model is shown, where it is a cohort's and not a device's."""

from __future__ import annotations

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.privacy.terms import BOUND, NOISE
from edgechoir.learning.task import TRAIN, Option, Task
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.figures import FEWEST, SQUARED, cohort_of
from edgechoir.types import Ring

D = 3


def plan(**options: Option) -> wire.Plan:
    return wire.Plan(
        epoch=1,
        turn=1,
        roster=bytes(32),
        min_survivors=2,
        cohort=("dev-1", "dev-2"),
        round=7,
        model_version=6,
        model_hash=bytes(32),
        task=Task(TRAIN, options).encode(),
        dimension=D,
        devices=10,
        clip=1.0,
        max_samples=100,
        bits=32,
        epochs=1,
        batch_size=8,
        learning_rate=0.1,
        seed=1,
        deadline=10.0,
    )


def total(plan: wire.Plan, devices: int, figures: Figures) -> Ring:
    """The sum of so many devices that measured alike."""
    zero, noise = np.zeros(D, np.float32), np.zeros(D, np.uint32)
    vector = encoding_of(plan).encode(zero, 10, figures, noise)
    return (vector * np.uint32(devices)).astype(np.uint32)


def test_a_cohort_shows_the_mean_over_its_rows() -> None:
    asked = plan()
    seen = cohort_of(asked, total(asked, FEWEST, Figures(20, 15, 10.0)))
    assert seen is not None
    assert (seen.round, seen.accuracy, seen.rmse) == (7, 0.75, None)
    assert seen.loss == pytest.approx(0.5, abs=1e-3)


def test_a_regression_shows_the_root_of_its_mean_squared_error_and_no_accuracy() -> None:
    asked = plan(**{SQUARED: True})
    seen = cohort_of(asked, total(asked, FEWEST, Figures(20, 0, 80.0)))
    assert seen is not None
    assert seen.accuracy is None
    assert seen.rmse == pytest.approx(2.0, abs=1e-3)


def test_of_two_devices_nothing_is_shown() -> None:
    asked = plan()
    assert cohort_of(asked, total(asked, FEWEST - 1, Figures(20, 15, 10.0))) is None


def test_without_rows_held_out_there_is_nothing_to_show() -> None:
    asked = plan()
    assert cohort_of(asked, total(asked, FEWEST, Figures())) is None


def test_a_private_round_shows_nothing_of_a_cohort() -> None:
    asked = plan(**{BOUND: 1.0, NOISE: 1.0})
    assert cohort_of(asked, total(asked, FEWEST, Figures(20, 15, 10.0))) is None


def test_what_cannot_be_a_sum_shows_nothing() -> None:
    asked = plan()
    assert cohort_of(asked, np.zeros(D, np.uint32)) is None
    assert cohort_of(asked, np.zeros(encoding_of(asked).length, np.uint32)) is None
