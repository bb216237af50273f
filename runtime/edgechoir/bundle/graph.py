"""graph.json: the training graph, and the checks it must pass before anything runs it.

    {"format": 1, "nodes": [{"name": "relu", "op": "aten.relu.default",
                             "args": {"self": {"value": "linear"}}}, ...], "output": "linear_1"}

`{"value": name}` is the result of an earlier node, or "x", the input [batch, *input_shape];
`{"param": name}` is a tensor of the manifest. A node may only name what stands before it, so the
graph has no cycle and one pass in order runs it. The output is [batch, outputs].
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from edgechoir.bundle.manifest import GRAPH, MAX_BYTES, Manifest
from edgechoir.bundle.operators import OPERATORS, Argument, Result
from edgechoir.errors import BadModel

INPUT: Final = "x"
MAX_NODES: Final = 4096
MAX_ELEMENTS: Final = 1 << 26
"""Elements of one value in the graph."""
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_INT64: Final = (-(2**63), 2**63 - 1)
_LIST_MAX: Final = 1024


@dataclass(frozen=True, slots=True)
class Ref:
    """The result of an earlier node, or the input."""

    name: str


@dataclass(frozen=True, slots=True)
class Param:
    """A parameter of the manifest."""

    name: str


Value = None | bool | int | float | str | Ref | Param | tuple["Value", ...]


@dataclass(frozen=True, slots=True)
class Node:
    """One call; `args` by the operator's own argument names, defaults left out."""

    name: str
    op: str
    args: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in the order in which they run, and the name of the one that is the output."""

    nodes: tuple[Node, ...]
    output: str


def dump_graph(graph: Graph) -> bytes:
    """graph.json, the same bytes for the same graph."""
    nodes = [
        {"name": n.name, "op": n.op, "args": {k: _plain(v) for k, v in n.args.items()}}
        for n in graph.nodes
    ]
    rows = ",\n  ".join(json.dumps(node, allow_nan=False) for node in nodes)
    return f'{{"format": 1, "nodes": [\n  {rows}\n], "output": "{graph.output}"}}\n'.encode()


def parse_graph(data: bytes, manifest: Manifest) -> Graph:
    """Read and check graph.json against its manifest. Raises BadModel naming the node."""
    if len(data) > MAX_BYTES[GRAPH]:
        _refuse(f"{len(data)} bytes, at most {MAX_BYTES[GRAPH]} are allowed")
    try:
        document = json.loads(data, parse_constant=lambda word: _refuse(f"{word} is no number"))
    except (ValueError, RecursionError) as error:
        raise BadModel(f"{GRAPH}: not JSON: {error}") from error
    if not isinstance(document, dict) or set(document) != {"format", "nodes", "output"}:
        _refuse("expected an object with format, nodes and output")
    if document["format"] != 1 or isinstance(document["format"], bool):
        _refuse(f"format {document['format']!r}, this version reads 1")
    rows = document["nodes"]
    if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_NODES:
        _refuse(f"nodes must be a list of 1 to {MAX_NODES}")
    graph = Graph(tuple(map(_node, rows)), str(document["output"]))
    check_graph(graph, manifest)
    return graph


def check_graph(graph: Graph, manifest: Manifest) -> None:
    """Every node is an allowed operator with allowed arguments of what stands before it.

    Raises BadModel.
    """
    params = {parameter.name for parameter in manifest.parameters}
    known: dict[str, Result] = {INPUT: "tensor"}
    for node in graph.nodes:
        if not _NAME.fullmatch(node.name) or node.name in known:
            _refuse(f"node name {node.name!r:.120} is malformed or taken")
        operator = OPERATORS.get(node.op)
        if operator is None:
            _refuse(f"node {node.name!r}: operator {node.op!r:.120} is not allowed")
        for name in node.args:
            if name not in operator.arguments:
                _refuse(f"node {node.name!r}: {node.op} has no argument {name!r:.120}")
        for name, argument in operator.arguments.items():
            if name not in node.args:
                if argument.required:
                    _refuse(f"node {node.name!r}: {node.op} lacks its argument {name!r}")
            elif not _fits(node.args[name], argument, known, params):
                _refuse(
                    f"node {node.name!r}: {name}={node.args[name]!r:.200} of {node.op} "
                    f"is not a valid {argument.kind} here"
                )
        known[node.name] = operator.result
    if known.get(graph.output) != "tensor":
        _refuse(f"output {graph.output!r:.120} is not a tensor of the graph")


def _refuse(reason: str) -> NoReturn:
    raise BadModel(f"{GRAPH}: {reason}")


def _node(row: object) -> Node:
    if not isinstance(row, dict) or set(row) != {"name", "op", "args"}:
        _refuse("a node must be an object with name, op and args")
    name, op, args = row["name"], row["op"], row["args"]
    if not (isinstance(name, str) and isinstance(op, str) and isinstance(args, dict)):
        _refuse("a node's name and op must be strings, and its args an object")
    return Node(name, op, {key: _value(value, 2) for key, value in args.items()})


def _value(value: object, depth: int) -> Value:
    match value:
        case None | bool() | int() | float() | str():
            return value
        case {"value": str(name), **rest} if not rest:
            return Ref(name)
        case {"param": str(name), **rest} if not rest:
            return Param(name)
        case list() if depth > 0 and len(value) <= _LIST_MAX:
            return tuple(_value(item, depth - 1) for item in value)
    _refuse(f"{value!r:.120} is no argument: too deep, too long or of an unknown kind")


def _plain(value: Value) -> object:
    match value:
        case Ref(name):
            return {"value": name}
        case Param(name):
            return {"param": name}
        case tuple():
            return [_plain(item) for item in value]
    return value


def _fits(value: Value, argument: Argument, known: Mapping[str, Result], params: set[str]) -> bool:
    if value is None:
        return argument.nullable

    def is_tensor(v: Value) -> bool:
        return (isinstance(v, Ref) and known.get(v.name) == "tensor") or (
            isinstance(v, Param) and v.name in params
        )

    match argument.kind:
        case "tensor":
            return is_tensor(value)
        case "operand":
            return is_tensor(value) or _is_float(value)
        case "tensors":
            return isinstance(value, tuple) and bool(value) and all(map(is_tensor, value))
        case "tuple":
            return isinstance(value, Ref) and known.get(value.name) == "tensors"
        case "bool":
            return isinstance(value, bool)
        case "float":
            return _is_float(value)
        case "share":
            return _is_float(value) and isinstance(value, int | float) and 0 <= value <= 1
        case "axis":
            return _is_int(value, -8, 7)
        case "axes":
            return _is_int(value, -8, 7) or _are_ints(value, -8, 7, 8)
        case "count":
            return _is_int(value, 1, 65536)
        case "index":
            return _is_int(value, *_INT64)
        case "steps":
            return _are_ints(value, 1, 65536, 64)
        case "pads":
            return _are_ints(value, 0, 1024, 3)
        case "size":
            return _is_size(value, known)
        case words:
            return isinstance(value, str) and value in words.split("|")


def _is_int(value: Value, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _are_ints(value: Value, low: int, high: int, most: int) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) <= most
        and all(_is_int(item, low, high) for item in value)
    )


def _is_float(value: Value) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= 1e9  # false for NaN as well


def _is_size(value: Value, known: Mapping[str, Result]) -> bool:
    """Up to 8 lengths: -1 (torch works it out), a number, or the length another node asked for."""
    if not isinstance(value, tuple) or len(value) > 8:
        return False
    elements = 1
    for item in value:
        if isinstance(item, Ref) and known.get(item.name) == "int":
            continue
        if not isinstance(item, int) or not _is_int(item, -1, MAX_ELEMENTS):
            return False
        elements *= max(item, 1)
    return elements <= MAX_ELEMENTS
