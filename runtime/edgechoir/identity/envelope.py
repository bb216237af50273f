"""The signed envelope: the outer form of every binary message.

Big endian: "EC", version u8 = 1, kind u8, federation (u8 length + bytes), tier (u8 + bytes),
member (u8 + bytes), instance 8 bytes, sequence u64, certificate (u16 + DER), body (u32 + bytes),
signature 64 bytes over b"edgechoir envelope v1\\0" and all that precedes it.

The sender's certificate is inside, so a receiver needs nothing but the root. `instance` is drawn
once per process and `sequence` grows within it: `gate.py` refuses replays and second processes by
them. The envelope says who wrote a message, not whether that member may say it here: that is for
whoever reads the body.

One Verifier serves one thread.
"""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgechoir.errors import BadCertificate, LocalError, Malformed, Revoked
from edgechoir.identity.certificate import Certified, Root, check_time, read_certificate
from edgechoir.identity.keys import SIGNATURE_BYTES, SigningKey, sign, verify
from edgechoir.identity.naming import SPEAKERS
from edgechoir.types import Address

MAGIC: Final = b"EC"
VERSION: Final = 1
DOMAIN: Final = b"edgechoir envelope v1\0"
INSTANCE_BYTES: Final = 8
MAX_CACHED: Final = 1024
"""Certificates a Verifier remembers, about 2 KB each."""
Body = bytes | memoryview | Sequence[bytes | memoryview]


@dataclass(frozen=True, slots=True)
class Envelope:
    """An opened message. `digest` is sha256 of the whole envelope, signature included."""

    kind: int
    federation: str
    sender: Address
    instance: bytes
    sequence: int
    certificate: Certified
    body: bytes
    digest: bytes


class Signer:
    """Wraps the messages of one process of one member."""

    def __init__(self, key: SigningKey, certificate: Certified, instance: bytes) -> None:
        if key.public_key() != certificate.public_key:
            raise LocalError(f"the key does not fit the certificate of {certificate.address}")
        if len(instance) != INSTANCE_BYTES:
            raise LocalError(f"an instance of {len(instance)} bytes, expected {INSTANCE_BYTES}")
        self.certificate = certificate
        self.instance = instance
        self._key = key
        names = (certificate.federation, certificate.address.tier, certificate.address.member)
        self._names = b"".join(bytes((len(name),)) + name.encode() for name in names)
        self._certificate = struct.pack(">H", len(certificate.der)) + certificate.der
        self._last = -1

    def wrap(self, kind: int, body: Body, sequence: int) -> bytes:
        """A signed envelope around `body`, whole or in pieces, which are put together only here.

        LocalError unless `sequence` grows from call to call.
        """
        if sequence <= self._last:
            raise LocalError(f"sequence {sequence} after {self._last}: it must grow")
        self._last = sequence
        pieces = (body,) if isinstance(body, bytes | memoryview) else tuple(body)
        head = b"".join(
            (
                MAGIC,
                bytes((VERSION, kind)),
                self._names,
                self.instance,
                struct.pack(">Q", sequence),
                self._certificate,
                struct.pack(">I", sum(map(len, pieces))),
            )
        )
        return b"".join((head, *pieces, sign(self._key, DOMAIN, head, *pieces)))


class Verifier:
    """Opens envelopes of one federation, up to `limit_bytes` each."""

    def __init__(self, root: Root, federation: str, limit_bytes: int) -> None:
        if root.federation != federation:
            raise LocalError(f"a root of {root.federation!r} to verify {federation!r}")
        self._root = root
        self._limit = limit_bytes
        self._known: dict[bytes, Certified] = {}
        self.revoked: frozenset[int] = frozenset()
        """Serial numbers; every envelope is held to them, those inside others too."""

    def open(self, data: bytes, now: float) -> Envelope:
        """Check everything about an envelope and open it.

        Raises Malformed, BadCertificate, BadSignature or Revoked.
        """
        if len(data) > self._limit:
            raise Malformed(f"an envelope of {len(data)} bytes, the limit is {self._limit}")
        reader = _Reader(memoryview(data))
        if (magic := bytes(reader.take(2))) != MAGIC:
            raise Malformed(f"not an envelope: it begins {magic.hex()}, expected {MAGIC.hex()}")
        version, kind = reader.take(2)
        if version != VERSION:
            raise Malformed(f"an envelope of version {version}, expected {VERSION}")
        federation, tier, member = (bytes(reader.counted(1)) for _ in range(3))
        instance = bytes(reader.take(INSTANCE_BYTES))
        sequence = int.from_bytes(reader.take(8))
        der = bytes(reader.counted(2))
        body = reader.counted(4)
        signed = reader.at
        signature = bytes(reader.take(SIGNATURE_BYTES))
        if reader.at != len(data):
            raise Malformed(f"{len(data) - reader.at} bytes after the signature")

        certificate = self._certified(der, now)
        sender = certificate.address
        if sender.tier not in SPEAKERS:
            raise BadCertificate(f"{sender} signed a message, only {', '.join(SPEAKERS)} may")
        claim = (federation, tier, member)
        if claim != tuple(n.encode() for n in (certificate.federation, sender.tier, sender.member)):
            raise BadCertificate(
                f"the envelope says it is from {b'/'.join(claim)!r}, its certificate is for "
                f"{certificate.federation}/{sender}"
            )
        verify(certificate.public_key, signature, DOMAIN, memoryview(data)[:signed])
        if certificate.serial in self.revoked:
            raise Revoked(f"{sender} signed a message, but its certificate was revoked")
        return Envelope(
            kind=kind,
            federation=certificate.federation,
            sender=sender,
            instance=instance,
            sequence=sequence,
            certificate=certificate,
            body=bytes(body),
            digest=hashlib.sha256(data).digest(),
        )

    def _certified(self, der: bytes, now: float) -> Certified:
        fingerprint = hashlib.sha256(der).digest()
        known = self._known.get(fingerprint)
        if known is not None:
            check_time(known, self._root, now)
            return known
        certified = read_certificate(der, self._root, now)
        while len(self._known) >= MAX_CACHED:
            del self._known[next(iter(self._known))]
        self._known[fingerprint] = certified
        return certified


class _Reader:
    """Takes fields off the front of a buffer without copying it. Raises Malformed at its end."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self.at = 0

    def take(self, n: int) -> memoryview:
        end = self.at + n
        if end > len(self._data):
            raise Malformed(
                f"the envelope is cut off: {len(self._data)} bytes, a field ends at {end}"
            )
        part = self._data[self.at : end]
        self.at = end
        return part

    def counted(self, width: int) -> memoryview:
        return self.take(int.from_bytes(self.take(width)))
