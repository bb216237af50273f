"""Each shape rule gives the shape that torch gives, and there is a rule for each operator."""

from typing import Any

import pytest

from edgechoir.bundle.graph import Graph, Node, Param, Ref, Value
from edgechoir.bundle.graph import check_graph as check
from edgechoir.bundle.manifest import Manifest, Parameter, Preprocessing
from edgechoir.bundle.operators import OPERATORS
from edgechoir.bundle.shapes import infer_shapes
from edgechoir.errors import BadModel

torch = pytest.importorskip("torch", reason="the rules are held against torch (extra 'train')")
pytestmark = pytest.mark.torch

from edgechoir.training.interpret import compile_graph, run  # noqa: E402  torch is there now

Shape = tuple[int, ...]
Case = tuple[str, dict[str, object]]
IMAGE = (2, 4, 9, 8)
SERIES = (2, 4, 11)
RNN = {
    "has_biases": True,
    "num_layers": 2,
    "dropout": 0.0,
    "train": True,
    "bidirectional": True,
    "batch_first": True,
}
UNARY = (
    *("relu", "leaky_relu", "elu", "gelu", "silu", "hardswish", "hardtanh", "softplus"),
    *("sigmoid", "tanh", "neg", "abs", "exp", "log", "sqrt", "contiguous", "clone"),
)


def weights(gates: int, features: int, hidden: int) -> list[Shape]:
    """The weights of a two-layer, two-way recurrent operator."""
    shapes: list[Shape] = []
    for width in (features, features, 2 * hidden, 2 * hidden):
        shapes += [(gates * hidden, width), (gates * hidden, hidden)]
        shapes += [(gates * hidden,)] * 2
    return shapes


def each(op: str, common: dict[str, object], *variants: dict[str, object]) -> list[Case]:
    """One case for each variant."""
    return [(op, {**common, **variant}) for variant in variants]


class T(tuple[int, ...]):
    """In a case: one tensor of this shape. A list of shapes stands for that many tensors."""


POOL_1D: dict[str, object] = {
    "self": T(SERIES),
    "kernel_size": (3,),
    "stride": (2,),
    "padding": (1,),
}
POOL_2D: dict[str, object] = {"self": T(IMAGE), "kernel_size": (3, 2)}
POOLED_2D: list[dict[str, object]] = [
    {},
    {"stride": (4, 3), "ceil_mode": True},
    {"stride": (2, 2), "padding": (1, 1), "ceil_mode": True},
]
CASES: list[Case] = [
    ("aten.linear.default", {"input": T((2, 5, 3)), "weight": T((7, 3)), "bias": T((7,))}),
    ("aten.matmul.default", {"self": T((2, 1, 3, 4)), "other": T((5, 4, 6))}),
    ("aten.mm.default", {"self": T((3, 4)), "mat2": T((4, 6))}),
    ("aten.bmm.default", {"self": T((2, 3, 4)), "mat2": T((2, 4, 6))}),
    ("aten.addmm.default", {"self": T((6,)), "mat1": T((3, 4)), "mat2": T((4, 6))}),
    *each(
        "aten.conv1d.default",
        {"input": T(SERIES), "weight": T((6, 2, 3)), "groups": 2},
        {},
        {"stride": (2,), "padding": (1,)},
        {"dilation": (3,), "bias": T((6,))},
    ),
    ("aten.conv1d.padding", {"input": T(SERIES), "weight": T((6, 4, 4)), "padding": "same"}),
    *each(
        "aten.conv2d.default",
        {"input": T(IMAGE), "weight": T((6, 4, 3, 2))},
        {},
        {"stride": (2, 3), "padding": (1, 0)},
        {"stride": (2,), "padding": (1,)},
    ),
    ("aten.conv2d.padding", {"input": T(IMAGE), "weight": T((6, 4, 3, 2)), "padding": "valid"}),
    ("aten.conv2d.padding", {"input": T(IMAGE), "weight": T((6, 4, 3, 2)), "padding": "same"}),
    *each("aten.max_pool1d.default", POOL_1D, {}, {"ceil_mode": True}),
    *each("aten.avg_pool1d.default", POOL_1D, {}, {"ceil_mode": True}),
    *each("aten.max_pool2d.default", POOL_2D, *POOLED_2D),
    *each("aten.avg_pool2d.default", POOL_2D, *POOLED_2D),
    ("aten.max_pool1d.default", {"self": T(SERIES), "kernel_size": (3,), "dilation": (2,)}),
    ("aten.adaptive_avg_pool1d.default", {"self": T(SERIES), "output_size": (3,)}),
    ("aten.adaptive_avg_pool2d.default", {"self": T(IMAGE), "output_size": (3, 1)}),
    (
        "aten.gru.input",
        {"input": T((2, 5, 3)), "hx": T((4, 2, 6)), "params": weights(3, 3, 6), **RNN},
    ),
    (
        "aten.lstm.input",
        {"input": T((2, 5, 3)), "hx": [(4, 2, 6)] * 2, "params": weights(4, 3, 6), **RNN},
    ),
    ("aten.group_norm.default", {"input": T(IMAGE), "num_groups": 2, "weight": T((4,))}),
    ("aten.layer_norm.default", {"input": T(IMAGE), "normalized_shape": (9, 8)}),
    ("aten.dropout.default", {"input": T((2, 3)), "p": 0.5, "train": True}),
    *[case for name in UNARY for case in each(f"aten.{name}.default", {"self": T((2, 3))}, {})],
    ("aten.clamp.default", {"self": T((2, 3)), "min": 0.0, "max": None}),
    ("aten.pow.Tensor_Scalar", {"self": T((2, 3)), "exponent": 2}),
    ("aten.softmax.int", {"self": T((2, 3)), "dim": -1}),
    ("aten.log_softmax.int", {"self": T((2, 3)), "dim": 1}),
    *[
        case
        for name in ("add", "sub", "mul", "div")
        for case in each(
            f"aten.{name}.Tensor", {"self": T((2, 1, 3))}, {"other": T((5, 1))}, {"other": 2.5}
        )
    ],
    ("aten.rsub.Scalar", {"self": T((2, 3)), "other": 1}),
    ("aten.mean.default", {"self": T((2, 3))}),
    ("aten.mean.dim", {"self": T(IMAGE), "dim": (-1, 2)}),
    ("aten.mean.dim", {"self": T(IMAGE), "dim": (1,), "keepdim": True}),
    ("aten.sum.default", {"self": T((2, 3))}),
    ("aten.sum.dim_IntList", {"self": T(IMAGE), "dim": None, "keepdim": True}),
    ("aten.amax.default", {"self": T(IMAGE), "dim": (1, 3)}),
    ("aten.view.default", {"self": T((2, 12)), "size": (2, -1, 3)}),
    ("aten.reshape.default", {"self": T((2, 12)), "shape": (4, 6)}),
    ("aten.expand.default", {"self": T((2, 1, 3)), "size": (5, -1, 4, 3)}),
    ("aten.flatten.using_ints", {"self": T(IMAGE), "start_dim": 1, "end_dim": 2}),
    ("aten.unflatten.int", {"self": T(IMAGE), "dim": 3, "sizes": (2, -1)}),
    ("aten.permute.default", {"self": T(IMAGE), "dims": (0, -1, 1, 2)}),
    ("aten.transpose.int", {"self": T(IMAGE), "dim0": 1, "dim1": -1}),
    ("aten.t.default", {"self": T((2, 3))}),
    ("aten.unsqueeze.default", {"self": T((2, 3)), "dim": -1}),
    ("aten.squeeze.dim", {"self": T((2, 1, 3)), "dim": 1}),
    ("aten.squeeze.dim", {"self": T((2, 1, 3)), "dim": 2}),
    ("aten.cat.default", {"tensors": [(2, 3), (2, 5)], "dim": -1}),
    ("aten.stack.default", {"tensors": [(2, 3), (2, 3)], "dim": -1}),
    ("aten.slice.Tensor", {"self": T(SERIES), "dim": 2, "start": -9, "end": 2**63 - 1, "step": 2}),
    ("aten.select.int", {"self": T(SERIES), "dim": 1, "index": -1}),
    ("aten.unbind.int", {"self": T(SERIES), "dim": 1}),
    ("aten.chunk.default", {"self": T(SERIES), "chunks": 4, "dim": 2}),
    ("aten.split.Tensor", {"self": T(SERIES), "split_size": 4, "dim": 2}),
    ("aten.split_with_sizes.default", {"self": T(SERIES), "split_sizes": (4, 7), "dim": 2}),
    ("aten.zeros.default", {"size": (2, 3)}),
    ("aten.ones.default", {"size": (2, 3)}),
]
COMPOSED = {"aten.sym_size.int", "getitem"}


def build(op: str, args: dict[str, object]) -> tuple[Graph, Manifest, list[Shape]]:
    """A graph of this one call, its tensors as parameters."""
    shapes: list[Shape] = []

    def value(argument: object) -> Value:
        if isinstance(argument, T):
            shapes.append(tuple(argument))
            return Param(f"p{len(shapes) - 1}")
        if isinstance(argument, list):
            return tuple(value(T(shape)) for shape in argument)
        assert argument is None or isinstance(argument, bool | int | float | str | tuple)
        return argument

    nodes = [Node("call", op, {name: value(argument) for name, argument in args.items()})]
    table, offset = [], 0
    for index, shape in enumerate(shapes or [(1,)]):
        table.append(Parameter(name=f"p{index}", shape=shape, offset=offset))
        offset += table[-1].size
    manifest = Manifest(
        format=1,
        name="m",
        task="regression",
        input_shape=(6,),
        dtype="float32",
        outputs=("y",),
        preprocessing=Preprocessing(),
        loss="mse",
        metric="rmse",
        parameters=tuple(table),
        sha256=dict.fromkeys(("graph.json", "infer.onnx", "params.bin"), "0" * 64),
        built_with="",
    )
    return Graph(tuple(nodes), nodes[-1].name), manifest, shapes


def outcome(graph: Graph, params: dict[str, Any]) -> Shape:
    """The shape that torch gives."""
    return tuple(run(compile_graph(graph), params, torch.ones(2, 6), training=True).shape)


@pytest.mark.parametrize(("op", "args"), CASES)
def test_a_rule_gives_the_shape_that_torch_gives(op: str, args: dict[str, object]) -> None:
    graph, manifest, shapes = build(op, args)
    if OPERATORS[op].result == "tensor":
        check(graph, manifest)
    inferred = infer_shapes(graph, manifest, 2)["call"]
    params = {f"p{index}": torch.ones(shape) for index, shape in enumerate(shapes)}
    if isinstance(inferred, list):
        for index, shape in enumerate(inferred):
            got = Node("got", "getitem", {"self": Ref("call"), "index": index})
            assert outcome(Graph((*graph.nodes, got), "got"), params) == shape
        beyond = Node("got", "getitem", {"self": Ref("call"), "index": len(inferred)})
        with pytest.raises(IndexError):
            outcome(Graph((*graph.nodes, beyond), "got"), params)
    else:
        assert outcome(graph, params) == inferred


def test_every_operator_has_a_case() -> None:
    assert {op for op, _ in CASES} | COMPOSED == set(OPERATORS)


def test_a_length_can_be_taken_from_the_batch() -> None:
    _, manifest, _ = build("aten.zeros.default", {"size": (1,)})
    graph = Graph(
        (
            Node("n", "aten.sym_size.int", {"self": Ref("x"), "dim": 0}),
            Node("y", "aten.view.default", {"self": Ref("x"), "size": (Ref("n"), 2, 3)}),
        ),
        "y",
    )
    check(graph, manifest)
    assert infer_shapes(graph, manifest, 5)["y"] == (5, 2, 3)
    assert run(compile_graph(graph), {}, torch.ones(5, 6), training=False).shape == (5, 2, 3)


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("aten.linear.default", {"input": T((2, 4)), "weight": T((7, 3))}),
        ("aten.mm.default", {"self": T((3, 4)), "mat2": T((3, 4))}),
        ("aten.conv1d.default", {"input": T(SERIES), "weight": T((6, 3, 3))}),
        ("aten.conv1d.default", {"input": T(SERIES), "weight": T((6, 4, 30))}),
        ("aten.max_pool1d.default", {"self": T(SERIES), "kernel_size": (3,), "padding": (2,)}),
        ("aten.group_norm.default", {"input": T(IMAGE), "num_groups": 3}),
        ("aten.add.Tensor", {"self": T((2, 3)), "other": T((2, 4))}),
        ("aten.view.default", {"self": T((2, 12)), "size": (5, -1)}),
        ("aten.view.default", {"self": T((2, 12)), "size": (-1, -1)}),
        ("aten.permute.default", {"self": T((2, 3)), "dims": (0, 0)}),
        ("aten.select.int", {"self": T((2, 3)), "dim": 1, "index": 3}),
        ("aten.select.int", {"self": T((2, 3)), "dim": 2, "index": 0}),
        ("aten.cat.default", {"tensors": [(2, 3), (3, 3)], "dim": 1}),
        ("aten.split_with_sizes.default", {"self": T((2, 3)), "split_sizes": (1, 1), "dim": 1}),
        (
            "aten.gru.input",
            {"input": T((2, 5, 3)), "hx": T((4, 2, 6)), "params": weights(4, 3, 6), **RNN},
        ),
    ],
)
def test_what_torch_refuses_a_rule_refuses(op: str, args: dict[str, object]) -> None:
    graph, manifest, shapes = build(op, args)
    with pytest.raises(BadModel, match="'call'"):
        infer_shapes(graph, manifest, 2)
    params = {f"p{index}": torch.ones(shape) for index, shape in enumerate(shapes)}
    with pytest.raises((RuntimeError, IndexError)):
        outcome(graph, params)
