"""An inference graph that multiplies in 8 bits, over the same float32 parameters.

Every dense layer with a weight of its own becomes

    y = (x_q - x_z) (W_q - W_z)^T * x_s * W_s + b

with q, scale s and zero z of `DynamicQuantizeLinear`: uint8, one scale a tensor (Jacob et al. 2018,
CVPR, section 2). What depends on W alone ONNX Runtime works out while it builds the session, and
so a new vector is exchanged under the model as ever. The scale of x is
that of the whole batch: a sample's answer varies a little with what it is asked with.
"""

from typing import Final

import onnx
from onnx import helper

from edgechoir.errors import OperatorError

TOLERANCE: Final = 0.1
"""Of the largest output: what 8 bits may cost on the example batch, or the build is refused."""


def quantised(data: bytes) -> bytes:
    """infer.onnx with its dense layers in 8 bits. Raises OperatorError: it has none."""
    model = onnx.load_model_from_string(data)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer if len(tensor.dims) == 2}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _in_8_bits(node) if _is_dense(node, weights) else [node]
    if len(nodes) == len(graph.node):
        raise OperatorError("this model has no dense layer to put into 8 bits: leave --int8 out")
    # extend() copies: what is read must not be cleared first.
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return bytes(model.SerializeToString(deterministic=True))


def _is_dense(node: onnx.NodeProto, weights: set[str]) -> bool:
    """x W^T + b, as torch exports a linear layer."""
    if node.op_type != "Gemm" or len(node.input) != 3 or node.input[1] not in weights:
        return False
    given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    plain = given.get("alpha", 1.0) == given.get("beta", 1.0) == 1.0
    return bool(plain and given.get("transB") == 1 and not given.get("transA"))


def _in_8_bits(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    x, w, b = node.input
    out = node.output[0]

    def name(what: str) -> str:
        return f"{out}.{what}"

    def quantise(of: str, what: str) -> onnx.NodeProto:
        parts = [name(f"{what}_{part}") for part in ("q", "s", "z")]
        return helper.make_node("DynamicQuantizeLinear", [of], parts)

    factors = [name(part) for part in ("x_q", "w_t", "x_z", "w_z")]
    return [
        quantise(w, "w"),
        helper.make_node("Transpose", [name("w_q")], [name("w_t")], perm=[1, 0]),
        quantise(x, "x"),
        helper.make_node("MatMulInteger", factors, [name("sum")]),
        helper.make_node("Cast", [name("sum")], [name("float")], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", [name("x_s"), name("w_s")], [name("s")]),
        helper.make_node("Mul", [name("float"), name("s")], [name("product")]),
        helper.make_node("Add", [name("product"), b], [out]),
    ]
