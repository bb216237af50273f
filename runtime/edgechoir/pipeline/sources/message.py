"""A sample as other programs write it in JSON.

`{"x": [20.5, null, 3], "y": 1, "time": 1767225600.0, "key": "boiler"}`: `x` may be nested, and null
is a missing value. A label that comes by itself has a `y` and no `x`. What is left out is filled
in: the source's key, the time of arrival.
"""

from collections.abc import Callable
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from edgechoir.pipeline.sample import MAX_KEY, Sample, as_values

MAX_PAYLOAD: Final = 65_536

_Number = float | None
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    x: list[_Number] | list[list[_Number]] | list[list[list[_Number]]] = []
    y: int | _Finite | None = None
    time: _Finite | None = None
    key: str | None = Field(default=None, min_length=1, max_length=MAX_KEY)


def read(payload: bytes, key: str, now: Callable[[], float]) -> Sample | None:
    """The sample, or None: too long, of another form, or with neither values nor label."""
    if len(payload) > MAX_PAYLOAD:
        return None
    try:
        message = _Message.model_validate_json(payload)
        x = as_values(message.x)
    except ValueError:  # of pydantic (ValidationError is one), or a ragged list
        return None
    if not message.x and message.y is None:
        return None
    return Sample(
        key if message.key is None else message.key,
        now() if message.time is None else message.time,
        x,
        message.y,
    )
