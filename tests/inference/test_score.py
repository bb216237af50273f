"""A model is judged by the labels of its samples."""

from collections.abc import Callable

import numpy as np
import pytest

from edgechoir.inference.candidate import build, fingerprint
from edgechoir.inference.prediction import Output
from edgechoir.inference.score import error_of
from edgechoir.types import Floats

Mlp = Callable[..., bytes]
Weights = Callable[..., Floats]
SIZES = (4, 8, 3)
X = np.random.default_rng(0).standard_normal((150, 4)).astype(np.float32)


def test_the_error_of_a_class_is_the_share_of_wrong_ones(mlp: Mlp, weights: Weights) -> None:
    w = weights(SIZES)
    model = build(
        mlp(SIZES), w, 1, fingerprint(w), output=Output.LOGITS, canary=X[:2], providers=None
    )
    right = model.session.run(X).argmax(1)
    assert error_of(model, X, right, Output.LOGITS) == 0.0
    some = right.copy()
    some[:30] = (some[:30] + 1) % 3
    assert error_of(model, X, some, Output.LOGITS) == pytest.approx(0.2)


def test_the_error_of_a_value_is_in_units_of_its_deviation(mlp: Mlp, weights: Weights) -> None:
    sizes = (4, 8, 1)
    w = weights(sizes)
    model = build(
        mlp(sizes), w, 1, fingerprint(w), output=Output.VALUES, canary=X[:2], providers=None
    )
    right = model.session.run(X)
    assert error_of(model, X, right, Output.VALUES) == 0.0
    off = right + 2 * right.std()
    assert error_of(model, X, off, Output.VALUES) == pytest.approx(2.0, rel=1e-3)
    # A constant has no deviation: the error is in its own units.
    assert np.isfinite(error_of(model, X, np.ones((150, 1), np.float32), Output.VALUES))
