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
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        validate_default=True,
        # A process reads one tier's file: the checks of the other tiers are never built.
        defer_build=True,
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

    ring_bits: Literal[8, 16, 32] = Field(
        default=32,
        description="Bits of a number in an update: fewer are less traffic and coarser steps. With "
        "8, a device among n has 127 / n steps either way: 20 devices at most make sense.",
    )
    rotate: bool = Field(
        default=False,
        description="Turn updates at random before they are rounded: no number is much larger than "
        "the others, so the clip can be low and the steps fine.",
    )
    sent_share: float = Field(
        default=1.0,
        gt=0,
        le=1,
        description="Share of an update's numbers that is sent, the same ones by all devices, other"
        " ones each round; what is not sent is kept and added to the next update.",
    )
    clipped_share: float = Field(
        default=0.0,
        ge=0,
        le=0.5,
        description="The clip follows what lets about this share of the numbers be cut; 0: it "
        "stays. 0.01 goes well with rotate.",
    )

    def compresses(self) -> bool:
        """Whether an update is turned or thinned out, or its clip moves."""
        return self.rotate or self.sent_share < 1 or self.clipped_share > 0


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


class CloudRobust(Section):
    """A few bad nodes do not spoil the model; needs a policy signed with --cohorts-apart."""

    estimate: Literal["median", "trimmed-mean", "krum"] = Field(
        default="median",
        description="What stands for the mean update: the median of each coordinate, its mean "
        "without the largest and smallest, or the mean of those cohorts that lie closest together.",
    )
    bad_share: float = Field(
        default=0.2,
        gt=0,
        lt=0.5,
        description="Share of the nodes that may have bad devices beneath them, rounded up. A round"
        " needs more than twice as many nodes, krum twice as many and three more.",
    )
    keep: int = Field(
        default=0,
        ge=0,
        le=32,
        description="krum: cohorts in the mean; 1 is Krum as published, 0 all but the bad and two.",
    )
    weighted: bool = Field(
        default=True,
        description="What is left is weighted by samples (not the median); false: all nodes alike.",
    )


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
