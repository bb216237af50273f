"""What may happen to a round's state machines, and what they ask their host to do."""

from dataclasses import dataclass

from edgechoir.errors import RemoteError
from edgechoir.secagg.pads import Keystream, SignedSeed
from edgechoir.types import Address, Ring
from edgechoir.wire import (
    Abort,
    Answer,
    Bundles,
    Call,
    Consent,
    Delivery,
    Join,
    Leave,
    Message,
    Plan,
    Prepare,
    Reveal,
    Roster,
    Upload,
)

# ---- what happens


@dataclass(frozen=True, slots=True)
class Received:
    """A message whose envelope has been verified. `envelope` holds its bytes as they came."""

    sender: Address
    instance: bytes
    message: Message
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed; a host sends one when the state's `wake` is due."""


@dataclass(frozen=True, slots=True)
class Begin:
    """(Participant) Take part from now on, standing for `devices` devices."""

    devices: int
    last_round: int = 0


@dataclass(frozen=True, slots=True)
class Withdraw:
    """(Participant) Take no part any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class ModelHeld:
    """(Participant) This version of the global model is now the one in use here."""

    version: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class Contribution:
    """(Participant) The vector asked for by `Work`, in clear, as ring elements [length]."""

    round: int
    vector: Ring


@dataclass(frozen=True, slots=True)
class NoContribution:
    """(Participant) The vector asked for by `Work` will not come."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class MaskReady:
    """(Participant) The mask asked for by `ExpandMask`, [length]; it becomes the upload."""

    round: int
    mask: Ring


@dataclass(frozen=True, slots=True)
class Order:
    """(Aggregator) Run this round: everything of a plan but whom it is run with."""

    round: int
    model_version: int
    model_hash: bytes
    task: bytes
    dimension: int
    devices: int
    clip: float
    max_samples: int
    bits: int
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    deadline: float
    apart: int = 0


@dataclass(frozen=True, slots=True)
class Cancel:
    """(Aggregator) End the running round: whoever ordered it has given it up."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """(Aggregator) This process of a child is known to be away: its last will, or its goodbye."""

    member: str
    instance: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Back:
    """(Aggregator) This process of a child is on line again after it was called gone."""

    member: str
    instance: bytes


# ---- what is asked for


@dataclass(frozen=True, slots=True)
class ToParent:
    """Send this up."""

    message: Join | Bundles | Prepare | Upload | Consent | Answer | Abort | Leave


@dataclass(frozen=True, slots=True)
class ToChild:
    """Send this down to one child."""

    member: str
    message: Delivery | Call


@dataclass(frozen=True, slots=True)
class ToAll:
    """Publish this for all children, to stay readable for late ones."""

    message: Roster | Reveal | Abort


@dataclass(frozen=True, slots=True)
class Record:
    """Write down, before anything that follows is sent, that this round's pads are spent.

    `upload` is what they were spent on: after a crash nothing else may be sent in the round.
    """

    epoch: int
    round: int
    upload: Upload


@dataclass(frozen=True, slots=True)
class Work:
    """Make the contribution this plan asks for; answer with Contribution or NoContribution."""

    plan: Plan


@dataclass(frozen=True, slots=True)
class ExpandMask:
    """Make this turn's mask while the work goes on; answer with MaskReady. Not to is no fault."""

    round: int
    seeds: tuple[SignedSeed, ...]
    length: int
    bits: int
    keystream: Keystream


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop working on this round; its contribution is not wanted any more."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """Count and log this: a peer broke a rule, and what it sent has been dropped."""

    error: RemoteError


@dataclass(frozen=True, slots=True)
class RoundDone:
    """The sum over the survivors, in clear."""

    plan: Plan
    survivors: tuple[str, ...]
    total: Ring


@dataclass(frozen=True, slots=True)
class RoundFailed:
    """The round ended without a sum."""

    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Membership:
    """Who is keyed and ready now; `devices` counts the devices beneath them all."""

    epoch: int
    members: tuple[str, ...]
    devices: int
    last_round: int


Event = (
    Received
    | Tick
    | Begin
    | Withdraw
    | ModelHeld
    | Contribution
    | NoContribution
    | MaskReady
    | Order
    | Cancel
    | Gone
    | Back
)
Effect = (
    ToParent
    | ToChild
    | ToAll
    | Record
    | Work
    | ExpandMask
    | Abandon
    | Refused
    | RoundDone
    | RoundFailed
    | Membership
)
