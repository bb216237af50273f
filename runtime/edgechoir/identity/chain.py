"""A log that shows when it was changed: records chained by hash and sealed by signature.

One record a line: the chain's hash so far in hex, a space, one JSON object, a newline. The hash is
SHA-256 over a label, the hash of the line above and the JSON's exact bytes (Haber and Stornetta
1991, section 5.1), so a line commits to all before it. `n` numbers the records.

Two kinds of record belong to the chain itself. `signer` opens every file, and stands wherever the
key changes: it carries the certificate under which the seals after it were made, and `prev`, the
hash that it follows. `seal` holds a signature over the hash of the line above, and so over all
that is above (Schneier and Kelsey 1999, section 3). Whoever has not the key can change nothing
that is sealed. What nobody can see in the log alone is that its end was taken off behind a seal:
compare its head with one that somebody else has kept.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from edgechoir.errors import Malformed, RemoteError
from edgechoir.identity.certificate import Certified, Root, read_certificate, read_unchecked
from edgechoir.identity.keys import SigningKey, sign, verify

RECORD: Final = b"edgechoir audit record v1\0"
SEAL: Final = b"edgechoir audit seal v1\0"
NOTHING: Final = bytes(32)
"""What the first record of all follows."""
MAX_LINE: Final = 16_384


@dataclass(frozen=True, slots=True)
class Head:
    """Where a chain stands: the number of its next record, and the hash of the last."""

    next: int = 0
    hash: bytes = NOTHING


@dataclass(frozen=True, slots=True)
class Line:
    """One record as it stands in a file; `hash` is what it says, not yet what is true."""

    hash: bytes
    body: bytes
    number: int
    at: float
    kind: str
    fields: Mapping[str, Any]


def extend(head: Head, at: float, kind: str, fields: Mapping[str, Any]) -> tuple[Head, bytes]:
    """Add a record; the new head, and its line. Raises Malformed for one that has no place."""
    body = json.dumps(
        {"n": head.next, "at": round(at, 3), "kind": kind, **fields},
        ensure_ascii=True,
        allow_nan=False,
        separators=(",", ":"),
    ).encode()
    digest = follow(head.hash, body)
    line = digest.hex().encode() + b" " + body + b"\n"
    if len(line) > MAX_LINE:
        raise Malformed(f"a record of {len(line)} bytes, the limit is {MAX_LINE}")
    return Head(head.next + 1, digest), line


def introduce(head: Head, at: float, certificate: Certified) -> tuple[Head, bytes]:
    """The record that says whose seals follow."""
    fields = {
        "member": str(certificate.address),
        "federation": certificate.federation,
        "prev": head.hash.hex(),
        "certificate": base64.b64encode(certificate.der).decode(),
    }
    return extend(head, at, "signer", fields)


def seal(head: Head, at: float, key: SigningKey) -> tuple[Head, bytes]:
    """The record that binds its signer to all that stands above."""
    return extend(head, at, "seal", {"signature": sign(key, SEAL, head.hash).hex()})


def follow(before: bytes, body: bytes) -> bytes:
    """The hash of a record that stands after `before`."""
    return hashlib.sha256(RECORD + before + body).digest()


def read_line(line: bytes) -> Line:
    """Read a line without its newline. Raises Malformed."""
    if len(line) >= MAX_LINE:
        raise Malformed("it is longer than any record")
    try:
        digest, body = bytes.fromhex(line[:64].decode("ascii")), line[65:]
        fields = json.loads(body)
        if line[64:65] != b" " or len(digest) != 32 or not isinstance(fields, dict):
            raise ValueError
        number, at, kind = fields.pop("n"), fields.pop("at"), fields.pop("kind")
        if isinstance(number, bool) or not isinstance(number, int) or not isinstance(kind, str):
            raise ValueError
        return Line(digest, body, number, float(at), kind, fields)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise Malformed("it is no record: not a hash and a JSON object") from None


@dataclass(slots=True)
class Auditor:
    """Goes through a log line by line. With a `root` the signers' certificates are checked too.

    `wrong` says what does not hold; reading goes on behind it, with what the line claims.
    """

    root: Root | None
    head: Head | None = None
    first: int | None = None
    seals: int = 0
    sealed: int = 0
    """Records that a good seal covers: all with a number below this."""
    signer: Certified | None = None
    started: Head | None = None
    """What the first record read says that it follows."""
    dropped: tuple[int, str] | None = None
    """The newest word on files dropped before: records in all, and the last one's hash."""

    def read(self, line: Line) -> list[str]:
        """Take the next record; what is wrong with it, in sentences."""
        if self.head is None:
            self.head = self.started = Head(line.number, _claimed(line))
            self.first = line.number
        wrong = self._place(line, self.head)
        before = self.head.hash
        self.head = Head(line.number + 1, line.hash)
        match line.kind:
            case "signer":
                wrong += self._signer(line, before)
            case "seal":
                wrong += self._seal(line, before)
            case "dropped":
                records = line.fields.get("records")
                if isinstance(records, int):
                    self.dropped = (records, str(line.fields.get("hash")))
        return wrong

    def _place(self, line: Line, head: Head) -> list[str]:
        if line.number != head.next:
            return [
                f"record {line.number} stands where {head.next} is due: "
                "records were removed, added or put in another order"
            ]
        if follow(head.hash, line.body) != line.hash:
            return [f"record {line.number} ({line.kind[:64]!r}) was changed: its hash does not fit"]
        return []

    def _signer(self, line: Line, before: bytes) -> list[str]:
        if _claimed(line) != before:
            return [f"record {line.number} follows another record than the one above"]
        try:
            der = base64.b64decode(str(line.fields.get("certificate")), validate=True)
            certificate = (
                read_unchecked(der)
                if self.root is None
                else read_certificate(der, self.root, line.at)
            )
        except (RemoteError, ValueError) as error:
            return [f"record {line.number} brings a signer that cannot be trusted: {error}"]
        previous, self.signer = self.signer, certificate
        if previous is not None and (previous.federation, previous.address) != (
            certificate.federation,
            certificate.address,
        ):
            return [
                f"record {line.number} hands the log of {previous.address} to {certificate.address}"
            ]
        return []

    def _seal(self, line: Line, before: bytes) -> list[str]:
        if self.signer is None:
            return [f"record {line.number} is a seal, but nobody is named as its signer"]
        if not _fits(self.signer.public_key, line.fields.get("signature"), before):
            return [
                f"record {line.number} is a seal that {self.signer.address} has not made: "
                "something above was changed"
            ]
        self.seals += 1
        self.sealed = line.number
        return []


def _fits(key: EllipticCurvePublicKey, signature: object, hash: bytes) -> bool:
    try:
        verify(key, bytes.fromhex(str(signature)), SEAL, hash)
    except (RemoteError, ValueError):
        return False
    return True


def _claimed(line: Line) -> bytes:
    """The hash that a signer's record says it follows."""
    try:
        return bytes.fromhex(str(line.fields.get("prev", "")))
    except ValueError:
        return b""
