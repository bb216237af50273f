"""A graph whose values would be too large or do not fit is refused before anything is made."""

from pathlib import Path

import pytest

from edgechoir.bundle.graph import Graph, Node, Ref, Value
from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.shapes import check_shapes, infer_shapes
from edgechoir.errors import BadModel

DIGITS = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle")
X = Ref("x")


def graph(*nodes: Node) -> Graph:
    """These calls; the last is the output."""
    return Graph(nodes, nodes[-1].name)


def call(name: str, op: str, **args: Value) -> Node:
    """One node."""
    return Node(name, op, args)


def refusal(*nodes: Node) -> str:
    """Why this graph over digits is refused."""
    with pytest.raises(BadModel, match=r"graph\.json") as caught:
        check_shapes(graph(*nodes), DIGITS.manifest)
    return str(caught.value)


def test_every_value_of_digits_has_its_shape() -> None:
    shapes = infer_shapes(DIGITS.graph, DIGITS.manifest, 7)
    assert shapes == {"x": (7, 64), "linear": (7, 32), "relu": (7, 32), "linear_1": (7, 10)}


def test_a_value_that_would_fill_memory_is_refused() -> None:
    huge = call("huge", "aten.zeros.default", size=(1 << 26,))
    assert "'huge'" in refusal(huge)
    wide = call("wide", "aten.unsqueeze.default", self=X, dim=2)
    grown = call("grown", "aten.expand.default", self=Ref("wide"), size=(2, 64, 1 << 19))
    assert "'grown'" in refusal(wide, grown)


def test_growth_step_by_step_is_refused() -> None:
    nodes = [call("n0", "aten.cat.default", tensors=(X,) * 64)]
    for step in range(1, 8):
        same = (Ref(f"n{step - 1}"),) * 64
        nodes.append(call(f"n{step}", "aten.cat.default", tensors=same))
    assert "elements" in refusal(*nodes)


def test_many_values_that_are_large_together_are_refused() -> None:
    rows = [call(f"n{i}", "aten.zeros.default", size=(1 << 24,)) for i in range(20)]
    assert "have over" in refusal(*rows)


def test_padding_cannot_outgrow_its_kernel() -> None:
    image = call("image", "aten.view.default", self=X, size=(-1, 1, 64))
    pool = call(
        "pool", "aten.max_pool1d.default", self=Ref("image"), kernel_size=(3,), padding=(1000,)
    )
    assert "padding" in refusal(image, pool)


def test_a_batch_that_is_written_into_the_graph_is_refused() -> None:
    assert "batch of 1" in refusal(call("fixed", "aten.zeros.default", size=(2, 10)))
    rows = call("rows", "aten.view.default", self=X, size=(2, 64))
    assert "64 elements as (2, 64)" in refusal(rows, *DIGITS.graph.nodes)
    pair = call("pair", "aten.select.int", self=X, dim=0, index=1)
    assert "index 1" in refusal(pair, *DIGITS.graph.nodes)


@pytest.mark.parametrize("what", ["stride", "dilation"])
def test_steps_that_crash_torch_are_refused(what: str) -> None:
    image = call("image", "aten.view.default", self=X, size=(-1, 1, 8, 8))
    # A window of one value fits whatever its dilation, and any stride leaves one of them.
    options: dict[str, Value] = {"kernel_size": (1, 1), "stride": (1, 1), what: (1, 65536)}
    pool = call("pool", "aten.max_pool2d.default", self=Ref("image"), **options)
    assert "at most 4096" in refusal(image, pool)


def test_an_output_without_the_batch_is_refused() -> None:
    assert "output has shape" in refusal(call("zeros", "aten.zeros.default", size=(1, 10)))
    assert "output has shape" in refusal(call("sum", "aten.sum.default", self=X))
