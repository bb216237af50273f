"""What a round asks of a device: the meaning of the vector's coordinates.

A task is one line of canonical JSON inside the plan, so the round's context, which every survivor
signs, binds it. Its `kind` names the work, its `options` are that work's arguments. Whatever the
work, a device's vector is a mean over its rows, weighted by how many they are: the sum over a
cohort is then the mean over all of its rows, whoever holds them.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from edgechoir.errors import Malformed

Option = bool | int | float | str | Sequence["Option"] | Mapping[str, "Option"]
T = TypeVar("T")
TRAIN: Final = "train"
MEASURE: Final = "measure"
"""The global model on the rows held out, and nothing more: a vector of zeros, and the figures."""


@dataclass(frozen=True, slots=True)
class Task:
    """One kind of work and its arguments."""

    kind: str
    options: Mapping[str, Option] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Canonical JSON: keys sorted, no spaces, no NaN."""
        document = {"kind": self.kind, **self.options}
        text = json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return text.encode()

    def get(self, name: str, default: T) -> T:
        """An option of the default's type (an int may stand for a float). Raises Malformed."""
        value = self.options.get(name, default)
        if isinstance(default, float) and type(value) is int:
            value = float(value)
        if type(value) is not type(default) or (isinstance(value, float) and math.isinf(value)):
            raise Malformed(
                f"the task {self.kind!r} has {name} = {value!r}, expected {type(default).__name__}"
            )
        return value


def read_task(text: bytes) -> Task:
    """The task in a plan. Raises Malformed, also for JSON that is not canonical."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise Malformed(f"a task of {len(text)} bytes is no JSON") from None
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise Malformed("a task is no JSON object with a kind")
    kind = document.pop("kind")
    task = Task(kind, document)
    try:
        again = task.encode()
    except ValueError:
        raise Malformed(f"the task {kind!r} holds a number that is not finite") from None
    if again != text:
        raise Malformed(f"the task {kind!r} is not written canonically")
    return task
