"""A training graph is a list of allowed calls on what stands before them, or it is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.bundle.graph import MAX_NODES, Node, Param, Ref, dump_graph, parse_graph
from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.operators import OPERATORS
from edgechoir.bundle.shapes import check_shapes
from edgechoir.errors import BadModel

DIGITS = load_bundle(Path(__file__).parents[2] / "models" / "digits" / "bundle")
MANIFEST = DIGITS.manifest
GOOD: dict[str, Any] = json.loads(dump_graph(DIGITS.graph))
X = {"value": "x"}


def node(op: str, name: str = "n", /, **args: object) -> dict[str, object]:
    """One row of graph.json."""
    return {"name": name, "op": op, "args": args}


def refusal(*nodes: object, output: object = "n") -> str:
    """Why a graph of these nodes is refused."""
    data = json.dumps({"format": 1, "nodes": nodes, "output": output}).encode()
    with pytest.raises(BadModel, match=r"graph\.json") as caught:
        parse_graph(data, MANIFEST)
    return str(caught.value)


def test_a_graph_survives_writing_and_reading() -> None:
    assert parse_graph(dump_graph(DIGITS.graph), MANIFEST) == DIGITS.graph
    assert DIGITS.graph.nodes[1] == Node("relu", "aten.relu.default", {"self": Ref("linear")})
    assert DIGITS.graph.nodes[0].args["weight"] == Param("0.weight")


def test_an_operator_that_is_not_listed_is_refused() -> None:
    assert "not allowed" in refusal(node("aten.from_file.default", filename="/etc/passwd"))
    assert "not allowed" in refusal(node("os.system", command="true"))
    assert "not allowed" in refusal(node("aten.relu_.default", self=X))


def test_a_node_cannot_name_itself_or_what_comes_later() -> None:
    assert "valid tensor" in refusal(node("aten.relu.default", self={"value": "n"}))
    later = node("aten.relu.default", "later", self={"value": "n"})
    assert "valid tensor" in refusal(node("aten.relu.default", self={"value": "later"}), later)


def test_names_are_taken_once() -> None:
    assert "taken" in refusal(node("aten.relu.default", "x", self=X), output="x")
    twice = node("aten.relu.default", self=X)
    assert "taken" in refusal(twice, twice)
    assert "malformed" in refusal(node("aten.relu.default", "../n", self=X))


def test_a_parameter_must_be_in_the_manifest() -> None:
    assert "valid tensor" in refusal(node("aten.relu.default", self={"param": "missing"}))


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"self": None},
        {"self": 1},
        {"self": [X]},
        {"self": {"value": "x", "param": "0.bias"}},
        {"self": {"value": ["x"]}},
        {"self": {"path": "/etc"}},
        {"self": X, "out": X},
    ],
)
def test_wrong_arguments_are_refused(args: dict[str, object]) -> None:
    assert "graph.json" in refusal(node("aten.relu.default", **args))


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("dim", 8),
        ("dim", True),
        ("dim", 1.0),
        ("dim", "0"),
        ("index", 2**63),
        ("index", None),
        ("index", [1]),
    ],
)
def test_numbers_out_of_range_are_refused(kind: str, bad: object) -> None:
    assert "is not a valid" in refusal(
        node("aten.select.int", self=X, **{"dim": 0, "index": 0, kind: bad})
    )


def test_sizes_are_bounded_before_anything_is_made() -> None:
    for size in ([1 << 40], [1 << 20, 1 << 20], [1] * 9, [-2], [True], 4, [[4]]):
        assert "valid size" in refusal(node("aten.zeros.default", size=size))
    huge = {"kernel_size": [2], "padding": [1 << 30]}
    assert "valid pads" in refusal(node("aten.max_pool1d.default", self=X, **huge))


def test_numbers_that_are_not_finite_are_refused() -> None:
    for word in ("NaN", "Infinity", "-Infinity", "1e999"):
        data = json.dumps({"format": 1, "nodes": [node("aten.add.Tensor", self=X, other=7.5)]})
        data = data[:-1].replace("7.5", word) + ', "output": "n"}'
        with pytest.raises(BadModel):
            parse_graph(data.encode(), MANIFEST)


def test_the_output_must_be_a_tensor_of_the_graph() -> None:
    size = node("aten.sym_size.int", self=X, dim=0)
    assert "output" in refusal(size)
    assert "output" in refusal(node("aten.relu.default", self=X), output="other")
    assert "output" in refusal(node("aten.relu.default", self=X), output=["n"])


def test_too_many_nodes_and_too_deep_arguments_are_refused() -> None:
    row = node("aten.relu.default", self=X)
    assert "list of 1" in refusal(*[row] * (MAX_NODES + 1))
    assert "list of 1" in refusal()
    assert "too deep" in refusal(node("aten.zeros.default", size=[[[[1]]]]))
    for deep in (b"[" * 100_000, b'{"format":' * 100_000):
        with pytest.raises(BadModel):
            parse_graph(deep, MANIFEST)


def test_a_document_over_the_cap_is_not_parsed() -> None:
    with pytest.raises(BadModel, match="bytes, at most"):
        parse_graph(b" " * ((1 << 20) + 1), MANIFEST)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 70_000)
    | st.integers()
    | st.floats()
    | st.sampled_from(["none", "tanh", "same", "x"])
    | st.sampled_from([{"value": "x"}, {"value": "linear"}, {"value": "relu"}])
    | st.sampled_from([{"param": p.name} for p in MANIFEST.parameters]),
    lambda inner: st.lists(inner, max_size=4),
    max_leaves=6,
)
ROWS = st.sampled_from(sorted(OPERATORS)).flatmap(
    lambda op: st.fixed_dictionaries(
        {
            "name": st.sampled_from(["a", "b", "c"]),
            "op": st.just(op),
            "args": st.fixed_dictionaries(dict.fromkeys(OPERATORS[op].arguments, VALUES)),
        }
    )
)


@given(row=ROWS, at=st.integers(0, 3))
@settings(max_examples=300)
def test_any_call_is_accepted_with_bounded_shapes_or_refused_cleanly(
    row: dict[str, object], at: int
) -> None:
    document = copy.deepcopy(GOOD)
    document["nodes"].insert(at, row)
    try:
        graph = parse_graph(json.dumps(document).encode(), MANIFEST)
        check_shapes(graph, MANIFEST)
    except BadModel:
        return
    assert len(graph.nodes) == 4


@given(data=st.data())
@settings(max_examples=200)
def test_any_change_to_the_text_is_read_or_refused_cleanly(data: st.DataObject) -> None:
    text = bytearray(dump_graph(DIGITS.graph))
    for _ in range(data.draw(st.integers(1, 4))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    try:
        graph = parse_graph(bytes(text), MANIFEST)
        check_shapes(graph, MANIFEST)
    except BadModel:
        return
    assert graph.nodes
