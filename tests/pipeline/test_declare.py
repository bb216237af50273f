import asyncio
import math
from collections.abc import Sequence

import pytest

from edgechoir.errors import OperatorError
from edgechoir.pipeline.declare import OPERATORS, declare_steps
from edgechoir.pipeline.flow import Flow, Outflow
from edgechoir.pipeline.run import Pipeline
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sink import Sink
from edgechoir.pipeline.source import find_function
from edgechoir.pipeline.sources.python import PythonSource

EXAMPLES: list[dict[str, object]] = [
    {"op": "reorder", "seconds": 2.0},
    {"op": "select", "indices": [0, 1]},
    {"op": "scale", "offset": 1, "factor": [2.0, 2.0]},
    {"op": "range", "minimum": -100},
    {"op": "deadband", "width": 0.5, "silence": 60},
    {"op": "deadtime", "seconds": 0.5},
    {"op": "valve", "control": "sensor"},
    {"op": "map", "function": "numpy:negative"},
    {"op": "filter", "function": "builtins:bool"},
    {"op": "flat-map", "function": "builtins:list"},
    {"op": "split", "function": "builtins:str", "outputs": ["hot", "cold"]},
    {"op": "union", "input": ["split.hot", "split.cold"]},
    {"op": "join", "latest": "sensor", "max_age": 60.0},
    {"op": "relief", "size": 5, "drop": "newest"},
    {"op": "window", "count": 2, "flatten": True},
    {"op": "window", "seconds": 5.0, "every": 1.0, "summary": ["mean"]},
    {"op": "infer"},
    {"op": "answer", "name": "out"},
]


def nothing() -> Flow:
    flow = Flow()
    flow.source("sensor", PythonSource(list))
    return flow


def declare(entries: list[dict[str, object]]) -> Flow:
    flow = nothing()
    declare_steps(flow, entries, None)
    return flow


def test_every_operator_can_be_declared() -> None:
    flow = declare(EXAMPLES)
    assert {entry["op"] for entry in EXAMPLES} == set(OPERATORS)
    assert [step.name for step in flow.steps][-4:] == ["window", "window-2", "infer", "out"]
    assert flow.steps[1].inputs == ("reorder",)
    assert flow.steps[6].side == ("sensor",)


def test_declared_steps_run_and_the_model_comes_last_where_it_is_left_out() -> None:
    got: list[list[float]] = []

    class Listener:
        name = "listener"

        async def write(self, samples: Sequence[Sample]) -> None:
            got.extend(sample.x.tolist() for sample in samples)

        async def close(self) -> None:
            return None

    flow = Flow()
    source = PythonSource(lambda: [[1.0, 2.0, 3.0]])
    flow.source("sensor", source)
    steps: list[dict[str, object]] = [
        {"op": "select", "indices": [0, 1]},
        {"op": "scale", "offset": 1, "factor": [2.0, 2.0]},
        {"op": "map", "function": "numpy:negative"},
    ]
    assert declare_steps(flow, steps, None) == "infer"
    sink: Sink = Listener()
    flow.sink(Outflow(sink, ("infer",)))
    asyncio.run(Pipeline(flow).run())
    assert got == [[0, -2]]


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"op": "windw"}, "operator 1: unknown op 'windw'; use one of window"),
        ({"count": 3}, "unknown op None"),
        ({"op": "window", "cnt": 3}, "unknown argument 'cnt'; allowed are count, step"),
        ({"op": "window", "count": "3"}, "argument 'count'.*integer"),
        ({"op": "window", "count": True}, "argument 'count'.*integer"),
        ({"op": "window"}, "either 'count' or 'seconds'"),
        ({"op": "window", "count": 3, "seconds": 1.0}, "either 'count' or 'seconds'"),
        ({"op": "window", "count": 3, "every": 1.0}, "'every' belongs to 'seconds'"),
        ({"op": "window", "seconds": 3, "step": 1, "summary": ["mean"]}, "belong to 'count'"),
        ({"op": "window", "count": 3, "summary": ["mean"], "flatten": True}, "no meaning"),
        ({"op": "window", "count": 3, "summary": ["median"]}, "unknown summary 'median'"),
        ({"op": "window", "seconds": 3}, "needs a summary"),
        ({"op": "scale", "input": "sensr"}, "'sensr', which is not declared before it"),
        ({"op": "scale", "name": "sensor"}, "'sensor' is taken"),
        ({"op": "scale", "name": "A b"}, "is no name"),
        ({"op": "scale", "input": []}, "has no input"),
        ({"op": "join", "latest": "later"}, "'later', which is not declared"),
        ({"op": "reorder", "seconds": 0}, "use above 0"),
        ({"op": "relief", "drop": "some"}, "argument 'drop'"),
        ({"op": "split", "function": "builtins:str", "outputs": ["a"]}, "two or more names"),
        ({"op": "deadband"}, "argument 'width'.*required"),
        ({"op": "deadband", "width": -1.0}, "width is -1.0"),
        ({"op": "range"}, "give 'minimum', 'maximum' or both"),
        ({"op": "select", "indices": []}, "argument 'indices'"),
        ({"op": "map", "function": "nowhere"}, "package.module:function"),
        ({"op": "map", "function": "no.such:thing"}, "cannot be imported"),
        ({"op": "map", "function": "math:pi"}, "not a function"),
    ],
)
def test_declaration_that_cannot_work_says_what_is_wrong(
    entry: dict[str, object], says: str
) -> None:
    with pytest.raises(OperatorError, match=says):
        declare([entry])


def test_error_names_the_position() -> None:
    with pytest.raises(OperatorError, match=r"operator 2 \(deadtime\)"):
        declare([{"op": "range", "minimum": 0}, {"op": "deadtime", "seconds": 0}])


def test_function_is_found_by_its_reference() -> None:
    assert find_function("math:sqrt") is math.sqrt
