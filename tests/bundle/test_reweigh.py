"""A version of a run becomes a bundle that passes every check."""

from pathlib import Path

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.manifest import prepare
from edgechoir.bundle.reweigh import with_params
from edgechoir.errors import BadModel, OperatorError

DIGITS = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle")


def test_the_bundle_has_the_new_weights_and_all_else_as_it_was(tmp_path: Path) -> None:
    params = DIGITS.params * 2
    with_params(DIGITS, params, tmp_path / "out")
    again = load_bundle(tmp_path / "out")
    assert np.array_equal(again.params, params)
    assert again.onnx == DIGITS.onnx
    assert again.graph == DIGITS.graph
    assert again.manifest.parameters == DIGITS.manifest.parameters


def test_what_the_federation_normalised_by_becomes_its_preprocessing(tmp_path: Path) -> None:
    columns = DIGITS.manifest.input_shape[-1]
    mean, scale = np.arange(columns, dtype=np.float32), np.full(columns, 0.5, np.float32)
    made = with_params(DIGITS, DIGITS.params, tmp_path / "out", (mean, scale))
    x = np.ones((2, *DIGITS.manifest.input_shape), np.float32)
    assert np.allclose(prepare(made.manifest, x), (x - mean) * scale)


def test_weights_of_another_length_are_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BadModel, match="bytes of parameters"):
        with_params(DIGITS, DIGITS.params[:-1], tmp_path / "out")


def test_nothing_that_is_there_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OperatorError, match="is there already"):
        with_params(DIGITS, DIGITS.params, tmp_path)
