"""Run a training graph on torch tensors.

A graph is a list of calls in order; running it is one loop. Autograd sees ordinary torch calls, so
training through the graph is training through the module it was traced from.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from edgechoir.bundle.graph import INPUT, Graph, Param, Ref, Value
from edgechoir.bundle.operators import OPERATORS
from edgechoir.errors import BadModel

Result = Tensor | tuple[Tensor, ...] | list[Tensor] | int
_MODE: Final = "train"
"""The argument by which dropout and the recurrent operators know whether they are training."""


@dataclass(frozen=True, slots=True)
class Step:
    """One call; `expired` names the values that nobody needs after it."""

    name: str
    call: Callable[..., Result]
    args: Mapping[str, Value]
    expired: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """A graph whose operators have been looked up."""

    steps: tuple[Step, ...]
    output: str


def compile_graph(graph: Graph) -> Program:
    """Look the operators up; only those in OPERATORS are reachable.

    Raises BadModel if this torch lacks one.
    """
    last: dict[str, str] = {graph.output: ""}
    for node in reversed(graph.nodes):
        for name in _names(tuple(node.args.values())):
            last.setdefault(name, node.name)
    return Program(
        tuple(
            Step(
                node.name,
                _callable(node.op),
                node.args,
                tuple(name for name, user in last.items() if user == node.name),
            )
            for node in graph.nodes
        ),
        graph.output,
    )


def run(program: Program, params: Mapping[str, Tensor], x: Tensor, *, training: bool) -> Tensor:
    """The graph's output for x [batch, *input_shape]; dropout acts only if `training`."""
    values: dict[str, Result] = {INPUT: x}
    for step in program.steps:
        args = {name: _resolve(value, values, params) for name, value in step.args.items()}
        if _MODE in args:
            args[_MODE] = bool(args[_MODE]) and training
        values[step.name] = step.call(**args)
        for name in step.expired:
            del values[name]
    output = values[program.output]
    if not isinstance(output, Tensor):
        raise BadModel(f"graph.json: output {program.output!r} is not a tensor")
    return output


def _callable(op: str) -> Callable[..., Result]:
    if op not in OPERATORS:
        raise BadModel(f"graph.json: operator {op!r:.120} is not allowed")
    if op == "getitem":
        return _getitem
    _, packet, overload = op.split(".")
    try:
        found: Callable[..., Result] = getattr(getattr(torch.ops.aten, packet), overload)
    except AttributeError as error:
        raise BadModel(
            f"graph.json: torch {torch.__version__} has no operator {op}; install the torch "
            "version with which the bundle was built"
        ) from error
    return found


def _getitem(self: list[Tensor] | tuple[Tensor, ...], index: int) -> Tensor:
    return self[index]


def _resolve(value: Value, values: Mapping[str, Result], params: Mapping[str, Tensor]) -> object:
    match value:
        case Ref(name):
            return values[name]
        case Param(name):
            return params[name]
        case tuple():
            return [_resolve(item, values, params) for item in value]
    return value


def _names(value: Value) -> list[str]:
    match value:
        case Ref(name):
            return [name]
        case tuple():
            return [name for item in value for name in _names(item)]
    return []
