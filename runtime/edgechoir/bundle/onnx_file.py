"""Check infer.onnx without the onnx package: a walk over its protobuf wire format.

What must hold: one input "x", one output "y"; every weight is external data in params.bin at the
place the manifest gives it (so a new vector replaces all of them); no other tensor points to a
file; only standard operators. ONNX Runtime resolves a file name beside the model, so a location
such as "../../key" in a received model would read a file of the device: it is refused here.

What this does not check: how much memory the operators ask for when they run. A candidate proves
itself on a canary batch before it is used.

Field numbers are those of onnx.proto (ONNX IR version 10).
"""

from collections.abc import Iterator
from typing import Final

from edgechoir.bundle.manifest import ONNX, PARAMS, Manifest, Parameter
from edgechoir.errors import BadModel

INPUT: Final = "x"
OUTPUT: Final = "y"
_FLOAT: Final = 1
_EXTERNAL: Final = 1
_MAX_DEPTH: Final = 8

Field = tuple[int, int | memoryview]


def check_onnx(data: bytes, manifest: Manifest) -> None:
    """Raises BadModel naming the tensor or operator that does not fit."""
    graphs = _messages(memoryview(data), 7)
    if len(graphs) != 1:
        raise BadModel(f"{ONNX}: {len(graphs)} graphs, expected one: not an ONNX model")
    graph = graphs[0]
    parameters = {parameter.name: parameter for parameter in manifest.parameters}
    for tensor in _messages(graph, 5):
        name = _text(tensor, 8)
        parameter = parameters.pop(name, None)
        if parameter is not None:
            _check_weight(tensor, parameter)
        elif _points_to_file(tensor):
            raise BadModel(f"{ONNX}: {name!r:.120} is external data but no parameter, or twice")
    for field, expected in ((11, INPUT), (12, OUTPUT)):
        seen = [_text(value, 1) for value in _messages(graph, field)]
        if seen != [expected]:
            raise BadModel(f"{ONNX}: has {seen!r:.200} where {expected!r} alone is expected")
    _check_nodes(graph, 1, _MAX_DEPTH)
    if _messages(graph, 15):
        raise BadModel(f"{ONNX}: sparse initialisers are not allowed")
    for function in _messages(memoryview(data), 25):
        _check_nodes(function, 7, _MAX_DEPTH)


def _check_weight(tensor: memoryview, parameter: Parameter) -> None:
    places = {_text(entry, 1): _text(entry, 2) for entry in _messages(tensor, 13)}
    expected = {
        "location": PARAMS,
        "offset": str(4 * parameter.offset),
        "length": str(4 * parameter.size),
    }
    if not _points_to_file(tensor) or places != expected:
        raise BadModel(f"{ONNX}: {parameter.name!r} lies at {places!r:.200}, expected {expected}")
    shape = tuple(_numbers(tensor, 1))
    if shape != parameter.shape or list(_numbers(tensor, 2)) != [_FLOAT]:
        raise BadModel(f"{ONNX}: {parameter.name!r} is {shape}, expected float32 {parameter.shape}")


def _points_to_file(tensor: memoryview) -> bool:
    return _EXTERNAL in _numbers(tensor, 14) or bool(_messages(tensor, 13))


def _check_nodes(graph: memoryview, field: int, depth: int) -> None:
    if depth == 0:
        raise BadModel(f"{ONNX}: graphs nested more than {_MAX_DEPTH} deep")
    for node in _messages(graph, field):
        if _text(node, 7) not in ("", "ai.onnx"):
            raise BadModel(f"{ONNX}: operator {_text(node, 4)!r:.120} is not a standard one")
        for attribute in _messages(node, 5):
            for tensor in (*_messages(attribute, 5), *_messages(attribute, 10)):
                if _points_to_file(tensor):
                    raise BadModel(f"{ONNX}: a constant points to a file")
            if _messages(attribute, 22) or _messages(attribute, 23):
                raise BadModel(f"{ONNX}: sparse constants are not allowed")
            for inner in (*_messages(attribute, 6), *_messages(attribute, 11)):
                if any(_points_to_file(tensor) for tensor in _messages(inner, 5)):
                    raise BadModel(f"{ONNX}: a tensor of an inner graph points to a file")
                _check_nodes(inner, 1, depth - 1)


def _fields(message: memoryview) -> Iterator[Field]:
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        match key & 7:
            case 0:
                number, at = _varint(message, at)
                yield key >> 3, number
                continue
            case 1:
                length = 8
            case 2:
                length, at = _varint(message, at)
            case 5:
                length = 4
            case wire:
                raise BadModel(f"{ONNX}: wire type {wire} at byte {at}: not an ONNX model")
        if at + length > len(message):
            raise BadModel(f"{ONNX}: truncated")
        yield key >> 3, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            break
        byte = message[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise BadModel(f"{ONNX}: truncated or overlong number")


def _messages(message: memoryview, field: int) -> list[memoryview]:
    found = []
    for number, value in _fields(message):
        if number == field:
            if isinstance(value, int):
                raise BadModel(f"{ONNX}: field {field} is a number: not an ONNX model")
            found.append(value)
    return found


def _numbers(message: memoryview, field: int) -> Iterator[int]:
    """A repeated int64 field, packed or not."""
    for number, value in _fields(message):
        if number != field:
            continue
        if isinstance(value, int):
            yield value
        else:
            at = 0
            while at < len(value):
                item, at = _varint(value, at)
                yield item


def _text(message: memoryview, field: int) -> str:
    """The last value of a string field (protobuf: the last one counts), or ""."""
    found = _messages(message, field)
    return str(found[-1], "utf-8", errors="replace") if found else ""
