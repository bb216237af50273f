"""Training gives a finite update that its arguments alone decide, or an error."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.errors import TrainingError
from edgechoir.types import FitPlan, Floats

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
pytestmark = pytest.mark.torch

from edgechoir.training.fit import evaluate, fit, predict  # noqa: E402  torch is there now

DIGITS = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle")
W = DIGITS.params
SOURCE = np.random.default_rng(1)
CENTRES = SOURCE.uniform(0, 16, (10, 64))
Y = SOURCE.integers(0, 10, 300)
X = (CENTRES[Y] + SOURCE.normal(0, 2, (300, 64))).astype(np.float32)


def test_training_learns() -> None:
    before = evaluate(DIGITS, W, X, Y)
    update = fit(DIGITS, W, X, Y, FitPlan(epochs=40, learning_rate=0.1))
    after = evaluate(DIGITS, W + update.delta, X, Y)
    assert before["accuracy"] < 0.3
    assert after["accuracy"] > 0.95
    assert after["loss"] < before["loss"]
    assert (update.n, update.steps, after["n"]) == (300, 400, 300.0)


def test_the_metrics_of_an_update_are_those_of_the_given_weights() -> None:
    update = fit(DIGITS, W, X, Y, FitPlan())
    measured = evaluate(DIGITS, W, X, Y)
    assert update.metrics["loss"] == measured["loss"]
    assert update.metrics["accuracy"] == measured["accuracy"]


def test_the_same_arguments_give_the_same_update() -> None:
    torch.manual_seed(1)
    one = fit(DIGITS, W, X, Y, FitPlan(seed=7))
    torch.manual_seed(2)
    same = fit(DIGITS, W, X, Y, FitPlan(seed=7))
    other = fit(DIGITS, W, X, Y, FitPlan(seed=8))
    assert np.array_equal(one.delta, same.delta)
    assert not np.array_equal(one.delta, other.delta)


def test_training_leaves_its_arguments_and_the_generator_alone() -> None:
    given, state = W.copy(), torch.random.get_rng_state()
    fit(DIGITS, given, X, Y, FitPlan())
    assert np.array_equal(given, W)
    assert torch.equal(state, torch.random.get_rng_state())


def test_one_step_is_the_gradient_times_the_rate() -> None:
    small = fit(DIGITS, W, X, Y, FitPlan(batch_size=300, learning_rate=0.01)).delta
    large = fit(DIGITS, W, X, Y, FitPlan(batch_size=300, learning_rate=0.02)).delta
    np.testing.assert_allclose(2 * small, large, atol=1e-6)


def test_a_training_that_diverges_gives_no_update() -> None:
    with pytest.raises(TrainingError, match=r"diverged.*lower it"):
        fit(DIGITS, W, X, Y, FitPlan(epochs=5, learning_rate=1e20))


def test_one_row_is_enough() -> None:
    assert fit(DIGITS, W, X[:1], Y[:1], FitPlan()).steps == 1
    assert predict(DIGITS, W, X[:1]).shape == (1, 10)


def spoiled(x: Floats) -> Floats:
    """The same with one value that is not finite, in row 3."""
    x = x.copy()
    x[3, 5] = np.nan
    return x


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"w": W[:-1]}, "weights of shape"),
        ({"w": np.full_like(W, np.inf)}, "weights are not finite"),
        ({"w": W * np.float32(1e30)}, "the given weights have loss"),
        ({"x": X[:, :63]}, "samples of shape"),
        ({"x": X[:0], "y": Y[:0]}, "1 or more"),
        ({"x": spoiled(X)}, "sample 3 is not finite"),
        ({"y": Y[:-1]}, "targets"),
        ({"y": Y.astype(np.float32)}, "expected integers"),
        ({"y": Y + 1}, "from 1 to 10, expected 0 to 9"),
        ({"y": Y - 1}, "from -1"),
        ({"plan": FitPlan(epochs=0)}, "0 epochs"),
        ({"plan": FitPlan(batch_size=0)}, "batch size 0"),
        ({"plan": FitPlan(learning_rate=0.0)}, "learning rate"),
        ({"plan": FitPlan(learning_rate=float("nan"))}, "learning rate"),
        ({"plan": FitPlan(seed=-1)}, "seed -1"),
    ],
)
def test_wrong_arguments_are_explained(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(TrainingError, match=expected):
        fit(**{"bundle": DIGITS, "w": W, "x": X, "y": Y, "plan": FitPlan(), **change})
