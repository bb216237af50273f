"""The status document: what a member says of itself, retained on its `status` topic.

It is published when something changes and every few seconds besides. The last will is the same
document with the state `lost`. A part that a tier does not have is left out.
"""

from enum import Enum
from typing import Annotated

from pydantic import Field, Strict, StringConstraints

from edgechoir.errors import Malformed
from edgechoir.monitor.document import Count, Document, Line, Name, Part, Reading, Seconds
from edgechoir.transport.topics import Topic


class MemberState(Enum):
    """Is a member there? `lost`: the broker noticed that it went without a word."""

    ONLINE = "online"
    STOPPED = "stopped"
    LOST = "lost"


class ModelStatus(Part):
    """The global model that the member has."""

    version: Count
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{8,64}$")] | None = Field(
        default=None, description="The first digits of the hash of its parameters."
    )
    accuracy: Reading = Field(
        default=None,
        description="On rows held out by the devices beneath, 0 to 1; of a device, on its own, "
        "where its owner publishes it.",
    )
    loss: Reading = Field(default=None, description="Loss on them.")
    rmse: Reading = Field(default=None, description="Of a regression, its error on them.")
    measured_in: Count | None = Field(
        default=None, description="The round that measured them, of the version it began with."
    )
    best_version: Count | None = Field(default=None, description="The one that has done best.")
    rollbacks: Count | None = Field(
        default=None, description="How often the run diverged and went back to it."
    )


class RoundStatus(Part):
    """The round that the member is in, and how the last one went."""

    number: Count
    phase: Line
    epoch: Count | None = Field(default=None, description="The epoch its members are keyed in.")
    members: Count | None = Field(default=None, description="Members that have spoken.")
    expected: Count | None = Field(default=None, description="Members in the round.")
    last_outcome: Line | None = None
    reason: Line | None = Field(default=None, description="Why the last round failed.")
    seconds: Reading = Field(default=None, description="How long the last round took.")
    bytes_up: Count | None = Field(default=None, description="Sent to the parent in that round.")
    bytes_down: Count | None = Field(default=None, description="Received from it.")


class InferenceStatus(Part):
    """How the model answers."""

    answered: Count
    missed: Count = Field(default=0, description="Samples without an answer in time.")
    p50_ms: Reading = Field(default=None, description="Median of the recent latencies.")
    p99_ms: Reading = Field(default=None, description="99th percentile of them.")
    late: Count = Field(default=0, description="Of those missed, answers past the deadline.")
    dropped: Count = Field(default=0, description="Of those missed, samples a full queue dropped.")
    batch: Count = Field(default=1, description="Samples that may go to the model together.")
    provider: Line | None = Field(default=None, description="What executes the model.")
    version: Count | None = Field(default=None, description="The version that answers.")
    swaps: Count | None = Field(default=None, description="Models exchanged while answering.")
    own: bool = Field(
        default=False, description="Does the device's own model answer, not the global one?"
    )
    held_back: Count = Field(
        default=0, description="Newer models that did too badly on the samples held out here."
    )
    rollbacks: Count = Field(
        default=0, description="Models given up because the one before answered and they did not."
    )


class StepStatus(Part):
    """A source, step or sink of a device's pipeline."""

    name: Line
    taken: Count = Field(description="Samples that came to it.")
    given: Count = Field(description="Samples that came of it; written, of a sink.")
    dead: Count = Field(default=0, description="Samples that it could not take.")
    dropped: Count = Field(default=0, description="Samples that a full queue lost.")
    mean_us: Reading = Field(default=None, description="Microseconds a sample.")
    paused: bool = False


class TrainingStatus(Part):
    """Whether the member can train, and what its trainer does."""

    available: bool
    state: Line
    fits: Count | None = Field(default=None, description="Rounds trained in.")
    seconds: Reading = Field(default=None, description="How long the last training took.")
    samples: Count | None = Field(default=None, description="Labelled samples kept for it.")
    pauses: Count = Field(default=0, description="Times it waited for answers that took too long.")
    peak_mb: Reading = Field(default=None, description="Memory of its process at most.")


class PrivacyStatus(Part):
    """What a device has given of its privacy; at the root, one that was in every round."""

    epsilon: Reading = Field(
        default=None, description="Given so far, at `delta`; none after a vector without noise."
    )
    delta: Reading = None
    max_epsilon: Reading = Field(default=None, description="Where it ends.")
    required: bool = Field(default=False, description="Are rounds without noise refused?")
    rounds: Count = Field(default=0, description="Rounds with noise so far.")
    without_noise: bool = Field(
        default=False, description="Has a vector left without noise? Then no epsilon bounds it."
    )
    example_epsilon: Reading = Field(
        default=None, description="Of a single row, where the device trains with DP-SGD."
    )


class BrokerStatus(Part):
    """The connection to the broker."""

    reconnects: Count = 0
    protocol: Line | None = Field(default=None, description="MQTT version in use.")
    bytes_up: Count | None = Field(default=None, description="Sent since the start, inside TLS.")
    bytes_down: Count | None = Field(default=None, description="Received since the start.")
    dropped: Count = Field(
        default=0, description="Messages dropped for want of room, coming or going."
    )


class TransferStatus(Part):
    """A blob that takes long on its way."""

    sender: Name
    receiver: Name
    arrived: Count = Field(description="Bytes that the receiver has.")
    total: Count = Field(description="Bytes in all.")
    seconds: Reading = Field(default=None, description="How long it has been under way.")


class SpoolStatus(Part):
    """Documents kept on the disk while the broker is away."""

    waiting: Count
    dropped: Count = Field(default=0, description="For want of room, by age, or refused.")
    bytes: Count | None = Field(default=None, description="Disk in use for them.")
    commits: Count | None = Field(default=None, description="Writes to the disk since the start.")


class CertificateStatus(Part):
    """The member's certificate, and the list of revoked ones that it goes by."""

    not_after: Seconds = Field(description="When it ends, unix seconds.")
    renewal: Line | None = Field(
        default=None, description="When it is due, or why it failed; none without an endpoint."
    )
    revoked: bool = Field(default=False, description="It is itself in the list.")
    revocations: Count | None = Field(default=None, description="The number of that list.")


class AuditStatus(Part):
    """The member's audit log. Who keeps `head` can tell later that the log's end was taken off."""

    records: Count
    head: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] = Field(
        description="The hash of its last record on the disk."
    )
    commits: Count | None = Field(default=None, description="Writes to the disk since the start.")
    lost: Count = Field(default=0, description="Records for which there was no room.")
    failing: bool = Field(default=False, description="The disk takes no records at present.")


class Health(Part):
    """The process, as the operating system counts."""

    rss_mb: Reading = Field(default=None, description="Memory in RAM, 10^6 bytes.")
    cpu_percent: Reading = Field(
        default=None, description="CPU time since the last document; 100 is one core."
    )
    uptime_s: Seconds | None = None


class Status(Document):
    """The state of one member of a federation."""

    instance: Annotated[str, StringConstraints(pattern=r"^(?:[0-9a-f]{2}){1,32}$")] = Field(
        description="Names the process among all that ever ran under this id; hex digits."
    )
    state: MemberState
    since: Seconds = Field(description="Start of the process, unix seconds.")
    updated: Seconds = Field(description="When this was written, by the member's clock.")
    parent: Name | None = Field(default=None, description="The aggregator that it belongs to.")
    model: ModelStatus | None = None
    round: RoundStatus | None = None
    inference: InferenceStatus | None = None
    training: TrainingStatus | None = None
    pipeline: Annotated[tuple[StepStatus, ...], Strict(False), Field(max_length=64)] | None = Field(
        default=None, description="Sources, steps and sinks of a device, in order."
    )
    privacy: PrivacyStatus | None = None
    drops: Annotated[dict[Line, Count], Field(max_length=64)] = Field(
        default={}, description="What was refused, counted by reason."
    )
    broker: BrokerStatus | None = None
    spool: SpoolStatus | None = None
    transfers: Annotated[list[TransferStatus], Field(max_length=8)] | None = Field(
        default=None, description="Blobs that have been under way for 2 s, the oldest first."
    )
    certificate: CertificateStatus | None = None
    audit: AuditStatus | None = None
    health: Health | None = None


def parse(payload: bytes) -> Status:
    """Read a status document. Raises Malformed."""
    return Status.from_json(payload)


def parse_at(topic: Topic, payload: bytes) -> Status:
    """Read the status document of a topic, which must be of the member that may write there.

    Raises Malformed.
    """
    status = parse(payload)
    said = (status.federation, status.tier, status.member)
    if said != (topic.federation, topic.tier, topic.member):
        raise Malformed(f"status at {topic} says that it is of {'/'.join(said)}")
    return status
