"""Samples that other programs publish as JSON, one a message.

`{"x": [20.5, null, 3], "y": 1, "time": 1767225600.0, "key": "boiler"}`: only `x` is required; it
may be nested, and null is a missing value. The subscription is not made here: the messages are
handed in as an async iterator of payloads. A payload of another form is counted and dropped.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import MAX_KEY, Sample, as_values

MAX_PAYLOAD: Final = 65536

_Number = float | None
_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    x: list[_Number] | list[list[_Number]] | list[list[list[_Number]]]
    y: int | _Finite | None = None
    time: _Finite | None = None
    key: str | None = Field(default=None, min_length=1, max_length=MAX_KEY)


class MqttSource:
    """Samples from `messages`; `key` names those that do not name themselves."""

    def __init__(
        self, messages: AsyncIterator[bytes], *, key: str = "mqtt", clock: Clock | None = None
    ) -> None:
        self._messages, self._key = messages, key
        self._clock = Clock() if clock is None else clock
        self._malformed = 0

    @property
    def counts(self) -> Mapping[str, int]:
        return {"malformed": self._malformed} if self._malformed else {}

    async def __aenter__(self) -> "MqttSource":
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[Sample]:
        async for payload in self._messages:
            sample = self._read(payload)
            if sample is None:
                self._malformed += 1
            else:
                yield sample

    def _read(self, payload: bytes) -> Sample | None:
        if len(payload) > MAX_PAYLOAD:
            return None
        try:
            message = _Message.model_validate_json(payload)
            x = as_values(message.x)
        except ValueError:  # of pydantic (ValidationError is one), or a ragged list
            return None
        return Sample(
            self._key if message.key is None else message.key,
            self._clock.now() if message.time is None else message.time,
            x,
            message.y,
        )
