"""The body of every binary message, and the one codec that reads and writes them.

A message is a frozen dataclass with a `KIND` and a `FIELDS` table. Numbers are big-endian; text
is UTF-8; text, bytes and lists carry a u32 length. Decoding accepts exactly the bytes that
encoding makes: a short, long, oversized or non-canonical body is Malformed, never another error.
Bodies travel inside signed envelopes (`identity/envelope.py`); nothing here is trusted before the
envelope is verified.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from edgechoir.errors import LocalError, Malformed

VERSION: Final = 1
MAX_MEMBERS: Final = 32
MAX_NAME: Final = 32
MAX_REASON: Final = 300
MAX_BLOB: Final = 512 * 1024 * 1024
MAX_DIMENSION: Final = MAX_BLOB // 4 - 1024
"""Model parameters: more than this many would fit in no Upload, so no plan may ask for them."""


class Codec(Protocol):
    """Writes one value into parts, and reads it back from a cursor."""

    def write(self, value: Any, parts: list[bytes]) -> None: ...
    def read(self, cursor: "Cursor") -> Any: ...


class Cursor:
    """A position in received bytes; every read is checked against what is left."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)
        self.at = 0

    def take(self, n: int, what: str) -> memoryview:
        left = len(self.data) - self.at
        if n > left:
            raise Malformed(f"{what}: expected {n} bytes, {left} are left")
        self.at += n
        return self.data[self.at - n : self.at]


@dataclass(frozen=True, slots=True)
class Number:
    """A fixed-width number, `layout` as in `struct`, within [low, high]."""

    layout: str
    low: float
    high: float

    def write(self, value: float, parts: list[bytes]) -> None:
        if not self.low <= value <= self.high:
            raise LocalError(f"{value} does not fit the field {self.layout}")
        parts.append(struct.pack(">" + self.layout, value))

    def read(self, cursor: Cursor) -> int | float:
        raw = cursor.take(struct.calcsize(">" + self.layout), "number")
        value: int | float = struct.unpack(">" + self.layout, raw)[0]
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise Malformed(f"number {value} is outside {self.low}..{self.high}")
        return value


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes with a length prefix; `exact` gives the only allowed length."""

    limit: int
    exact: int | None = None

    def write(self, value: bytes, parts: list[bytes]) -> None:
        self._check(len(value), LocalError)
        parts.append(struct.pack(">I", len(value)))
        parts.append(value)

    def read(self, cursor: Cursor) -> bytes:
        n = struct.unpack(">I", cursor.take(4, "length"))[0]
        self._check(n, Malformed)
        return bytes(cursor.take(n, "bytes"))

    def _check(self, n: int, error: type[LocalError] | type[Malformed]) -> None:
        if self.exact is not None and n != self.exact:
            raise error(f"expected {self.exact} bytes, saw {n}")
        if n > self.limit:
            raise error(f"expected at most {self.limit} bytes, saw {n}")


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 text of at most `limit` bytes."""

    limit: int

    def write(self, value: str, parts: list[bytes]) -> None:
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise LocalError(f"text has no UTF-8 form: {error.reason}") from None
        Raw(self.limit).write(raw, parts)

    def read(self, cursor: Cursor) -> str:
        try:
            return Raw(self.limit).read(cursor).decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"text is not UTF-8: {error.reason}") from None


@dataclass(frozen=True, slots=True)
class Many:
    """A list of at most `limit` values, read back as a tuple."""

    each: Codec
    limit: int

    def write(self, value: tuple[Any, ...], parts: list[bytes]) -> None:
        if len(value) > self.limit:
            raise LocalError(f"expected at most {self.limit} entries, saw {len(value)}")
        parts.append(struct.pack(">I", len(value)))
        for one in value:
            self.each.write(one, parts)

    def read(self, cursor: Cursor) -> tuple[Any, ...]:
        n = struct.unpack(">I", cursor.take(4, "count"))[0]
        if n > self.limit:
            raise Malformed(f"expected at most {self.limit} entries, saw {n}")
        return tuple(self.each.read(cursor) for _ in range(n))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two values side by side, read back as a tuple."""

    first: Codec
    second: Codec

    def write(self, value: tuple[Any, Any], parts: list[bytes]) -> None:
        self.first.write(value[0], parts)
        self.second.write(value[1], parts)

    def read(self, cursor: Cursor) -> tuple[Any, Any]:
        return self.first.read(cursor), self.second.read(cursor)


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
    exchanged by whoever publishes the roster. Pair chains start at `first_round`.
    """

    KIND: ClassVar[int] = 2
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "first_round": U32,
        "kem": Raw(2048),
        "joins": Many(Raw(8192), MAX_MEMBERS),
    }
    epoch: int
    first_round: int
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
    """Parent to all, retained: one round.

    `devices` bounds the number of devices in the whole tree; with clip and max_samples it fixes the
    fixed-point code. `deadline` is in seconds from receipt: clocks are not compared.
    """

    KIND: ClassVar[int] = 5
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "round": U32,
        "roster": HASH,
        "cohort": Many(NAME, MAX_MEMBERS),
        "model_version": U32,
        "model_hash": HASH,
        "dimension": DIMENSION,
        "devices": COUNT32,
        "clip": POSITIVE,
        "max_samples": COUNT32,
        "epochs": COUNT16,
        "batch_size": COUNT16,
        "learning_rate": POSITIVE,
        "seed": U64,
        "deadline": POSITIVE,
    }
    epoch: int
    round: int
    roster: bytes
    cohort: tuple[str, ...]
    model_version: int
    model_hash: bytes
    dimension: int
    devices: int
    clip: float
    max_samples: int
    epochs: int
    batch_size: int
    learning_rate: float
    seed: int
    deadline: float


@dataclass(frozen=True, slots=True)
class Upload:
    """Member to parent: the masked vector, sealed to the aggregator's key of this epoch."""

    KIND: ClassVar[int] = 6
    FIELDS: ClassVar[dict[str, Codec]] = {
        "epoch": U32,
        "round": U32,
        "context": HASH,
        "sealed": Raw(MAX_BLOB),
    }
    epoch: int
    round: int
    context: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Abort:
    """Either way: this round has failed for the sender, and why."""

    KIND: ClassVar[int] = 7
    FIELDS: ClassVar[dict[str, Codec]] = {"round": U32, "reason": REASON}
    round: int
    reason: str


@dataclass(frozen=True, slots=True)
class Model:
    """Cloud to all, through each tier verbatim, retained: a version of the global model.

    `params` is float32 little-endian, `digest` its SHA-256; `devices` and `samples` say what the
    sum behind it counted; `final` is 1 when no further round follows.
    """

    KIND: ClassVar[int] = 8
    FIELDS: ClassVar[dict[str, Codec]] = {
        "version": U32,
        "round": U32,
        "digest": HASH,
        "params": Raw(MAX_BLOB),
        "devices": U32,
        "samples": U64,
        "final": U8,
    }
    version: int
    round: int
    digest: bytes
    params: bytes
    devices: int
    samples: int
    final: int


@dataclass(frozen=True, slots=True)
class Leave:
    """Child to parent: I go; do not wait for me."""

    KIND: ClassVar[int] = 9
    FIELDS: ClassVar[dict[str, Codec]] = {"reason": REASON}
    reason: str


Message = Join | Roster | Bundles | Delivery | Plan | Upload | Abort | Model | Leave
KINDS: Final[dict[int, type[Message]]] = {
    m.KIND: m for m in (Join, Roster, Bundles, Delivery, Plan, Upload, Abort, Model, Leave)
}


def encode(message: Message) -> bytes:
    """The canonical body of a message. Raises LocalError where a value does not fit its field."""
    parts: list[bytes] = []
    for name, codec in message.FIELDS.items():
        codec.write(getattr(message, name), parts)
    return b"".join(parts)


def decode(kind: int, body: bytes | memoryview) -> Message:
    """Read a body of the given kind. Raises Malformed for anything `encode` would not make."""
    maker = KINDS.get(kind)
    if maker is None:
        raise Malformed(f"message kind {kind} is not one of {sorted(KINDS)}")
    cursor = Cursor(body)
    values = {name: codec.read(cursor) for name, codec in maker.FIELDS.items()}
    if cursor.at != len(cursor.data):
        raise Malformed(f"{len(cursor.data) - cursor.at} bytes too many after the message")
    return maker(**values)


def reason(text: str) -> str:
    """Text of whatever length and origin, cut to what a message's reason may hold."""
    return text.encode(errors="replace")[:MAX_REASON].decode(errors="ignore")
