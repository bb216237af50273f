"""The sections of a configuration file. Each field's description is its documentation.

Sections that differ between tiers have one class for each. `tiers.py` says which tier has which.
"""

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationInfo,
    model_validator,
)

from edgechoir.errors import OperatorError
from edgechoir.types import member_id

Provider = Literal["TensorrtExecutionProvider", "CUDAExecutionProvider", "XnnpackExecutionProvider"]


class Section(BaseModel):
    """A table of the file: unknown keys are refused, and values are not converted."""

    TAG: ClassVar[str] = ""
    """The key that says which of several kinds of table this is, where there are several."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True
    )


def _beside_the_file(path: Path, info: ValidationInfo) -> Path:
    directory = (info.context or {}).get("directory", Path())
    return Path(directory) / path.expanduser()


def _name(text: str) -> str:
    try:
        return member_id(text)
    except OperatorError as wrong:
        raise ValueError(str(wrong)) from None


Place = Annotated[Path, Strict(False), AfterValidator(_beside_the_file)]
"""A path; a relative one starts at the directory of the configuration file."""
Text = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f]*$")]
Name = Annotated[str, AfterValidator(_name)]


class Broker(Section):
    """The MQTT broker, always over TLS."""

    host: Text = Field(default="localhost", description="Host name or address of the broker.")
    port: int = Field(default=8883, ge=1, le=65535, description="Its TLS port.")
    server_name: Text | None = Field(
        default=None,
        description="Name in the broker's certificate, where it is not `host`.",
        examples=["broker"],
    )
    keep_alive_s: int = Field(
        default=20, ge=5, le=1200, description="Seconds of silence before the connection is tested."
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="MQTT version; auto tries 5, then 3.1.1."
    )


class Model(Section):
    """The model that the federation trains."""

    bundle: Place = Field(
        description="Directory of the model bundle to start with.", examples=["bundle"]
    )


class Rounds(Section):
    """How this aggregator runs the rounds of the members below it."""

    min_members: int = Field(
        default=2,
        ge=2,
        le=32,
        description="A round with fewer survivors fails and nothing is revealed.",
    )
    max_members: int = Field(default=32, ge=2, le=32, description="Members in one cohort at most.")
    expected_members: int | None = Field(
        default=None,
        ge=2,
        le=32,
        description="A cohort forms at once when so many are there.",
        examples=[4],
    )
    join_wait_s: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        description="Seconds to wait for more members before a cohort forms.",
    )
    keystream: Literal["auto", "aes-256-ctr", "chacha20"] = Field(
        default="auto",
        description="The cipher that expands the masks. auto: AES if this processor has "
        "instructions for it; where the members' have none, chacha20 is several times faster.",
    )

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.min_members > self.max_members:
            raise ValueError(
                f"min_members is {self.min_members} and max_members {self.max_members}: "
                "min_members must not be larger"
            )
        return self


class CloudRounds(Rounds):
    """How the root runs the rounds, and when it stops."""

    rounds: int | None = Field(
        default=None,
        ge=1,
        description="Stop after this many rounds; without it, go on.",
        examples=[20],
    )
    target_accuracy: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Stop when the accuracy reaches this.",
        examples=[0.95],
    )
    target_rmse: float | None = Field(
        default=None,
        gt=0,
        description="Stop when the root mean squared error of a regression falls to this.",
        examples=[15.0],
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        description="Stop when the loss has not fallen for this many rounds.",
        examples=[5],
    )
    min_gain: float = Field(
        default=1e-3, ge=0, le=1e6, description="By how much it must fall to count as fallen."
    )
    release: Literal["last", "best"] = Field(
        default="last",
        description="Which version is released at the end: the last, or the one that did best on "
        "the rows held out, after a last round that measures the last.",
    )
    diverged_factor: float = Field(
        default=10.0,
        gt=1,
        le=1e9,
        description="A loss above so many times the lowest is a sign of divergence.",
    )
    diverged_rounds: int = Field(
        default=3,
        ge=1,
        le=1000,
        description="After so many such rounds in a row, go on from the best version, at half the "
        "step size.",
    )
    deadline_s: float = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="Seconds that a round may take; each tier below gives its own members less.",
    )
    pause_s: float = Field(default=0.0, ge=0, le=86400, description="Seconds between two rounds.")


class Inference(Section):
    """How this device answers with its model."""

    providers: Annotated[tuple[Provider, ...], Strict(False)] = Field(
        default=(),
        max_length=3,
        description="Execution providers of ONNX Runtime to try before the CPU; empty: TensorRT, "
        "CUDA, XNNPACK as far as this build has them. Status shows the one in use.",
        examples=[["CUDAExecutionProvider"]],
    )
    deadline_ms: float = Field(
        default=1000.0, gt=0, le=600_000, description="A later answer counts as missed."
    )
    waiting: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Samples that may wait for a model that takes its time.",
    )
    when_full: Literal["newest", "oldest"] = Field(
        default="newest", description="Which of them is dropped when one too many waits."
    )
    batch_ms: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="Samples of several sources that wait at the same time go to the model "
        "together, as many as it answers within this time. 0: one by one.",
    )
    max_worse: float = Field(
        default=0.3,
        gt=0,
        le=1000,
        description="A new model whose error on the samples held out here is greater by more is "
        "trained on, but the old one goes on answering. The error is the share of wrong classes, "
        "or the root mean square in units of the labels' deviation.",
    )


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


class CloudUpdate(Section):
    """The bounds that every update of the federation keeps."""

    clip: float = Field(
        default=1.0, gt=0, le=1e6, description="Largest change of one weight in one update."
    )
    max_samples: int = Field(
        default=1000, ge=1, le=1_000_000, description="Weight of one update at most, in samples."
    )
    max_norm: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="Devices scale a longer update down to this L2 norm; 0: they do not.",
    )

    ring_bits: Literal[16, 32] = Field(
        default=32,
        description="Bits of a number in an update; 16 halves the traffic and coarsens the steps.",
    )


Purpose = Literal["train", "evaluate", "spread", "moments", "bins", "histogram", "gram", "recent"]


class Consent(Section):
    """What the owner of this device agrees to; `edgechoir consent` says more while it runs."""

    allow: Annotated[tuple[Purpose, ...], Strict(False)] = Field(
        default=("train", "evaluate", "spread", "moments", "bins"),
        max_length=16,
        description="Tasks that need no approval. By default what taking part in training implies: "
        "training itself, evaluation of the model, and the statistics that normalise columns and "
        "place the bins of trees. histogram (also counts, quantiles, drift) and gram (linear "
        "models) wait for `edgechoir consent approve`, and so does any task about what the device "
        "infers on at this moment, unless recent stands here too.",
        examples=[["train", "evaluate"]],
    )
    min_members: int = Field(
        default=2,
        ge=2,
        le=32,
        description="A statistic over fewer members is declined.",
    )
    min_devices: int = Field(
        default=3,
        ge=2,
        le=1_000_000,
        description="A statistic over fewer devices in the whole federation is declined.",
    )
    answers_per_day: int = Field(
        default=200, ge=0, le=5000, description="Statistics answered in 24 hours at most."
    )


class Queries(Section):
    """What `edgechoir query` may ask of the devices. Each owner's consent comes on top of it."""

    enabled: bool = Field(default=True, description="false: this cloud takes no queries.")
    min_devices: int = Field(
        default=3, ge=2, le=1_000_000, description="An answer over fewer devices is not given."
    )
    rounds_per_day: int = Field(
        default=200,
        ge=0,
        le=1_000_000,
        description="Rounds that queries may take in 24 hours; one query takes one to nine.",
    )


class MemberUpdate(Section):
    """What this member insists on; a plan that asks for less protection is refused."""

    min_cohort: int = Field(
        default=2, ge=2, le=32, description="Refuse cohorts with fewer members than this."
    )
    max_clip: float = Field(
        default=100.0, gt=0, le=1e6, description="Refuse plans with a larger clip."
    )


class MemberPrivacy(Section):
    """What this device's owner insists on, whatever the cloud asks."""

    require: bool = Field(
        default=False,
        description="Refuse rounds in which devices add no noise (client-level privacy). Needs "
        "max_epsilon: with hardly any noise a round would pass too.",
    )
    max_epsilon: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="Take part no more before epsilon exceeds this, nor in rounds without noise.",
        examples=[8.0],
    )
    delta: float = Field(
        default=1e-5, gt=0, lt=1, description="The delta at which epsilon is counted."
    )
    example_clip: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="Train with DP-SGD: a row's gradient is clipped to this norm. Needs the extra "
        "privacy.",
        examples=[1.0],
    )
    example_noise: float = Field(
        default=1.0,
        gt=0.01,
        le=1000,
        description="Its noise, in units of the clip.",
    )
    example_max_epsilon: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="Train no more before the epsilon of a single row exceeds this.",
        examples=[8.0],
    )

    @model_validator(mode="after")
    def _check_end(self) -> Self:
        if self.require and self.max_epsilon is None:
            raise ValueError(
                "require without max_epsilon: a round with next to no noise would "
                "be taken part in; say how large epsilon may become"
            )
        return self


class CloudPrivacy(Section):
    """Client-level privacy: every device clips its update and adds noise before it masks."""

    noise: float = Field(
        default=1.0,
        gt=0.01,
        le=100,
        description="Deviation of the honest survivors' noise, in units of one clipped update.",
    )
    bound: float = Field(
        default=1.0, gt=0, le=1e6, description="The L2 norm that updates are clipped to at first."
    )
    quantile: float = Field(
        default=0.5, gt=0, lt=1, description="The bound follows this quantile of their norms."
    )
    rate: float = Field(
        default=0.2, ge=0, le=2, description="How fast it follows; 0: the bound stays."
    )
    max_bound: float = Field(
        default=100.0,
        gt=0,
        le=1e6,
        description="The bound grows no further; members refuse one above their max_clip.",
    )
    delta: float = Field(
        default=1e-5, gt=0, lt=1, description="The delta at which epsilon is counted."
    )
    max_epsilon: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="The run ends before epsilon exceeds this.",
        examples=[8.0],
    )

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        if self.bound > self.max_bound:
            raise ValueError(f"bound is {self.bound:g}, above max_bound, {self.max_bound:g}")
        return self


class Predictions(Section):
    """What becomes of the answers of the model."""

    publish: bool = Field(default=True, description="Publish predictions as JSON.")
    max_rate_hz: float = Field(
        default=10.0,
        gt=0,
        le=10_000,
        description="Predictions published a second; others are not sent.",
    )
    recent: int = Field(
        default=1000,
        ge=0,
        le=1_000_000,
        description="The latest samples and answers kept in memory, 8 MB at most, for questions "
        "about drift; 0: none.",
    )
    keep_offline: bool = Field(
        default=False,
        description="Keep predictions on the disk while the broker is away, and publish them then.",
    )
    keep_bytes: int = Field(
        default=16_000_000,
        ge=65_536,
        le=100_000_000_000,
        description="Disk for predictions that wait; the oldest are dropped for newer ones.",
    )
    keep_hours: float = Field(
        default=24.0, gt=0, le=8760, description="Predictions that waited longer are dropped."
    )


class Log(Section):
    """The log of this process."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least severe messages that are written."
    )
    file: Place | None = Field(
        default=None,
        description="A file to write to in place of stderr.",
        examples=["edgechoir.log"],
    )
    max_bytes: int = Field(
        default=10_000_000,
        ge=65_536,
        le=1_000_000_000,
        description="The file is renamed and begun again at this size; one old file is kept.",
    )


class AuditLog(Section):
    """Who joined, what was asked, answered and refused; `edgechoir audit` verifies it."""

    file_bytes: int = Field(
        default=4_000_000,
        ge=65_536,
        le=1_000_000_000,
        description="A file is followed by the next at this size.",
    )
    files: int = Field(
        default=8, ge=2, le=1000, description="Files that are kept; the oldest is dropped."
    )


class Trace(Section):
    """Off by default. Writes an update before and after masking, to look at on this machine."""

    directory: Place = Field(
        description="Where to write; the unmasked update stands there in clear.",
        examples=["trace"],
    )
