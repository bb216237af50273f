"""What the pipeline asks of a sink."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from edgechoir.inference.prediction import Prediction
from edgechoir.pipeline.sample import Sample


@dataclass(frozen=True, slots=True)
class Answer:
    """A sample as the model saw it, and the model's answer."""

    sample: Sample
    prediction: Prediction


class Sink(Protocol):
    """Takes answers in batches, oldest first. What it raises is counted and loses that batch."""

    @property
    def name(self) -> str: ...

    async def write(self, answers: Sequence[Answer]) -> None: ...

    async def close(self) -> None: ...
