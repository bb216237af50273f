"""Which sections a tier's configuration has."""

from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, Strict, StringConstraints, model_validator

from edgechoir.config.rounds import CloudRounds, Rounds
from edgechoir.config.rules import AnyRule, FedAvgRule
from edgechoir.config.sections import (
    AuditLog,
    Broker,
    CloudPrivacy,
    CloudRobust,
    CloudUpdate,
    Consent,
    Inference,
    Log,
    MemberPrivacy,
    MemberUpdate,
    Model,
    Name,
    Place,
    Predictions,
    Queries,
    Section,
    Trace,
)
from edgechoir.config.sensor import AnySensor, Labels, Stage
from edgechoir.config.sink import AnyOut
from edgechoir.config.training import CloudTraining, DeviceTraining

Federation = Annotated[Name, Field(description="The federation's name.", examples=["digits"])]
Member = Annotated[
    Name, Field(description="This member's id, unique in the federation.", examples=["member-1"])
]
State = Annotated[Place, Field(description="Directory for what must survive a restart.")]
Identity = Annotated[Place, Field(description="Directory with member.key, member.crt and ca.crt.")]
EnrolmentUrl = Annotated[
    Annotated[str, StringConstraints(max_length=256, pattern=r"^https://[^\s/]+(/[^\s]*)?$")]
    | None,
    Field(
        description="Where the certificate renews itself, if not where the member was enrolled.",
        examples=["https://ca.plant.lan:8884"],
    ),
]


class MonitorConfig(Section):
    """Configuration of a monitor."""

    command: ClassVar[str] = "edgechoir monitor"

    federation: Federation
    tier: Literal["monitor"] = Field(default="monitor", description="What this process is.")
    member: Member = Field(examples=["monitor-1"])
    identity: Identity = Path("identity")
    broker: Broker = Broker()
    log: Log = Log()


class CloudConfig(Section):
    """Configuration of the cloud, the root of the tree."""

    command: ClassVar[str] = "edgechoir cloud"

    federation: Federation
    tier: Literal["cloud"] = Field(default="cloud", description="What this process is.")
    member: Member = Field(examples=["cloud"])
    state: State = Path("state")
    identity: Identity = Path("identity")
    enrolment_url: EnrolmentUrl = None
    broker: Broker = Broker()
    model: Model
    rounds: CloudRounds = CloudRounds()
    training: CloudTraining = CloudTraining()
    rule: AnyRule = FedAvgRule()
    robust: CloudRobust | None = None
    update: CloudUpdate = CloudUpdate()
    queries: Queries = Queries()
    privacy: CloudPrivacy | None = None
    audit: AuditLog = AuditLog()
    log: Log = Log()

    @model_validator(mode="after")
    def _check_rule(self) -> Self:
        if self.training.schedule == "cosine" and self.rounds.rounds is None:
            raise ValueError(
                'training.schedule is "cosine", which falls until the last round: set rounds.rounds'
            )
        if self.privacy is not None and self.rounds.release == "best":
            raise ValueError(
                'rounds.release is "best", which measures the last model without noise: leave it '
                "out, or [privacy]"
            )
        if self.privacy is not None and self.training.normalise:
            raise ValueError(
                "training.normalise takes the columns' mean and deviation from all devices without "
                "noise, which [privacy] does not count: leave it out, and scale the columns in the "
                "model file"
            )
        why = self.rule.misfit(self.training, self.update)
        if self.privacy is not None and not self.rule.PRIVATE:
            why = "its devices send more than an update, which the noise does not cover: leave "
            why += "[privacy] out"
        if self.robust is not None and not self.rule.ROBUST:
            why = "its devices send more than an update, of which only the mean makes sense: leave "
            why += "[robust] out"
        if why:
            raise ValueError(f"rule {self.rule.name}: {why}")
        if self.update.compresses() and not (self.rule.ROBUST and self.privacy is None):
            what = f"the rule {self.rule.name}" if self.privacy is None else "[privacy]"
            raise ValueError(
                "update.rotate, sent_share and clipped_share are for updates alone: with "
                f"{what} devices send more or bound it otherwise; leave one of them out"
            )
        if self.robust is not None and self.privacy is not None:
            raise ValueError(
                "[robust] and [privacy]: the noise of a single cohort hides what a bad one does; "
                "leave one of them out"
            )
        return self


class Child(Section):
    """What every member with a parent has."""

    federation: Federation
    tier: str
    member: Member
    parent: Name = Field(
        description="Id of the aggregator that this member sends to.", examples=["cloud"]
    )
    state: State = Path("state")
    identity: Identity = Path("identity")
    enrolment_url: EnrolmentUrl = None
    broker: Broker = Broker()

    @model_validator(mode="after")
    def _check_parent(self) -> Self:
        if self.parent == self.member:
            raise ValueError(f"parent is {self.parent!r}, this member itself: name another")
        return self


class NodeConfig(Child):
    """Configuration of a node."""

    command: ClassVar[str] = "edgechoir node"

    tier: Literal["node"] = Field(default="node", description="What this process is.")
    parent_tier: Literal["edge-cloud", "cloud"] = Field(
        default="edge-cloud", description="What the parent is."
    )
    rounds: Rounds = Rounds()
    update: MemberUpdate = MemberUpdate()
    audit: AuditLog = AuditLog()
    log: Log = Log()
    trace: Trace | None = None


class EdgeCloudConfig(Child):
    """Configuration of an edge cloud."""

    command: ClassVar[str] = "edgechoir edge-cloud"

    tier: Literal["edge-cloud"] = Field(default="edge-cloud", description="What this process is.")
    parent_tier: Literal["cloud"] = Field(default="cloud", description="What the parent is.")
    rounds: Rounds = Rounds()
    update: MemberUpdate = MemberUpdate()
    audit: AuditLog = AuditLog()
    log: Log = Log()
    trace: Trace | None = None


class DeviceConfig(Child):
    """Configuration of a device."""

    command: ClassVar[str] = "edgechoir device"

    tier: Literal["device"] = Field(default="device", description="What this process is.")
    parent_tier: Literal["node", "edge-cloud", "cloud"] = Field(
        default="node", description="What the parent is."
    )
    model: Model
    sensor: AnySensor
    sources: Annotated[tuple[AnySensor, ...], Strict(False)] = Field(
        default=(),
        max_length=16,
        description="More sources, each with the keys of [sensor] but `store`.",
    )
    pipeline: Annotated[tuple[Stage, ...], Strict(False)] = Field(
        default=(),
        max_length=32,
        description="Operators between sources and sinks, in order. `infer` is the model; without "
        "it, it comes last.",
    )
    sinks: Annotated[tuple[AnyOut, ...], Strict(False)] = Field(
        default=(),
        max_length=16,
        description="Where samples and answers go on this device; the fleet's are [predictions].",
    )
    labels: Labels = Labels()
    inference: Inference = Inference()
    training: DeviceTraining = DeviceTraining()
    update: MemberUpdate = MemberUpdate()
    privacy: MemberPrivacy = MemberPrivacy()
    predictions: Predictions = Predictions()
    consent: Consent = Consent()
    audit: AuditLog = AuditLog()
    log: Log = Log()
    trace: Trace | None = None

    @model_validator(mode="after")
    def _check_sources(self) -> Self:
        names = [self.sensor.name or "sensor", *(each.name or each.source for each in self.sources)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two sources are called {name!r}: give one another name")
        if self.training.publish_accuracy and self.privacy.example_clip is not None:
            raise ValueError(
                "training.publish_accuracy gives away what privacy.example_clip protects: leave "
                "one of them out"
            )
        if any("store" in each.model_fields_set for each in self.sources):
            raise ValueError("store belongs to [sensor]: remove it from [[sources]]")
        return self


AggregatorConfig = NodeConfig | EdgeCloudConfig | CloudConfig
Config = DeviceConfig | AggregatorConfig | MonitorConfig

KINDS: Final[dict[str, type[Config]]] = {
    "device": DeviceConfig,
    "node": NodeConfig,
    "edge-cloud": EdgeCloudConfig,
    "cloud": CloudConfig,
    "monitor": MonitorConfig,
}
"""The word in `tier` -> the model of its file."""
