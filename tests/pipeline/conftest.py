"""A clock that the test moves, and a linear model as small as can be."""

from collections.abc import Callable

import numpy as np
import pytest
from onnx import TensorProto, helper

from edgechoir.inference.prediction import Output
from edgechoir.inference.predictor import Predictor
from edgechoir.pipeline.clock import Clock


class Hands:
    """The hands of a clock: sleeping moves them, and a test may set them forward."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds

    def clock(self) -> Clock:
        return Clock(lambda: self.time, lambda: self.time, self.sleep)


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture(scope="session")
def linear() -> Callable[..., Predictor]:
    """linear((2,)) answers with the sum of the sample's values."""

    def make(shape: tuple[int, ...], deadline: float = 60.0) -> Predictor:
        n = int(np.prod(shape))
        w = TensorProto()
        w.name, w.data_type, w.data_location = "w", TensorProto.FLOAT, TensorProto.EXTERNAL
        w.dims.extend([n, 1])
        for key, value in (("location", "params.bin"), ("offset", "0"), ("length", str(4 * n))):
            entry = w.external_data.add()
            entry.key, entry.value = key, value
        graph = helper.make_graph(
            [
                helper.make_node("Flatten", ["x"], ["flat"]),
                helper.make_node("MatMul", ["flat", "w"], ["y"]),
            ],
            "linear",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [w],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        return Predictor(
            model.SerializeToString(),
            np.ones(n, dtype=np.float32),
            1,
            shape=shape,
            output=Output.VALUES,
            deadline=deadline,
        )

    return make
