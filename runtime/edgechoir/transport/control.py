"""Control messages of a transfer: what a sender asks and what a receiver answers.

    control = magic "ET" | version u8 | kind u8 | sha256 of the blob [32] | fields   (big-endian)
    offer   = ask u32 | count u32 | total u64 | milliseconds left u32
    ack     = receiver's instance [8] | sequence u64 | ask u32 | window u16 | done u8 | bitmap
    cancel  = (no fields)
    refuse  = cause u8

They travel on the topics of the data: the sender's beside its chunks, the receiver's on the topic
on which it would send blobs the other way. They are hints and carry no signature. Who can forge
them (the broker's access list lets nobody but the two) can stop a transfer or make it slow; what
is delivered is decided by the blob's hash, and who said it by the signed envelope inside.
"""

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from edgechoir.errors import Malformed

MAGIC: Final = b"ET"
VERSION: Final = 1
INSTANCE: Final = 8
LONGEST_MS: Final = 2**32 - 1

_HEAD: Final = struct.Struct(">2sBB32s")
_OFFER: Final = struct.Struct(">IIQI")
_ACK: Final = struct.Struct(">8sQIHB")


class Cause(IntEnum):
    """Why a receiver takes no more of a blob."""

    TOO_LARGE = 1
    UNWANTED = 2


@dataclass(frozen=True, slots=True)
class Offer:
    """What do you have of this blob, and may I send? `left`: seconds until it is of no use.

    `ask` numbers the sender's messages about the blob, chunks included.
    """

    digest: bytes
    ask: int
    count: int
    total: int
    left: float


@dataclass(frozen=True, slots=True)
class Ack:
    """What has arrived: bit i of `have` is chunk i. `window` chunks more may be under way.

    `ask` is the highest number among the offers heard, so the sender knows what came before it.
    `sequence` orders the answers of one receiver's process, `instance`. `done`: the blob was
    complete, its hash right, and it was handed over.
    """

    digest: bytes
    instance: bytes
    sequence: int
    ask: int
    window: int
    done: bool
    have: int


@dataclass(frozen=True, slots=True)
class Cancel:
    """The sender gives a blob up."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """The receiver takes no more of a blob."""

    digest: bytes
    cause: Cause


Control = Offer | Ack | Cancel | Refuse


def encode(control: Control) -> bytes:
    """The bytes of a control message."""
    match control:
        case Offer(digest, ask, count, total, left):
            milliseconds = min(max(int(left * 1000), 0), LONGEST_MS)
            return _head(1, digest) + _OFFER.pack(ask, count, total, milliseconds)
        case Ack(digest, instance, sequence, ask, window, done, have):
            bitmap = have.to_bytes(-(-have.bit_length() // 8), "little")
            return _head(2, digest) + _ACK.pack(instance, sequence, ask, window, done) + bitmap
        case Cancel(digest):
            return _head(3, digest)
        case Refuse(digest, cause):
            return _head(4, digest) + bytes([cause])


def _head(kind: int, digest: bytes) -> bytes:
    return _HEAD.pack(MAGIC, VERSION, kind, digest)


def is_control(payload: bytes) -> bool:
    """Is this a control message, of whatever version, and not a chunk?"""
    return payload[:2] == MAGIC


def decode(payload: bytes) -> Control:
    """Read a control message. Raises Malformed."""
    if len(payload) < _HEAD.size:
        raise Malformed(f"control message of {len(payload)} bytes, its head alone {_HEAD.size}")
    magic, version, kind, digest = _HEAD.unpack_from(payload)
    rest = payload[_HEAD.size :]
    if magic != MAGIC or version != VERSION:
        raise Malformed(
            f"control message starts with {magic!r}, version {version}; "
            f"expected {MAGIC!r}, version {VERSION}"
        )
    if kind == 1 and len(rest) == _OFFER.size:
        ask, count, total, milliseconds = _OFFER.unpack(rest)
        return Offer(digest, ask, count, total, milliseconds / 1000)
    if kind == 2 and len(rest) >= _ACK.size:
        instance, sequence, ask, window, done = _ACK.unpack_from(rest)
        have = int.from_bytes(rest[_ACK.size :], "little")
        return Ack(digest, instance, sequence, ask, window, bool(done), have)
    if kind == 3 and not rest:
        return Cancel(digest)
    if kind == 4 and len(rest) == 1 and rest[0] in set(Cause):
        return Refuse(digest, Cause(rest[0]))
    raise Malformed(f"control message of kind {kind} with {len(rest)} bytes of fields")
