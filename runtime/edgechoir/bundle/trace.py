"""A torch module as a training graph, by torch.export.

torch.export gives a graph of aten calls, still in training mode (dropout is there, a GRU is one
call). Here each call is written down with its arguments by name, and refused by name and source
line if it is not on the list: what is refused here would be refused by every device.
"""

import operator
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch._dynamo.exc import UserError

from edgechoir.bundle.graph import INPUT, Graph, Node, Param, Ref, Value
from edgechoir.bundle.operators import OPERATORS
from edgechoir.errors import OperatorError

if TYPE_CHECKING:
    from torch.export import ExportedProgram

MAX_BATCH: Final = 65536
_DROPPED: Final = {"dtype", "layout", "device", "pin_memory", "memory_format"}
"""Where a result lives and in what type: always this machine's memory, always float32."""
_CHECKS: Final = {"aten._assert_scalar.default", "aten._assert_tensor_metadata.default"}
"""Run-time assertions that torch.export adds about shapes; the device checks shapes itself."""
_ADVICE: Final[Mapping[str, str]] = {
    "aten.batch_norm.default": "use nn.GroupNorm: running statistics are no parameters, and they "
    "would leave the device",
    "aten.embedding.default": "feed the model one-hot rows and use nn.Linear(bias=False)",
}


def trace(module: torch.nn.Module, example: torch.Tensor, source: Path) -> Graph:
    """The training graph of `module` on inputs like `example` [batch, ...], batch left open.

    `source` is the model file, for the messages. Raises OperatorError naming the operator and line.
    """
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    try:
        program = torch.export.export(module, (example,), dynamic_shapes=({0: batch},))
    except (UserError, RuntimeError, TypeError, ValueError) as error:
        raise OperatorError(
            f"{source}: torch.export cannot follow this model: {str(error)[:2000]}"
        ) from error
    return _graph(program, _canonical_names(module), source)


def _canonical_names(module: torch.nn.Module) -> dict[str, str]:
    """Every name of each parameter -> its first: tied weights are one parameter."""
    first: dict[int, str] = {}
    for name, parameter in module.named_parameters():
        first[id(parameter)] = name
    return {
        name: first[id(parameter)]
        for name, parameter in module.named_parameters(remove_duplicate=False)
    }


def _graph(program: "ExportedProgram", names: Mapping[str, str], source: Path) -> Graph:
    values: dict[torch.fx.Node, Ref | Param] = {}
    placeholders = [node for node in program.graph.nodes if node.op == "placeholder"]
    for node, spec in zip(placeholders, program.graph_signature.input_specs, strict=True):
        match spec.kind.name:
            case "PARAMETER":
                values[node] = Param(names[str(spec.target)])
            case "USER_INPUT":
                values[node] = Ref(INPUT)
            case _ if node.users:
                user = next(iter(node.users))
                raise OperatorError(
                    f"{source}: {spec.target!r} is a {spec.kind.name.lower().replace('_', ' ')} "
                    f"({_where(user, source)}), and only parameters travel in a bundle; "
                    f"{_ADVICE.get(_op(user), 'make it an nn.Parameter or a plain number')}"
                )
    [output] = [node for node in program.graph.nodes if node.op == "output"]
    results = output.args[0]
    if (
        len(results) != 1
        or not isinstance(results[0], torch.fx.Node)
        or results[0] not in _calls(program)
    ):
        raise OperatorError(f"{source}: model() must compute one tensor [batch, outputs]")
    needed = _needed(results[0])
    nodes = []
    for node in _calls(program):
        if node not in needed:
            _refuse_side_effect(node, source)
            continue
        nodes.append(_node(node, values, source))
        values[node] = Ref(node.name)
    return Graph(tuple(nodes), results[0].name)


def _calls(program: "ExportedProgram") -> list[torch.fx.Node]:
    return [node for node in program.graph.nodes if node.op == "call_function"]


def _needed(output: torch.fx.Node) -> set[torch.fx.Node]:
    seen, todo = {output}, [output]
    while todo:
        fresh = [node for node in todo.pop().all_input_nodes if node not in seen]
        seen.update(fresh)
        todo += fresh
    return seen


def _op(node: torch.fx.Node) -> str:
    if node.target is operator.getitem:
        return "getitem"
    return str(node.target)


def _refuse_side_effect(node: torch.fx.Node, source: Path) -> None:
    """A call whose result nobody uses can be left out unless it writes somewhere."""
    if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
        raise OperatorError(
            f"{source}: {_op(node)} ({_where(node, source)}) writes in place; "
            f"{_ADVICE.get(_op(node), 'write it without the trailing underscore or inplace=True')}"
        )


def _node(node: torch.fx.Node, values: Mapping[torch.fx.Node, Ref | Param], source: Path) -> Node:
    op = _op(node)
    if op == "getitem":
        names = ["self", "index"]
    elif op in OPERATORS and isinstance(node.target, torch._ops.OpOverload):
        names = [argument.name for argument in node.target._schema.arguments]
    else:
        _refuse_side_effect(node, source)
        raise OperatorError(
            f"{source}: operator {op} ({_where(node, source)}) is not among those a device may "
            f"run; {_ADVICE.get(op, 'the list stands in edgechoir/bundle/operators.py')}"
        )
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    for name in _DROPPED & given.keys():
        if isinstance(given[name], torch.dtype) and given[name] != torch.float32:
            raise OperatorError(
                f"{source}: {op} ({_where(node, source)}) asks for {given[name]}; "
                "a bundle computes in float32"
            )
        del given[name]
    try:
        return Node(node.name, op, {name: _value(arg, values) for name, arg in given.items()})
    except TypeError as error:
        raise OperatorError(f"{source}: {op} ({_where(node, source)}): {error}") from error


def _value(argument: object, values: Mapping[torch.fx.Node, Ref | Param]) -> Value:
    match argument:
        case torch.fx.Node():
            return values[argument]
        case list() | tuple():
            return tuple(_value(item, values) for item in argument)
        case None | bool() | int() | float() | str():
            return argument
    raise TypeError(f"an argument of type {type(argument).__name__} cannot be written down")


def _where(node: torch.fx.Node, source: Path) -> str:
    """The line of the model file that made the call, else the module that did."""
    trail = str(node.meta.get("stack_trace") or "")
    lines = [line.strip() for line in trail.splitlines()]
    own = [line for line in lines if line.startswith("File ") and str(source.resolve()) in line]
    if own:
        return "line " + own[-1].split("line ")[1].split(",")[0]
    stack = node.meta.get("nn_module_stack") or {}
    modules = [f"module {name!r}, {kind}" for name, kind in stack.values() if name]
    return modules[-1] if modules else "in model()"
