"""Local training with everything a rule may add equals the same loop in plain numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.errors import TrainingError
from edgechoir.types import FitPlan, Floats

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
pytestmark = pytest.mark.torch

from edgechoir.training.fit import fit  # noqa: E402  torch is there now

DIGITS = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle")
W = DIGITS.params
CHANCE = np.random.default_rng(3)
Y = CHANCE.integers(0, 10, 40)
X = (CHANCE.uniform(0, 16, (10, 64))[Y] + CHANCE.normal(0, 2, (40, 64))).astype(np.float32)
RATE = 0.1
Vector = npt.NDArray[np.float64]


def gradient(w: Vector) -> Vector:
    """Of the mean loss over all rows at w: one plain step, divided by its rate."""
    delta = fit(DIGITS, w.astype(np.float32), X, Y, FitPlan(1, 64, 1e-2)).delta
    return -delta.astype(np.float64) / 1e-2


def trained(plan: FitPlan, **beside: Floats) -> Vector:
    return fit(DIGITS, W, X, Y, plan, **beside).delta.astype(np.float64)


def plain(
    steps: int,
    momentum: float = 0.0,
    decay: float = 0.0,
    most: float = float("inf"),
    mu: float = 0.0,
    anchor: Floats = W,
    shift: Floats | None = None,
) -> Vector:
    """The formula of `step`, in float64."""
    w = W.astype(np.float64)
    u = np.zeros_like(w)
    for _ in range(steps):
        g = gradient(w)
        g = g * min(1.0, most / float(np.linalg.norm(g))) + mu * (w - anchor) + decay * w
        g = g if shift is None else g + shift
        u = momentum * u + g
        w = w - RATE * u
    return w - W


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.9},
        {"weight_decay": 0.3},
        {"max_gradient_norm": 0.2},
        {"proximal": 2.0},
        {"momentum": 0.5, "weight_decay": 0.1, "max_gradient_norm": 0.4, "proximal": 1.0},
    ],
    ids=lambda options: "+".join(options) or "plain",
)
def test_each_option_does_what_its_formula_says(options: dict[str, float]) -> None:
    names = {"momentum": "momentum", "weight_decay": "decay", "proximal": "mu"}
    names["max_gradient_norm"] = "most"
    expected = plain(4, **{names[k]: v for k, v in options.items()})  # type: ignore[arg-type]
    plan = FitPlan(4, 64, RATE, **options)  # type: ignore[arg-type]
    assert np.abs(trained(plan) - expected).max() < 2e-5
    if options:
        assert np.abs(expected - plain(4)).max() > 1e-3, "the option made a difference"


def test_a_shift_is_added_to_every_gradient_and_an_anchor_pulls() -> None:
    shift = CHANCE.normal(0, 0.05, len(W)).astype(np.float32)
    anchor = W + CHANCE.normal(0, 0.1, len(W)).astype(np.float32)
    seen = trained(FitPlan(3, 64, RATE, proximal=1.5), shift=shift, anchor=anchor)
    assert np.abs(seen - plain(3, mu=1.5, anchor=anchor, shift=shift)).max() < 2e-5
    assert np.abs(seen - plain(3)).max() > 1e-2


def test_a_shift_of_another_length_is_explained() -> None:
    with pytest.raises(TrainingError, match=r"shift of shape \(3,\), expected"):
        fit(DIGITS, W, X, Y, FitPlan(), shift=np.zeros(3, np.float32))


@pytest.mark.parametrize("name", ["momentum", "weight_decay", "max_gradient_norm", "proximal"])
def test_options_out_of_their_range_are_explained(name: str) -> None:
    with pytest.raises(TrainingError, match=f"{name} -1"):
        fit(DIGITS, W, X, Y, FitPlan(**{name: -1.0}))  # type: ignore[arg-type]
