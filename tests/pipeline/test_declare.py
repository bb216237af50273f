import math

import pytest

from edgechoir.errors import OperatorError
from edgechoir.pipeline.declare import OPERATORS, build_operators
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.source import find_function

EXAMPLES: list[dict[str, object]] = [
    {"op": "select", "indices": [0, 1]},
    {"op": "scale", "offset": 1, "factor": [2.0, 2.0]},
    {"op": "range", "minimum": -100},
    {"op": "deadband", "width": 0.5, "silence": 60},
    {"op": "deadtime", "seconds": 0.5},
    {"op": "map", "function": "numpy:negative"},
    {"op": "filter", "function": "builtins:bool"},
    {"op": "window", "count": 2, "flatten": True},
    {"op": "window", "seconds": 5.0, "every": 1.0, "summary": ["mean"]},
]


def test_every_operator_can_be_declared_and_the_chain_runs() -> None:
    built = build_operators(EXAMPLES)
    assert {entry["op"] for entry in EXAMPLES} == set(OPERATORS)
    assert [name for name, _ in built][-2:] == ["window", "window-2"]
    sample: Sample | None = Sample("a", 0.0, as_values([1, 2, 3]))
    for _, operator in built[:-2]:
        assert sample is not None
        sample = operator(sample)
    assert sample is not None
    assert sample.x.tolist() == [0, -2]


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
        build_operators([entry])


def test_error_names_the_position() -> None:
    with pytest.raises(OperatorError, match=r"operator 2 \(deadtime\)"):
        build_operators([{"op": "range", "minimum": 0}, {"op": "deadtime", "seconds": 0}])


def test_function_is_found_by_its_reference() -> None:
    assert find_function("math:sqrt") is math.sqrt
