"""What two bundles differ in is named part by part."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgechoir.bundle.graph import Graph
from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.view import differences, shown

BUNDLE = Path(__file__).parents[2] / "models" / "digits" / "bundle"


@pytest.fixture(scope="module")
def digits() -> Bundle:
    return load_bundle(BUNDLE)


def renamed(bundle: Bundle, **fields: object) -> Bundle:
    return replace(bundle, manifest=bundle.manifest.model_copy(update=fields))


def test_the_same_bundle_differs_in_nothing(digits: Bundle) -> None:
    assert list(differences(digits, load_bundle(BUNDLE))) == []


def test_every_kind_of_difference_is_named(digits: Bundle) -> None:
    nodes = digits.graph.nodes[:-1]
    table = list(digits.manifest.parameters)
    table[0] = table[0].model_copy(update={"shape": (64, 32)})
    table[1] = table[1].model_copy(update={"name": "other.bias"})
    other = replace(
        renamed(digits, name="figures", parameters=tuple(table)),
        graph=Graph(nodes, nodes[-1].name),
        onnx=digits.onnx + b"x",
        params=digits.params + np.float32(1),
    )
    found = list(differences(digits, other))
    assert found[0] == "name: digits / figures"
    assert found[1] == "graph: aten.linear.default 2 / 1"
    assert found[2].startswith("infer.onnx: ")
    assert found[3:6] == [
        "0.bias: [32] / not there",
        "other.bias: not there / [32]",
        "0.weight: [32, 64] / [64, 32]",
    ]
    assert [line.split(":")[0] for line in found[6:]] == ["2.weight", "2.bias"]


def test_personal_layers_are_marked(digits: Bundle) -> None:
    lines = list(shown(renamed(digits, personal=("2.*",))))
    assert "  stays here  2.*: 330 parameters" in lines
    assert [line.split()[0] for line in lines if line.endswith("  personal")] == [
        "2.weight",
        "2.bias",
    ]
