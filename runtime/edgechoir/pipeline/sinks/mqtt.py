"""Samples and answers to a topic, one JSON document a message.

The connection is not made here: `publish(payload)` is handed in, and `close` with it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sinks.document import line


class MqttSink:
    """Publishes a batch at once and waits until all of it is on its way."""

    def __init__(
        self,
        publish: Callable[[bytes], Awaitable[None]],
        close: Callable[[], Awaitable[None]],
        name: str = "mqtt",
    ) -> None:
        self.name = name
        self._publish, self._close = publish, close

    async def write(self, samples: Sequence[Sample]) -> None:
        """Raises LinkError: the broker does not take them."""
        if len(samples) == 1:
            await self._publish(line(samples[0])[:-1])
            return
        await asyncio.gather(*(self._publish(line(sample)[:-1]) for sample in samples))

    async def close(self) -> None:
        await self._close()
