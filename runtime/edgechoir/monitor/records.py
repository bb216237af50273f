"""Documents that are published as things happen and are not retained: metrics and predictions."""

from typing import Annotated

from pydantic import Field

from edgechoir.monitor.document import Count, Document, Line, Reading, Seconds


class Metrics(Document):
    """What came of one round, from the aggregator that ran it."""

    round: Count
    at: Seconds = Field(description="End of the round, unix seconds.")
    outcome: Line = Field(description="done, failed, or diverged: not followed.")
    reason: Line | None = Field(default=None, description="Why it failed, or was not followed.")
    version: Count | None = Field(
        default=None, description="The model version it began with, which the figures are of."
    )
    accuracy: Reading = Field(
        default=None, description="Of the model the round began with, on rows held out, 0 to 1."
    )
    loss: Reading = Field(
        default=None, description="The same model's loss on them; of a regression, squared error."
    )
    rmse: Reading = Field(default=None, description="Of a regression, its root.")
    members: Count | None = Field(default=None, description="Members whose updates are in the sum.")
    expected: Count | None = Field(default=None, description="Members that the round began with.")
    devices: Count | None = Field(default=None, description="Devices whose updates are in the sum.")
    samples: Count | None = Field(default=None, description="Training samples behind the sum.")
    clipped_share: Reading = Field(default=None, description="Share of coordinates clipped.")
    trial: Line | None = Field(
        default=None, description="In a trial of `edgechoir tune`, which; no round of the run."
    )
    rule: Line | None = Field(default=None, description="What makes the sum the next model.")
    epsilon: Reading = Field(
        default=None, description="In a private run: spent so far, of a device in every round."
    )
    final: bool = Field(default=False, description="Whether no further round follows.")
    ended: Line | None = Field(default=None, description="Why no further round follows.")
    seconds: Reading = Field(default=None, description="Length of the round.")
    bytes_up: Count | None = Field(default=None, description="Received from the members.")
    bytes_down: Count | None = Field(default=None, description="Sent to them.")


class PredictionRecord(Document):
    """The answer of a device's model to one sample. The sample itself stays on the device."""

    at: Seconds = Field(description="When the sample was taken, unix seconds.")
    key: Line = Field(default="", description="Which sensor it is of.")
    version: Count = Field(description="The model that answered.")
    label: Count | None = Field(default=None, description="The most likely class.")
    confidence: Reading = Field(default=None, description="Its probability, 0 to 1.")
    values: Annotated[tuple[float, ...], Field(max_length=256)] = Field(
        default=(), description="The model's output row."
    )
    latency_ms: Reading = Field(default=None, description="From the request to the answer.")
