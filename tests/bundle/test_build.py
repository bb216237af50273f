"""A bundle is what its model file says, or the author is told why not."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.manifest import FILES, MANIFEST
from edgechoir.bundle.personal import compose, split
from edgechoir.errors import BadModel, OperatorError
from edgechoir.inference.of_bundle import predictor_of

torch = pytest.importorskip("torch", reason="building needs the extra 'train'")
pytestmark = pytest.mark.torch

MODELS = Path(__file__).parent / "models"
DIGITS = Path(__file__).parents[2] / "models" / "digits"

HEAD = """
import torch
from torch import nn
META = {"name": "m", "task": "classification", "input": [4, 8], "outputs": ["a", "b"]}
"""


def refusal(tmp_path: Path, source: str) -> str:
    """What the author of this model file is told."""
    path = tmp_path / "model.py"
    path.write_text(source)
    with pytest.raises(OperatorError) as caught:
        build_bundle(path, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    return str(caught.value)


def module(forward: str, parts: str = "") -> str:
    """A model file whose forward is `forward`; a prediction follows it."""
    return HEAD + (
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(32, 2)\n"
        f"        {parts}\n"
        "    def forward(self, x):\n"
        f"        {forward}\n"
        "        return self.head(x.flatten(1))\n"
        "def model():\n"
        "    return Net()\n"
    )


@pytest.mark.parametrize("name", ["mlp", "cnn", "gru", "lstm", "resnet", "personal"])
def test_a_model_file_becomes_a_bundle_that_loads(name: str, tmp_path: Path) -> None:
    bundle = build_bundle(MODELS / f"{name}.py", tmp_path / "bundle", seed=3)
    assert bundle.manifest.name == name
    assert bundle.digest == load_bundle(tmp_path / "bundle").digest
    assert {path.name for path in (tmp_path / "bundle").iterdir()} == {MANIFEST, *FILES}
    assert str(MODELS).encode() not in bundle.onnx  # nothing of the author's machine


def test_the_digits_bundle_is_what_its_model_file_builds_to(tmp_path: Path) -> None:
    kept = load_bundle(DIGITS / "bundle")
    if kept.manifest.built_with != f"torch {torch.__version__}":
        pytest.skip(f"kept bundle is of {kept.manifest.built_with}, here is {torch.__version__}")
    built = build_bundle(DIGITS / "model.py", tmp_path)
    for name in (MANIFEST, *FILES):
        seen = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        assert seen == hashlib.sha256((DIGITS / "bundle" / name).read_bytes()).hexdigest(), name
    assert built.digest == kept.digest


def test_personal_parameters_stand_behind_the_shared_ones(tmp_path: Path) -> None:
    bundle = build_bundle(MODELS / "personal.py", tmp_path / "bundle")
    names = [parameter.name for parameter in bundle.manifest.parameters]
    assert names[:2] == ["body.weight", "body.bias"]
    assert set(names[2:]) == {
        *("calibration.weight", "calibration.bias", "head.weight", "head.bias")
    }
    assert bundle.manifest.shared == 6 * 12 + 12
    shared, personal = split(bundle.manifest, bundle.params)
    assert np.array_equal(compose(bundle.manifest, shared, personal), bundle.params)
    with pytest.raises(BadModel, match="expected 84 and 81"):
        compose(bundle.manifest, shared[1:], personal)


def test_the_seed_alone_sets_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(99)
    one = build_bundle(MODELS / "mlp.py", tmp_path / "1", seed=1)
    torch.manual_seed(100)
    same = build_bundle(MODELS / "mlp.py", tmp_path / "2", seed=1)
    other = build_bundle(MODELS / "mlp.py", tmp_path / "3", seed=2)
    assert np.array_equal(one.params, same.params)
    assert not np.array_equal(one.params, other.params)


def test_batch_norm_is_refused_with_advice(tmp_path: Path) -> None:
    told = refusal(tmp_path, module("x = self.norm(x)", "self.norm = nn.BatchNorm1d(4)"))
    assert "norm.running_mean" in told
    assert "GroupNorm" in told
    assert "line 11" in told


def test_an_operator_that_devices_refuse_is_named_with_its_line(tmp_path: Path) -> None:
    told = refusal(tmp_path, module("x = torch.cumsum(x, 1)"))
    assert "aten.cumsum.default" in told
    assert "line 11" in told


def test_writing_in_place_is_refused(tmp_path: Path) -> None:
    told = refusal(tmp_path, module("x = nn.functional.relu_(x)"))
    assert "aten.relu_.default" in told
    assert "in place" in told


def test_a_branch_on_values_is_refused(tmp_path: Path) -> None:
    told = refusal(tmp_path, module("x = x if x.sum() > 0 else -x"))
    assert "torch.export cannot follow" in told


def test_a_frozen_parameter_is_refused(tmp_path: Path) -> None:
    told = refusal(tmp_path, module("pass", "self.head.bias.requires_grad_(False)"))
    assert "head.bias" in told


def test_outputs_must_be_as_many_as_the_model_gives(tmp_path: Path) -> None:
    told = refusal(tmp_path, module("pass").replace('["a", "b"]', '["a", "b", "c"]'))
    assert "(3, 2)" in told
    assert "(3, 3)" in told


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"task": "classification"', '"task": "poetry"', "task"),
        ('"outputs": ["a", "b"]', '"outputs": ["a", "a"]', "same name"),
        ('"name": "m"', '"name": "Not A Name"', "name"),
        ('"name": "m"', '"name": "m", "colour": 1', "colour"),
        ('"name": "m"', '"name": "m", "loss": "mse"', "does not go with"),
        ("def model", "def modell", "define model()"),
        ("return Net()", "return 7", "gave a int"),
    ],
)
def test_a_wrong_model_file_is_explained(old: str, new: str, expected: str, tmp_path: Path) -> None:
    source = module("pass")
    assert old in source
    assert expected in refusal(tmp_path, source.replace(old, new))


def test_a_model_file_may_import_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_the_model.py").write_text("WIDTH = 32\n")
    path = tmp_path / "model.py"
    path.write_text(
        "from neighbour_of_the_model import WIDTH\n"
        + module("pass").replace("nn.Linear(32", "nn.Linear(WIDTH")
    )
    assert build_bundle(path, tmp_path / "bundle").manifest.size == 66


def test_tied_weights_are_one_parameter(tmp_path: Path) -> None:
    path = tmp_path / "model.py"
    path.write_text(
        module(
            "x = self.two(torch.relu(self.one(x)))",
            "self.one = nn.Linear(8, 8); self.two = nn.Linear(8, 8); "
            "self.two.weight = self.one.weight",
        )
    )
    bundle = build_bundle(path, tmp_path / "bundle")
    names = [parameter.name for parameter in bundle.manifest.parameters]
    assert names == ["head.weight", "head.bias", "one.weight", "one.bias", "two.bias"]


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"nothing\.py"):
        build_bundle(tmp_path / "nothing.py", tmp_path / "bundle")


def test_dense_layers_answer_in_8_bits_where_asked_to(tmp_path: Path) -> None:
    plain = build_bundle(MODELS / "mlp.py", tmp_path / "plain", seed=3)
    small = build_bundle(MODELS / "mlp.py", tmp_path / "small", seed=3, int8=True)
    assert np.array_equal(plain.params, small.params)
    assert plain.graph == small.graph
    assert b"MatMulInteger" in small.onnx
    assert small.manifest.built_with.endswith("answers in int8")
    shape = plain.manifest.input_shape
    x = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32)
    # New weights are quantised anew: the answers follow them.
    for w in (plain.params, plain.params * np.float32(3)):
        exact = np.stack([p.values for p in predictor_of(plain, w).predict_batch(x)])
        rough = np.stack([p.values for p in predictor_of(small, w).predict_batch(x)])
        assert 0 < np.abs(exact - rough).max() < 0.1 * np.abs(exact).max()


def test_a_model_without_dense_layers_has_nothing_to_put_into_8_bits(tmp_path: Path) -> None:
    (tmp_path / "conv.py").write_text(
        HEAD + "def model():\n    return nn.Sequential(nn.Conv1d(4, 2, 8), nn.Flatten())\n"
    )
    with pytest.raises(OperatorError, match="no dense layer"):
        build_bundle(tmp_path / "conv.py", tmp_path / "out", int8=True)
