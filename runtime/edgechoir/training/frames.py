"""What the trainer and its worker say to each other: one JSON object and some raw arrays a frame.

    4 bytes    length of the JSON, big-endian
    8 bytes    length of the arrays together
    JSON       {..., "arrays": [[name, dtype, shape], ...]}

goes through a pipe, and the arrays, one after another, little-endian, in C order, lie in the memory
that both have (shared.py).

Nothing is pickled, and every length is checked before memory is taken for it.
"""

import json
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgechoir.errors import TrainingError

PREFIX: Final = struct.Struct(">IQ")
MAX_HEADER: Final = 64 << 10
MAX_BODY: Final = 1 << 30

Array = npt.NDArray[np.float32] | npt.NDArray[np.int64]
Json = str | int | float | bool | None | Mapping[str, "Json"]

_DTYPES: Final[Mapping[str, np.dtype[np.float32] | np.dtype[np.int64]]] = {
    "float32": np.dtype("<f4"),
    "int64": np.dtype("<i8"),
}


@dataclass(frozen=True, slots=True)
class Frame:
    """One message either way."""

    fields: Mapping[str, Json]
    arrays: Mapping[str, Array]


def encode(frame: Frame) -> tuple[bytes, list[bytes | memoryview]]:
    """What goes through the pipe, and what into the memory: arrays uncopied where they can be.

    Raises TrainingError: too large, or no array of ours.
    """
    table = []
    body: list[bytes | memoryview] = []
    for name, array in frame.arrays.items():
        dtype = _DTYPES.get(array.dtype.name)
        if dtype is None:
            raise TrainingError(f"{name} is {array.dtype}, expected one of {sorted(_DTYPES)}")
        table.append([name, array.dtype.name, list(array.shape)])
        flat = np.ascontiguousarray(array, dtype).reshape(-1)
        body.append(flat.data.cast("B") if flat.size else memoryview(b""))
    header = json.dumps({**frame.fields, "arrays": table}).encode()
    size = sum(len(part) for part in body)
    _check_lengths(len(header), size)
    return PREFIX.pack(len(header), size) + header, body


def lengths(prefix: bytes) -> tuple[int, int]:
    """(header, body) in bytes, within the bounds. Raises TrainingError."""
    header, body = PREFIX.unpack(prefix)
    _check_lengths(header, body)
    return header, body


def decode(header: bytes, body: bytes | bytearray | mmap.mmap) -> Frame:
    """The frame of these bytes; its arrays are views into `body`. Raises TrainingError."""
    try:
        fields = json.loads(header)
        arrays: dict[str, Array] = {}
        at = 0
        for name, word, shape in fields.pop("arrays"):
            dtype = _DTYPES[word]
            if not all(isinstance(n, int) and n >= 0 for n in shape):
                raise ValueError(f"shape {shape}")
            count = math.prod(shape)
            if count > MAX_BODY:
                raise ValueError(f"{name} has {count} elements")
            arrays[str(name)] = np.frombuffer(body, dtype, count, at).reshape(shape)
            at += count * dtype.itemsize
        if at != len(body):
            raise ValueError(f"{len(body)} bytes of arrays, the header says {at}")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f"malformed frame between trainer and worker: {error}") from error
    return Frame(fields, arrays)


def _check_lengths(header: int, body: int) -> None:
    if header > MAX_HEADER or body > MAX_BODY:
        raise TrainingError(
            f"a frame of {header} + {body} bytes, at most {MAX_HEADER} + {MAX_BODY} are allowed; "
            "train on fewer samples at a time"
        )
