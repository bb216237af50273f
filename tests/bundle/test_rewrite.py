"""A bundle with other numbers in it answers with them, and is as sound as the first."""

from pathlib import Path

import numpy as np
import pytest

from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.manifest import Preprocessing, preparation, prepare
from edgechoir.bundle.rewrite import write_linear, write_with
from edgechoir.errors import BadModel, OperatorError
from edgechoir.inference.prediction import Output
from edgechoir.inference.predictor import Predictor

DIGITS = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle")
HEART = Path(__file__).parents[2] / "models" / "heart" / "model.py"
SCALED = """
from torch import nn

META = {"name": "scaled", "task": "regression", "input": [3], "outputs": ["a", "b"],
        "offset": [1.0, 2.0, 3.0], "scale": [0.5, 2.0, -4.0]}


def model() -> nn.Module:
    return nn.Linear(3, 2)
"""


def test_the_bundle_has_the_new_weights_and_all_else_as_it_was(tmp_path: Path) -> None:
    params = DIGITS.params * 2
    write_with(DIGITS, params, tmp_path / "out")
    again = load_bundle(tmp_path / "out")
    assert np.array_equal(again.params, params)
    assert again.onnx == DIGITS.onnx
    assert again.graph == DIGITS.graph
    assert again.manifest.parameters == DIGITS.manifest.parameters


def test_what_the_federation_normalised_by_becomes_its_preprocessing(tmp_path: Path) -> None:
    columns = DIGITS.manifest.input_shape[-1]
    mean, scale = np.arange(columns, dtype=np.float32), np.full(columns, 0.5, np.float32)
    preprocessing = Preprocessing(offset=tuple(mean.tolist()), scale=tuple(scale.tolist()))
    made = write_with(DIGITS, DIGITS.params, tmp_path / "out", preprocessing)
    x = np.ones((2, *DIGITS.manifest.input_shape), np.float32)
    assert np.allclose(prepare(made.manifest, x), (x - mean) * scale)


def test_weights_of_another_length_are_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="bytes of parameters"):
        write_with(DIGITS, DIGITS.params[:-1], tmp_path / "out")


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OperatorError, match="is there already"):
        write_with(DIGITS, DIGITS.params, tmp_path)


@pytest.mark.torch
def test_a_linear_model_in_raw_units_answers_as_it_should(tmp_path: Path) -> None:
    (tmp_path / "scaled.py").write_text(SCALED)
    bundle = build_bundle(tmp_path / "scaled.py", tmp_path / "bundle")
    weights, bias = np.array([[1.0, -2, 3], [0, 5, 0.5]]), np.array([10.0, -20])
    written = write_linear(bundle, weights, bias, tmp_path / "out")
    assert load_bundle(tmp_path / "out").digest == written.digest != bundle.digest
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32) * 10
    predictor = Predictor(
        written.onnx,
        written.params,
        0,
        shape=(3,),
        output=Output.VALUES,
        prepare=preparation(written.manifest),
    )
    said = np.stack([p.values for p in predictor.predict_batch(x)])
    predictor.close()
    assert said == pytest.approx(x @ weights.T + bias, rel=1e-4, abs=1e-3)


@pytest.mark.torch
def test_a_bundle_takes_another_preprocessing_and_is_not_overwritten(tmp_path: Path) -> None:
    bundle = build_bundle(HEART, tmp_path / "bundle")
    columns = tuple(float(j) for j in range(1, 14))
    preprocessing = Preprocessing(offset=columns, scale=columns)
    written = write_with(bundle, bundle.params + 1, tmp_path / "out", preprocessing)
    assert written.manifest.preprocessing == preprocessing
    assert np.array_equal(written.params, bundle.params + 1)
    with pytest.raises(OperatorError, match="not empty"):
        write_with(bundle, bundle.params, tmp_path / "out")


@pytest.mark.torch
def test_only_the_bundle_of_a_linear_model_takes_one(tmp_path: Path) -> None:
    bundle = build_bundle(HEART, tmp_path / "bundle")
    with pytest.raises(OperatorError, match=r"\[\(13, 2\), \(13,\)\]"):
        write_linear(bundle, np.zeros((13, 2)), np.zeros(13), tmp_path / "out")
