"""The body of every binary message.

A message is a frozen dataclass with a `KIND` and a `FIELDS` table, which `codec.py` reads and
writes. Bodies travel inside signed envelopes (`identity/envelope.py`); nothing here is trusted
before the envelope is verified. `Upload` holds a parcel and `Answer` a box, whose inside is a
`Contents` or `Opened`.
"""

from dataclasses import dataclass
from typing import ClassVar, Final, TypeVar

from edgechoir.codec import Buffer, Codec, Cursor, Many, Number, Pair, Raw, Text
from edgechoir.errors import Malformed

VERSION: Final = 1
MAX_MEMBERS: Final = 32
MAX_NAME: Final = 32
MAX_REASON: Final = 300
MAX_BLOB: Final = 512 * 1024 * 1024
MAX_TASK: Final = 64 * 1024
MAX_AUX: Final = 8
TOGETHER, APART, ABOVE = 0, 1, 2
"""What a plan may say about whose sums the root sees."""
MAX_DIMENSION: Final = MAX_BLOB // 4 - 8192
"""Coordinates of a vector: more than this many fit in no Upload, so no plan may ask for them."""

U8: Final = Number("B", 0, 2**8 - 1)
COUNT16: Final = Number("H", 1, 2**16 - 1)
COUNT32: Final = Number("I", 1, 2**32 - 1)
DIMENSION: Final = Number("I", 1, MAX_DIMENSION)
U32: Final = Number("I", 0, 2**32 - 1)
U64: Final = Number("Q", 0, 2**64 - 1)
POSITIVE: Final = Number("d", 5e-324, 1e300)
HASH: Final = Raw(32, exact=32)
NAME: Final = Text(MAX_NAME)
REASON: Final = Text(MAX_REASON)
BOX: Final = Raw(128)
SHARE: Final = Raw(64)
PREPARE: Final = Raw(16384)
VECTOR: Final = Raw(MAX_BLOB, view=True)
SIGNATURE: Final = Raw(64, exact=64)
TASK: Final = Raw(MAX_TASK)


@dataclass(frozen=True, slots=True)
class Join:
    """Child to parent: count me in, with this one-epoch KEM key.

    `devices` counts the devices beneath (1 for a device itself) and bounds what the child may add
    to a sum. `last_round` is the highest round it has spent pads in and `last_epoch` the highest
    epoch it has seen: the next must be above them. `renew` offers the key for the next epoch
    without asking for one.
    """

    KIND: ClassVar[int] = 1
    FIELDS: ClassVar[dict[str, Codec]] = {
        "parent": NAME,
        "kem": Raw(2048),
        "devices": COUNT32,
        "last_round": U32,
        "last_epoch": U32,
        "renew": U8,
    }
    parent: str
    kem: bytes
    devices: int
    last_round: int
    last_epoch: int
    renew: int


@dataclass(frozen=True, slots=True)
class Roster:
    """Parent to all, retained: who is in this epoch.

    `joins` holds each member's own signed Join envelope as it came, so that no key in it can be
    exchanged by whoever publishes the roster. `threshold` answers open
    a sum; `keystream` names the cipher that expands seeds, by its place in `pads.Keystream`.
    """

    KIND: ClassVar[int] = 2
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "threshold": U8,
        "keystream": U8,
        "kem": Raw(2048),
        "joins": Many(Raw(8192), MAX_MEMBERS),
    }
    epoch: int
    threshold: int
    keystream: int
    kem: bytes
    joins: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Bundles:
    """Member to parent: one sealed pair secret for each other member of the roster."""

    KIND: ClassVar[int] = 3
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "roster": HASH,
        "sealed": Many(Pair(NAME, Raw(4096)), MAX_MEMBERS),
    }
    epoch: int
    roster: bytes
    sealed: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Delivery:
    """Parent to one member: the bundles that the others sealed to it, by their sender's id."""

    KIND: ClassVar[int] = 4
    FIELDS: ClassVar[dict[str, Codec]] = Bundles.FIELDS
    epoch: int
    roster: bytes
    sealed: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a turn of the epoch is about, the same for all members: the body inside a `Call`.

    `turn` counts the epoch's attempts, `round` is the root's number. At least `min_survivors` must
    be in the sum. The ring has `bits` 8, 16 or 32.
    `task` says what the `dimension` coordinates of a device's vector are (`learning/task.py`).
    `devices` bounds the number of devices in the whole tree; with clip and max_samples it fixes the
    fixed-point code. `deadline` is in seconds from receipt: clocks are not compared.
    `apart` says whose sums the root sees: 0, that of the whole tree alone; 1, that of each member
    of this cohort, which puts it into a slot of its own; 2, that of this cohort
    (`learning/slots.py`).
    """

    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "turn": U32,
        "round": U32,
        "roster": HASH,
        "min_survivors": U8,
        "bits": U8,
        "cohort": Many(NAME, MAX_MEMBERS),
        "model_version": U32,
        "model_hash": HASH,
        "task": TASK,
        "dimension": DIMENSION,
        "devices": COUNT32,
        "clip": POSITIVE,
        "max_samples": COUNT32,
        "epochs": COUNT16,
        "batch_size": COUNT16,
        "learning_rate": POSITIVE,
        "seed": U64,
        "deadline": POSITIVE,
        "apart": Number("B", 0, 2),
    }
    epoch: int
    turn: int
    round: int
    roster: bytes
    min_survivors: int
    bits: int
    cohort: tuple[str, ...]
    model_version: int
    model_hash: bytes
    task: bytes
    dimension: int
    devices: int
    clip: float
    max_samples: int
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    deadline: float
    apart: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """Parent to one member: the plan of a turn, and the boxes that the others left for it."""

    KIND: ClassVar[int] = 10
    FIELDS: ClassVar[dict[str, Codec]] = {
        "plan": Raw(4096 + MAX_TASK),
        "boxes": Many(Pair(NAME, BOX), MAX_MEMBERS),
    }
    plan: bytes
    boxes: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Prepare:
    """Member to parent: what it leaves for a turn, so that the turn survives its absence.

    See `secagg/boxes.py`. Comes inside an upload for the turn after it, or by itself.
    """

    KIND: ClassVar[int] = 11
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "turn": U32,
        "boxes": Many(Pair(NAME, BOX), MAX_MEMBERS),
        "escrow": Raw(2048),
        "commit_b": HASH,
        "commit_k": HASH,
    }
    epoch: int
    turn: int
    boxes: tuple[tuple[str, bytes], ...]
    escrow: bytes
    commit_b: bytes
    commit_k: bytes


@dataclass(frozen=True, slots=True)
class Upload:
    """Member to parent: `Contents`, in a parcel to the aggregator's key of this epoch.

    `receipt` signs the context, for the other members (`rounds/agreement.py`).
    """

    KIND: ClassVar[int] = 6
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "turn": U32,
        "context": HASH,
        "receipt": SIGNATURE,
        "sealed": Raw(MAX_BLOB, view=True),
    }
    epoch: int
    turn: int
    context: bytes
    receipt: bytes
    sealed: Buffer


@dataclass(frozen=True, slots=True)
class Contents:
    """Inside an upload: the masked vector, little-endian, and the `Prepare` for the next turn.

    The vector comes first, so that its elements lie where a processor likes to read them.
    """

    FIELDS: ClassVar[dict[str, Codec]] = {"vector": VECTOR, "prepare": PREPARE}
    vector: Buffer
    prepare: bytes


@dataclass(frozen=True, slots=True)
class Reveal:
    """Parent to all: these members are in the sum; answer with what opens it.

    `receipts` are the survivors' own, in their order. Where somebody of the cohort is missing it
    is sent twice: to be answered with a Consent, and once more with the `consents` to be answered
    with an Answer.
    """

    KIND: ClassVar[int] = 12
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "turn": U32,
        "context": HASH,
        "survivors": Many(NAME, MAX_MEMBERS),
        "receipts": Many(SIGNATURE, MAX_MEMBERS),
        "consents": Many(Pair(NAME, SIGNATURE), MAX_MEMBERS),
    }
    epoch: int
    turn: int
    context: bytes
    survivors: tuple[str, ...]
    receipts: tuple[bytes, ...]
    consents: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Consent:
    """Member to parent: my signature under a Reveal's survivor set."""

    KIND: ClassVar[int] = 14
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "turn": U32,
        "context": HASH,
        "signature": SIGNATURE,
    }
    epoch: int
    turn: int
    context: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """Member to parent: `Opened`, sealed to the aggregator's key of this epoch."""

    KIND: ClassVar[int] = 13
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "turn": U32,
        "context": HASH,
        "sealed": Raw(8192),
    }
    epoch: int
    turn: int
    context: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """Inside an answer: a share of b for each survivor, of K for each other cohort member."""

    FIELDS: ClassVar[dict[str, Codec]] = {"shares": Many(Pair(NAME, SHARE), MAX_MEMBERS)}
    shares: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Abort:
    """Either way: this turn has failed for the sender, and why."""

    KIND: ClassVar[int] = 7
    FIELDS: ClassVar[dict[str, Codec]] = {"epoch": U32, "turn": U32, "reason": REASON}
    epoch: int
    turn: int
    reason: str


@dataclass(frozen=True, slots=True)
class Model:
    """Cloud to all, through each tier verbatim, retained: a version of the global model.

    `params` is float32 little-endian; `aux` holds further such vectors by name, which devices need
    for the next round (a control variate, a normalisation) or to answer. `digest` is of them all
    (`learning/state.py`); `devices` and `samples` say what the sum behind it counted; `final` is 1
    when no further round follows.
    """

    KIND: ClassVar[int] = 8
    FIELDS: ClassVar[dict[str, Codec]] = {
        "version": U32,
        "round": U32,
        "digest": HASH,
        "params": Raw(MAX_BLOB),
        "aux": Many(Pair(NAME, Raw(MAX_BLOB)), MAX_AUX),
        "devices": U32,
        "samples": U64,
        "final": U8,
    }
    version: int
    round: int
    digest: bytes
    params: bytes
    aux: tuple[tuple[str, bytes], ...]
    devices: int
    samples: int
    final: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Child to parent: I go; do not wait for me."""

    KIND: ClassVar[int] = 9
    FIELDS: ClassVar[dict[str, Codec]] = {"reason": REASON}
    reason: str


Message = (
    Join
    | Roster
    | Bundles
    | Delivery
    | Call
    | Prepare
    | Upload
    | Reveal
    | Consent
    | Answer
    | Abort
    | Model
    | Leave
)
Inner = Plan | Contents | Opened
KINDS: Final[dict[int, type[Message]]] = {
    m.KIND: m
    for m in (
        Join,
        Roster,
        Bundles,
        Delivery,
        Call,
        Prepare,
        Upload,
        Reveal,
        Consent,
        Answer,
        Abort,
        Model,
        Leave,
    )
}
Body = TypeVar("Body", bound=Message | Inner)


def encode(message: Message | Inner) -> bytes:
    """The canonical body of a message. Raises LocalError where a value does not fit its field."""
    return b"".join(parts(message))


def parts(message: Message | Inner) -> list[Buffer]:
    """The same in pieces, of which the long ones are the message's own, not copies."""
    pieces: list[Buffer] = []
    for name, codec in message.FIELDS.items():
        codec.write(getattr(message, name), pieces)
    return pieces


def around_vector(size: int, prepare: bytes) -> tuple[bytes, bytes]:
    """What stands before and after a vector of `size` bytes in the body of its `Contents`."""
    return VECTOR.prefix(size), PREPARE.prefix(len(prepare)) + prepare


def decode(kind: int, body: bytes | memoryview) -> Message:
    """Read a body of the given kind. Raises Malformed for anything `encode` would not make."""
    maker = KINDS.get(kind)
    if maker is None:
        raise Malformed(f"message kind {kind} is not one of {sorted(KINDS)}")
    return decode_as(maker, body)


def decode_as(maker: type[Body], body: bytes | memoryview) -> Body:
    """Read a body that must be of this message. Raises Malformed."""
    cursor = Cursor(body)
    values = {name: codec.read(cursor) for name, codec in maker.FIELDS.items()}
    if cursor.at != len(cursor.data):
        raise Malformed(f"{len(cursor.data) - cursor.at} bytes too many after the message")
    return maker(**values)


def reason(text: str) -> str:
    """Text of whatever length and origin, cut to what a message's reason may hold."""
    return text.encode(errors="replace")[:MAX_REASON].decode(errors="ignore")
