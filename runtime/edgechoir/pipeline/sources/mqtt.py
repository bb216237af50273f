"""Samples that other programs publish as JSON, one a message (`message.py`).

The subscription is not made here: the messages are handed in as an async iterator of payloads. A
payload of another form is counted and dropped.
"""

from collections.abc import AsyncIterator, Mapping

from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sources.message import read


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
            sample = read(payload, self._key, self._clock.now)
            if sample is None:
                self._malformed += 1
            else:
                yield sample
