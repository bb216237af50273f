from collections.abc import Callable

import numpy as np
import pytest

from edgechoir.errors import BadModel
from edgechoir.inference.candidate import Candidate, build, canary_batch
from edgechoir.inference.prediction import Output
from edgechoir.types import Floats

Mlp = Callable[..., bytes]
Weights = Callable[..., Floats]
Digest = Callable[[Floats], bytes]
SIZES = (4, 8, 3)


def stage(onnx: bytes, w: Floats, sha256: bytes, canary: Floats | None = None) -> Candidate:
    return build(
        onnx,
        w,
        7,
        sha256,
        output=Output.LOGITS,
        canary=canary_batch((4,)) if canary is None else canary,
        providers=None,
    )


def test_good_weights_become_a_candidate(mlp: Mlp, weights: Weights, digest: Digest) -> None:
    w = weights(SIZES)
    candidate = stage(mlp(SIZES), w, digest(w))
    assert (candidate.version, candidate.sha256, candidate.width) == (7, digest(w), 3)
    assert candidate.probe > 0


def test_wrong_hash_is_refused(mlp: Mlp, weights: Weights, digest: Digest) -> None:
    with pytest.raises(BadModel, match="hash"):
        stage(mlp(SIZES), weights(SIZES, 0), digest(weights(SIZES, 1)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weight_that_is_not_finite_is_refused(
    mlp: Mlp, weights: Weights, digest: Digest, bad: float
) -> None:
    w = weights(SIZES)
    w[3] = bad
    with pytest.raises(BadModel, match="finite"):
        stage(mlp(SIZES), w, digest(w))


def test_weights_that_overflow_on_the_canary_are_refused(
    mlp: Mlp, weights: Weights, digest: Digest
) -> None:
    w = np.full_like(weights(SIZES), 3e38)
    with pytest.raises(BadModel, match="canary"):
        stage(mlp(SIZES), w, digest(w))


def test_double_precision_weights_are_refused(mlp: Mlp, weights: Weights, digest: Digest) -> None:
    w = weights(SIZES)
    with pytest.raises(BadModel, match="float64"):
        stage(mlp(SIZES), w.astype(np.float64), digest(w))


def test_answer_without_a_row_for_each_sample_is_refused(
    mlp: Mlp, weights: Weights, digest: Digest
) -> None:
    w = weights(SIZES)
    with pytest.raises(BadModel, match="canary batch gives"):
        stage(mlp(SIZES, last="Transpose"), w, digest(w))
