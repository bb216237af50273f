"""What the pipeline asks of a sink."""

from collections.abc import Sequence
from typing import Protocol

from edgechoir.pipeline.sample import Sample


class Sink(Protocol):
    """Takes samples in batches, oldest first, with their answers if they have passed a model.

    What `write` raises is counted and loses that batch. It is called by one task at a time; `close`
    comes last.
    """

    @property
    def name(self) -> str: ...

    async def write(self, samples: Sequence[Sample]) -> None: ...

    async def close(self) -> None: ...
