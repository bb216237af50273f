"""Sections about training: what the cloud asks for, and what a device gives to it."""

from typing import Literal

from pydantic import Field

from edgechoir.config.sections import Place, Section


class DeviceTraining(Section):
    """Whether and how this device trains while it is idle."""

    enabled: bool = Field(default=True, description="false: infer only, take no part in rounds.")
    idle_timeout_s: float = Field(
        default=60.0,
        ge=0,
        le=86400,
        description="The training process ends after so many idle seconds.",
    )
    min_samples: int = Field(
        default=32, ge=1, description="Sit a round out with fewer stored samples."
    )
    publish_accuracy: bool = Field(
        default=False,
        description="Show in the status how the global model does on the samples held out here. "
        "The masks hide that figure of a single device; this gives it away. Not in rounds with "
        "noise.",
    )
    p99_budget_ms: float = Field(
        default=100.0,
        gt=0,
        le=60_000,
        description="Training waits while more than one answer in a hundred takes longer.",
    )
    memory_mb: int | None = Field(
        default=None,
        ge=200,
        le=1_000_000,
        description="Memory of the training process at most, of that torch takes about 200; a job "
        "that needs more fails, and nothing else does.",
        examples=[500],
    )
    threads: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Threads that train. Only with one does a seed fix every bit of an update.",
    )
    shared: Place | None = Field(
        default=None,
        description="NPZ file with the shared samples, x, of a federation that distils; then this "
        "device's model is its own, of any shape.",
        examples=["shared.npz"],
    )


class CloudTraining(Section):
    """The training plan that goes to every device of a round."""

    epochs: int = Field(
        default=1, ge=1, le=100, description="Passes over the local samples in a round."
    )
    batch_size: int = Field(default=32, ge=1, le=4096, description="Samples in one step.")
    learning_rate: float = Field(default=0.05, gt=0, le=10, description="Step size.")
    normalise: bool = Field(
        default=False,
        description="Before the first round, two secure rounds find mean and deviation of every "
        "column over all devices; training and inference then see (x - mean) / deviation, and the "
        "mean where a value is missing.",
    )
    schedule: Literal["constant", "cosine", "step"] = Field(
        default="constant",
        description="How the step size changes over the rounds: not, down to nothing at the last "
        "of `rounds.rounds` along a cosine, or by `decay` every `decay_every` rounds.",
    )
    decay: float = Field(default=0.5, gt=0, lt=1, description="Factor of the schedule step.")
    decay_every: int = Field(default=10, ge=1, description="Rounds between two of its falls.")
    momentum: float = Field(
        default=0.0, ge=0, lt=1, description="Of a device's steps, within a round."
    )
    weight_decay: float = Field(
        default=0.0, ge=0, le=10, description="Weight of the L2 penalty on a device."
    )
    max_gradient_norm: float = Field(
        default=0.0, ge=0, le=1e6, description="A step's gradient is cut to this norm; 0: never."
    )
    proximal: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Weight of the pull towards the global model (FedProx's mu), under any rule.",
    )

    def local(self) -> dict[str, float]:
        """What goes into the task of each training round."""
        names = {"momentum", "weight_decay", "max_gradient_norm", "proximal"}
        return {name: value for name, value in self.model_dump(include=names).items() if value}
