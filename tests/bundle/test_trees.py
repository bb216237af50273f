"""A forest's ONNX file says what the forest says, for any vector that is put under it."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.manifest import GRAPH, MANIFEST, TREES_GRAPH
from edgechoir.bundle.trees import build_trees
from edgechoir.cli import main
from edgechoir.errors import BadModel, OperatorError
from edgechoir.inference.candidate import fingerprint
from edgechoir.inference.prediction import Output
from edgechoir.inference.predictor import Predictor
from edgechoir.learning.trees.forest import Layout

pytest.importorskip("onnx")


@pytest.mark.torch
@pytest.mark.parametrize(
    ("outputs", "classifies", "trees"),
    [(("no", "yes"), True, 5), (("a", "b", "c"), True, 6), (("v",), False, 4)],
)
def test_a_forest_in_onnx_answers_as_in_numpy(
    tmp_path: Path, outputs: tuple[str, ...], classifies: bool, trees: int
) -> None:
    task = "classification" if classifies else "regression"
    bundle = build_trees(
        tmp_path / "b",
        "grove",
        "classification" if classifies else "regression",
        4,
        outputs,
        trees,
        3,
    )
    assert bundle.manifest.task == task
    layout = Layout(4, len(outputs), classifies, trees, 3)
    assert np.array_equal(bundle.params, layout.bare())
    numbers = np.random.default_rng(0)
    w = layout.bare()
    forest = layout.split(w)
    forest.bias[:] = numbers.normal(size=forest.bias.shape)
    forest.features[:] = numbers.integers(0, 4, forest.features.shape)
    forest.thresholds[:] = numbers.normal(size=forest.thresholds.shape)
    forest.leaves[:] = numbers.normal(size=forest.leaves.shape)
    predictor = Predictor(
        bundle.onnx,
        bundle.params,
        0,
        shape=(4,),
        output=Output.LOGITS if classifies else Output.VALUES,
    )
    first = np.stack([p.values for p in predictor.predict_batch(np.zeros((2, 4), np.float32))])
    assert np.ptp(first) == 0
    predictor.commit(predictor.stage(w, 1, fingerprint(w)))
    x = numbers.normal(size=(70, 4)).astype(np.float32)
    x[3, 1] = np.nan
    x[4] = forest.thresholds[0, 0]  # on the threshold is left
    said = np.stack([p.values for p in predictor.predict_batch(x)])
    predictor.close()
    assert said == pytest.approx(layout.sees(w, x), abs=1e-5)


@pytest.mark.torch
def test_a_forest_of_wrong_shapes_is_refused(tmp_path: Path) -> None:
    build_trees(tmp_path / "b", "grove", "regression", 4, ("v",), 4, 3)
    (tmp_path / "b" / GRAPH).write_bytes(TREES_GRAPH + b" ")
    with pytest.raises(BadModel, match=GRAPH):
        load_bundle(tmp_path / "b")
    (tmp_path / "b" / GRAPH).write_bytes(TREES_GRAPH)
    document = json.loads((tmp_path / "b" / MANIFEST).read_text())
    for trees in ({"count": 3, "depth": 3}, {"count": 4, "depth": 11}, {"count": 4}):
        document["trees"] = trees
        (tmp_path / "b" / MANIFEST).write_text(json.dumps(document))
        with pytest.raises(BadModel, match=MANIFEST):
            load_bundle(tmp_path / "b")
    with pytest.raises(OperatorError, match="multiple of 3"):
        build_trees(tmp_path / "c", "grove", "classification", 4, ("a", "b", "c"), 4, 3)


@pytest.mark.torch
def test_a_command_builds_a_forest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--columns", "13", "--outputs", "none,disease", "--trees", "8", "--depth", "2"]
    assert main(["bundle", "trees", str(tmp_path / "b"), *words]) == 0
    assert "8 trees of depth 2, 81 numbers" in capsys.readouterr().out
    assert main(["bundle", "verify", str(tmp_path / "b")]) == 0
