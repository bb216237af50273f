"""A bundle of trees: the forest is its parameter vector, and ONNX's own operators walk it.

Not TreeEnsemble of ai.onnx.ml, whose splits are attributes of the model: they could not be
exchanged like weights while the device answers, nor be checked and signed like them.
Needs the package onnx (the extra `train`).
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.manifest import (
    GRAPH,
    MANIFEST,
    ONNX,
    PARAMS,
    TASK_LOSSES,
    TASK_METRIC,
    TREES_GRAPH,
    Manifest,
    Parameter,
    Preprocessing,
    Task,
    Trees,
)
from edgechoir.errors import OperatorError

OPSET: Final = 18


def build_trees(
    out: Path, name: str, task: Task, columns: int, outputs: tuple[str, ...], count: int, depth: int
) -> Bundle:
    """Write a forest of `count` trees that says nothing yet into the directory `out`.

    Raises OperatorError.
    """
    if find_spec("onnx") is None:
        raise OperatorError("building a bundle needs onnx: pip install 'edgechoir[train]'")
    scores = 1 if task == "classification" and len(outputs) == 2 else len(outputs)
    if count % max(scores, 1):
        raise OperatorError(f"{count} trees for {scores} outputs: give a multiple of {scores}")
    if not (1 <= depth <= 10 and 1 <= count <= 10_000 and columns >= 1):
        raise OperatorError(
            f"{count} trees of depth {depth} over {columns} columns; expected 1 to 10000 trees of "
            "depth 1 to 10, and one column or more"
        )
    nodes, leaves = 2**depth - 1, 2**depth
    shapes = {
        "bias": (scores,),
        "features": (count, nodes),
        "thresholds": (count, nodes),
        "leaves": (count, leaves),
    }
    table, at = [], 0
    for word, shape in shapes.items():
        table.append(Parameter(name=word, shape=shape, offset=at))
        at += int(np.prod(shape))
    params = np.zeros(at, np.float32)
    begin = table[2].offset
    params[begin : begin + table[2].size] = np.finfo(np.float32).max  # splits nothing
    files = {
        GRAPH: TREES_GRAPH,
        ONNX: _onnx(table, columns, len(outputs), scores, count, depth),
        PARAMS: params.tobytes(),
    }
    try:
        manifest = Manifest(
            format=1,
            name=name,
            task=task,
            input_shape=(columns,),
            dtype="float32",
            outputs=outputs,
            preprocessing=Preprocessing(),
            loss=TASK_LOSSES[task][0],
            metric=TASK_METRIC[task],
            parameters=tuple(table),
            sha256={word: hashlib.sha256(data).hexdigest() for word, data in files.items()},
            built_with="edgechoir",
            trees=Trees(count=count, depth=depth),
        )
    except ValidationError as error:
        raise OperatorError(f"{name}: {error.errors()[0]['msg']}") from None
    out.mkdir(parents=True, exist_ok=True)
    for word, data in files.items():
        (out / word).write_bytes(data)
    (out / MANIFEST).write_bytes(manifest.to_json())
    return load_bundle(out)


def _onnx(
    table: list[Parameter], columns: int, outputs: int, scores: int, count: int, depth: int
) -> bytes:
    """Level by level: where each row is in every tree, [batch, trees]."""
    from onnx import TensorProto, helper, numpy_helper

    nodes_in, leaves_in = 2**depth - 1, 2**depth
    constants: dict[str, np.ndarray] = {
        "flat": np.array([-1], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "inner": np.arange(count, dtype=np.int64)[None] * nodes_in,
        "outer": np.arange(count, dtype=np.int64)[None] * leaves_in - nodes_in,
        "grouped": np.array([-1, count // scores, scores], np.int64),
    }
    made: list[Any] = []

    def op(kind: str, out: str, *inputs: str, **attributes: Any) -> str:
        made.append(helper.make_node(kind, list(inputs), [out], **attributes))
        return out

    op("Cast", "features_int", op("Reshape", "f", "features", "flat"), to=TensorProto.INT64)
    op("Reshape", "thresholds_flat", "thresholds", "flat")
    op("Reshape", "leaves_flat", "leaves", "flat")
    # [batch, trees] of zeros: the first column of x, times nothing, for its batch size.
    batch = op("Shape", "batch", "x", start=0, end=1)
    constants["trees"] = np.array([count], np.int64)
    shape = op("Concat", "shape", batch, "trees", axis=0)
    zero = numpy_helper.from_array(np.zeros(1, np.int64))
    node = op("ConstantOfShape", "node_0", shape, value=zero)
    for level in range(depth):
        at = op("Add", f"at_{level}", node, "inner")
        feature = op("Gather", f"feature_{level}", "features_int", at)
        threshold = op("Gather", f"threshold_{level}", "thresholds_flat", at)
        value = op("GatherElements", f"value_{level}", "x", feature, axis=1)
        right = op("Greater", f"right_{level}", value, threshold)
        step = op("Cast", f"step_{level}", right, to=TensorProto.INT64)
        twice = op("Mul", f"twice_{level}", node, "two")
        left = op("Add", f"left_{level}", twice, "one")
        node = op("Add", f"node_{level + 1}", left, step)
    leaf = op("Gather", "leaf", "leaves_flat", op("Add", "leaf_at", node, "outer"))
    groups = op("Reshape", "groups", leaf, "grouped")
    sums = op("ReduceSum", "sums", groups, "one", keepdims=0)
    if scores == outputs:
        op("Add", "y", sums, "bias")
    else:  # two classes: half the score for one, half against the other
        constants["halves"] = np.array([[-0.5, 0.5]], np.float32)
        op("MatMul", "y", op("Add", "score", sums, "bias"), "halves")
    graph = helper.make_graph(
        made,
        "trees",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", columns])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", outputs])],
        [
            *(_external(place) for place in table),
            *(numpy_helper.from_array(value, word) for word, value in constants.items()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    return bytes(model.SerializeToString(deterministic=True))


def _external(place: Parameter) -> Any:
    from onnx import TensorProto

    tensor = TensorProto(name=place.name, data_type=TensorProto.FLOAT, dims=place.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", PARAMS),
        ("offset", str(4 * place.offset)),
        ("length", str(4 * place.size)),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor
