"""Reading certificates: a member's, checked against the fleet's root.

A certificate is first cut into its three parts (RFC 5280, section 4.1) and the root's signature
is checked over the raw bytes; only what the fleet CA itself has signed reaches the X.509 parser.
There are no intermediate authorities, so there is no path to build.

A fingerprint names exact bytes. ECDSA signatures can be rewritten by anybody into a second valid
form, so a list of *allowed* fingerprints is sound and a list of forbidden ones is not: revocation
goes by serial number.
"""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edgechoir.errors import BadCertificate, Malformed, OperatorError
from edgechoir.identity.keys import on_p256
from edgechoir.identity.naming import SERVERS, read_subject, uri
from edgechoir.types import Address, MemberId, member_id

MAX_BYTES: Final = 4096
"""Ours are about 700 bytes; a broker with many names is the largest."""

_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER
_ECDSA_WITH_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_SEQUENCE, _BIT_STRING = 0x30, 0x03


@dataclass(frozen=True, slots=True)
class Root:
    """The fleet CA's certificate: the one thing every member trusts. Times in unix seconds."""

    federation: MemberId
    public_key: ec.EllipticCurvePublicKey
    fingerprint: bytes
    not_before: float
    not_after: float
    der: bytes


@dataclass(frozen=True, slots=True)
class Certified:
    """What the fleet CA says of one member. `fingerprint` is sha256 of `der`; times as in Root."""

    federation: MemberId
    address: Address
    public_key: ec.EllipticCurvePublicKey
    serial: int
    fingerprint: bytes
    not_before: float
    not_after: float
    der: bytes


def read_certificate(der: bytes, root: Root, now: float) -> Certified:
    """Check a certificate against the root and read who holds it.

    Raises Malformed (not a certificate) or BadCertificate: not signed by this fleet's CA, out of
    its time, or with a name or constraints that the CA of this package never gives.
    """
    body, signature = _split(der)
    try:
        root.public_key.verify(signature, body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise BadCertificate(
            f"the certificate is not signed by the CA of {root.federation!r} "
            f"(fingerprint {root.fingerprint.hex()[:16]})"
        ) from None
    certificate = _parse(der)
    federation, address = read_subject(certificate.subject)
    if federation != root.federation:
        raise BadCertificate(
            f"the certificate is for federation {federation!r}, expected {root.federation!r}"
        )
    _check_constraints(certificate, federation, address)
    certified = _certified(certificate, federation, address, der)
    check_time(certified, root, now)
    return certified


def read_unchecked(der: bytes) -> Certified:
    """What a certificate says, on its own word: neither signer nor time is checked.

    Raises Malformed or BadCertificate.
    """
    _split(der)
    certificate = _parse(der)
    federation, address = read_subject(certificate.subject)
    return _certified(certificate, federation, address, der)


def check_time(certified: Certified, root: Root, now: float) -> None:
    """Raise BadCertificate where `now` is outside the time of the certificate or of its root."""
    for holder, begin, end in (
        (str(certified.address), certified.not_before, certified.not_after),
        (f"the CA of {root.federation}", root.not_before, root.not_after),
    ):
        if now < begin:
            raise BadCertificate(
                f"the certificate of {holder} is not yet valid: it begins {_day(begin)}, "
                f"this clock says {_day(now)}"
            )
        if now > end:
            raise BadCertificate(
                f"the certificate of {holder} expired {_day(end)}, this clock says {_day(now)}"
            )


def read_root(der: bytes) -> Root:
    """Read the fleet CA's own certificate. Raises Malformed or BadCertificate; checks no time."""
    body, signature = _split(der)
    certificate = _parse(der)
    public_key = _public_key(certificate)
    try:
        public_key.verify(signature, body, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise BadCertificate("the CA's certificate is not signed by its own key") from None
    if not _constraints(certificate).ca:
        raise BadCertificate("the certificate given as the CA's is not one of a CA")
    names = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    try:
        federation = member_id(str(names[0].value) if len(names) == 1 else "")
    except OperatorError as error:
        raise BadCertificate(f"the CA's certificate names no federation: {error}") from None
    return Root(
        federation=federation,
        public_key=public_key,
        fingerprint=hashlib.sha256(der).digest(),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        der=bytes(der),
    )


def to_pem(der: bytes) -> bytes:
    """A certificate as PEM, for files that other programs read."""
    return x509.load_der_x509_certificate(der).public_bytes(_PEM)


def from_pem(pem: bytes) -> bytes:
    """The DER of the first certificate in PEM text. Raises Malformed."""
    try:
        return x509.load_pem_x509_certificate(pem).public_bytes(_DER)
    except ValueError as error:
        raise Malformed(f"not a certificate in PEM: {error}") from None


def _certified(
    certificate: x509.Certificate, federation: MemberId, address: Address, der: bytes
) -> Certified:
    return Certified(
        federation=federation,
        address=address,
        public_key=_public_key(certificate),
        serial=certificate.serial_number,
        fingerprint=hashlib.sha256(der).digest(),
        not_before=certificate.not_valid_before_utc.timestamp(),
        not_after=certificate.not_valid_after_utc.timestamp(),
        der=bytes(der),
    )


def _check_constraints(certificate: x509.Certificate, federation: str, address: Address) -> None:
    expected_use = (
        ExtendedKeyUsageOID.SERVER_AUTH
        if address.tier in SERVERS
        else ExtendedKeyUsageOID.CLIENT_AUTH
    )
    try:
        extensions = certificate.extensions
        usage = extensions.get_extension_for_class(x509.KeyUsage).value
        extended = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise BadCertificate(f"the certificate of {address} lacks an extension: {error}") from None
    if _constraints(certificate).ca or usage.key_cert_sign or usage.crl_sign:
        raise BadCertificate(f"the certificate of {address} is one of a CA, expected a member's")
    if not usage.digital_signature or list(extended) != [expected_use]:
        raise BadCertificate(f"the certificate of {address} is not for the use its tier has")
    if uris != [uri(federation, address).value]:
        raise BadCertificate(f"the certificate of {address} names itself {uris} beside its subject")


def _constraints(certificate: x509.Certificate) -> x509.BasicConstraints:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise BadCertificate(f"the certificate has no basic constraints: {error}") from None


def _public_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    try:
        key = certificate.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"the certificate's key cannot be read: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not on_p256(key):
        raise BadCertificate(f"the certificate's key is {type(key).__name__}, expected P-256")
    return key


def _parse(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(bytes(der))
    except (ValueError, x509.InvalidVersion) as error:
        raise Malformed(f"not a certificate: {error}") from None


def _split(der: bytes) -> tuple[bytes, bytes]:
    """The signed part and the signature of Certificate ::= SEQUENCE {tbs, algorithm, BIT STRING}.

    Raises Malformed; BadCertificate where the algorithm is not the fleet's.
    """
    if len(der) > MAX_BYTES:
        raise Malformed(f"a certificate of {len(der)} bytes, the limit is {MAX_BYTES}")
    start, end = _element(der, 0, len(der), _SEQUENCE)
    if end != len(der):
        raise Malformed(f"{len(der) - end} bytes after the certificate")
    _, body_end = _element(der, start, end, _SEQUENCE)
    _, algorithm_end = _element(der, body_end, end, _SEQUENCE)
    bits, bits_end = _element(der, algorithm_end, end, _BIT_STRING)
    if bits_end != end or bits == end or der[bits] != 0:
        raise Malformed("the certificate's signature is not its last element, of whole bytes")
    if der[body_end:algorithm_end] != _ECDSA_WITH_SHA256:
        raise BadCertificate("the certificate is not signed with ECDSA and SHA-256")
    return bytes(der[start:body_end]), bytes(der[bits + 1 : end])


def _element(der: bytes, at: int, limit: int, tag: int) -> tuple[int, int]:
    """(start, end) of the content of the DER element that begins at `at` (X.690, section 8.1)."""
    if at + 2 > limit or der[at] != tag:
        raise Malformed(f"not a certificate: no element 0x{tag:02x} at byte {at}")
    length, start = der[at + 1], at + 2
    if length >= 0x80:
        start += length & 0x7F
        if not 0x81 <= length <= 0x82 or start > limit:
            raise Malformed(f"not a certificate: bad length at byte {at}")
        length = int.from_bytes(der[at + 2 : start])
    if start + length > limit:
        raise Malformed(f"the certificate is cut off: element at byte {at} ends beyond it")
    return start, start + length


def _day(time: float) -> str:
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (ValueError, OverflowError, OSError):
        return f"{time:.0f} s"
