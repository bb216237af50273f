"""A teacher's word is learnt as its formula says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.errors import TrainingError
from edgechoir.types import FitPlan, Floats

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
pytestmark = pytest.mark.torch

from edgechoir.training.fit import Model, fit, predict  # noqa: E402  torch is there now
from edgechoir.training.lesson import lesson_of  # noqa: E402

DIGITS = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle")
W = DIGITS.params
CHANCE = np.random.default_rng(1)
X = CHANCE.uniform(0, 16, (40, 64)).astype(np.float32)
Y = CHANCE.integers(0, 10, 40)
SHARED = CHANCE.uniform(0, 16, (20, 64)).astype(np.float32)
TEACHER = CHANCE.normal(0, 3, (20, 10)).astype(np.float32)


def softmax(z: Floats) -> Floats:
    e = np.exp(z - z.max(1, keepdims=True))
    out: Floats = e / e.sum(1, keepdims=True)
    return out


def test_the_lesson_is_the_divergence_of_the_softened_answers() -> None:
    plan = FitPlan(batch_size=64, distil=0.7, temperature=3.0)
    lesson = lesson_of(DIGITS.manifest, plan, SHARED, TEACHER)
    assert lesson is not None
    model = Model.of(DIGITS, W)
    seen = float(lesson(model, np.random.default_rng(0)))
    p, q = softmax(TEACHER / 3.0), softmax(predict(DIGITS, W, SHARED) / 3.0)
    assert seen == pytest.approx(0.7 * 9 * (p * np.log(p / q)).sum(1).mean(), rel=1e-4)


def test_a_model_comes_to_say_what_its_teacher_says() -> None:
    plan = FitPlan(epochs=200, learning_rate=0.05, distil=5.0, temperature=2.0)
    taught = fit(DIGITS, W, X, Y, plan, shared_x=SHARED, teacher=TEACHER).delta
    alone = fit(DIGITS, W, X, Y, plan).delta
    wanted = TEACHER.argmax(1)
    right = [(predict(DIGITS, W + d, SHARED).argmax(1) == wanted).mean() for d in (taught, alone)]
    assert right[0] > 0.75
    assert right[1] < 0.5


def test_without_a_teacher_or_a_weight_there_is_no_lesson() -> None:
    assert lesson_of(DIGITS.manifest, FitPlan(), SHARED, TEACHER) is None
    assert lesson_of(DIGITS.manifest, FitPlan(distil=1.0), None, None) is None


def test_a_teacher_of_another_shape_is_explained() -> None:
    with pytest.raises(TrainingError, match=r"a teacher of shape \(20, 9\)"):
        lesson_of(DIGITS.manifest, FitPlan(distil=1.0), SHARED, TEACHER[:, :9])
