"""Certificate signing request (PKCS#10, RFC 2986): a member asks, its key never leaves it.

The request carries the member's name and its public key, signed with the private one. It proves
possession of the key and nothing else: whether this member belongs to the fleet is decided by
whoever runs the CA.
"""

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgechoir.errors import BadCertificate, BadSignature, Malformed
from edgechoir.identity.keys import on_p256
from edgechoir.identity.naming import address, read_subject, subject
from edgechoir.types import Address, MemberId, member_id

MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """Who asks, and for which key."""

    federation: MemberId
    address: Address
    public_key: ec.EllipticCurvePublicKey


def make_request(key: ec.EllipticCurvePrivateKey, federation: str, tier: str, member: str) -> bytes:
    """A signed request in DER. Raises OperatorError for names that are not allowed."""
    name = subject(member_id(federation), address(tier, member))
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    request = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return request.public_bytes(serialization.Encoding.DER)


def read_request(der: bytes) -> Request:
    """Raises Malformed, BadSignature, or BadCertificate (a name or a key that we never issue)."""
    if len(der) > MAX_BYTES:
        raise Malformed(f"a request of {len(der)} bytes, the limit is {MAX_BYTES}")
    try:
        request = x509.load_der_x509_csr(der)
        public_key = request.public_key()
        valid = request.is_signature_valid
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise Malformed(f"not a certificate request: {error}") from None
    if not valid:
        raise BadSignature("the request is not signed with the key it carries")
    if not isinstance(public_key, ec.EllipticCurvePublicKey) or not on_p256(public_key):
        raise BadCertificate(f"the request's key is {type(public_key).__name__}, expected P-256")
    federation, holder = read_subject(request.subject)
    return Request(federation, holder, public_key)


def request_to_pem(der: bytes) -> bytes:
    return x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM)


def request_from_pem(pem: bytes) -> bytes:
    """Raises Malformed."""
    try:
        return x509.load_pem_x509_csr(pem).public_bytes(serialization.Encoding.DER)
    except ValueError as error:
        raise Malformed(f"not a certificate request in PEM: {error}") from None
