"""Arrays inside a task: float32, little-endian, in base64, so that 64 KB hold 12,000 numbers."""

import base64
import binascii

import numpy as np

from edgechoir.errors import Malformed
from edgechoir.learning.task import Task
from edgechoir.types import Reals


def pack(values: Reals) -> str:
    """Any shape; the reader knows it."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def unpack(task: Task, name: str, *shape: int) -> Reals:
    """An option as an array; one -1 in the shape stands for any size >= 0. Raises Malformed."""
    text = task.get(name, "")
    try:
        flat = np.frombuffer(base64.b64decode(text, validate=True), "<f4")
        values = flat.reshape(shape)
    except (ValueError, binascii.Error):
        raise Malformed(
            f"the task {task.kind!r} has {len(text)} characters as {name}, expected {shape} numbers"
        ) from None
    if not np.isfinite(values).all():
        raise Malformed(f"the task {task.kind!r} has {name} that are not finite")
    return values
