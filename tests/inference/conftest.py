"""Small models whose weights are external data, made on the spot."""

import hashlib
import itertools
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgechoir.types import Floats

Mlp = Callable[..., bytes]


def _external(name: str, shape: Sequence[int], offset: int, location: str) -> onnx.TensorProto:
    tensor = TensorProto()
    tensor.name = name
    tensor.data_type = TensorProto.FLOAT
    tensor.dims.extend(shape)
    tensor.data_location = TensorProto.EXTERNAL
    length = 4 * int(np.prod(shape))
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


@pytest.fixture(scope="session")
def mlp() -> Mlp:
    """mlp([4, 8, 3]) -> model bytes; ReLU between layers; `batch=1` fixes the batch size."""

    def make(
        sizes: Sequence[int], location: str = "params.bin", batch: str | int = "n", last: str = ""
    ) -> bytes:
        weights, nodes, offset, name = [], [], 0, "x"
        for layer, (m, n) in enumerate(itertools.pairwise(sizes)):
            weights.append(_external(f"w{layer}", (m, n), offset, location))
            weights.append(_external(f"b{layer}", (n,), offset + 4 * m * n, location))
            offset += 4 * (m * n + n)
            nodes.append(helper.make_node("Gemm", [name, f"w{layer}", f"b{layer}"], [f"z{layer}"]))
            name = f"z{layer}"
            if layer < len(sizes) - 2:
                nodes.append(helper.make_node("Relu", [name], [f"a{layer}"]))
                name = f"a{layer}"
        if last:
            nodes.append(helper.make_node(last, [name], ["y"]))
            name = "y"
        graph = helper.make_graph(
            nodes,
            "mlp",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, sizes[0]])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return bytes(model.SerializeToString())

    return make


@pytest.fixture(scope="session")
def weights() -> Callable[..., Floats]:
    """weights([4, 8, 3], seed) -> flat vector [d] in the order w0, b0, w1, b1."""

    def make(sizes: Sequence[int], seed: int = 0) -> Floats:
        d = sum(m * n + n for m, n in itertools.pairwise(sizes))
        return (0.1 * np.random.default_rng(seed).standard_normal(d)).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def digest() -> Callable[[Floats], bytes]:
    return lambda params: hashlib.sha256(params.tobytes()).digest()
