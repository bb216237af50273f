"""Which certificates are good no more: the CA's list (RFC 5280, section 5), read and compared.

A list is signed by the CA, so it may come by any way: as a file, from the enrolment endpoint, or
handed down the tree by members. Its number only grows, and whoever has seen one goes back to no
older one. Revocation goes by serial number: see `certificate.py` for why not by fingerprint.
"""

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from edgechoir.errors import BadCertificate, BadSignature, Malformed, Replayed
from edgechoir.identity.certificate import Root

MAX_BYTES: Final = 1 << 20
"""About 25,000 revoked certificates."""


@dataclass(frozen=True, slots=True)
class Revocations:
    """A list as it is known to be the CA's; `der` is what others are handed."""

    number: int
    serials: frozenset[int]
    der: bytes


def read_revocations(data: bytes, root: Root) -> Revocations:
    """Read a list in DER or PEM. Raises Malformed, BadSignature or BadCertificate."""
    if len(data) > MAX_BYTES:
        raise Malformed(f"a list of revoked certificates of {len(data)} bytes, over {MAX_BYTES}")
    pem = data.lstrip().startswith(b"-----")
    try:
        crl = (x509.load_pem_x509_crl if pem else x509.load_der_x509_crl)(data)
        ours = crl.is_signature_valid(root.public_key)
        number = crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        serials = frozenset(revoked.serial_number for revoked in crl)
    except (
        ValueError,
        TypeError,
        UnsupportedAlgorithm,
        x509.InvalidVersion,
        x509.ExtensionNotFound,
        x509.DuplicateExtension,
    ) as error:
        raise Malformed(f"not a list of revoked certificates: {error}") from None
    if not ours:
        raise BadSignature(
            f"the list of revoked certificates is not signed by the CA of {root.federation!r}"
        )
    if not 0 <= number < 2**63:
        raise BadCertificate(f"a list of revoked certificates of number {number}")
    return Revocations(number, serials, crl.public_bytes(serialization.Encoding.DER))


def newest(held: Revocations | None, given: Revocations) -> bool:
    """Whether `given` is to be taken in the place of the one held; the same again is not.

    Raises Replayed for an older one.
    """
    if held is None or given.number > held.number:
        return True
    if given.number < held.number:
        raise Replayed(
            f"a list of revoked certificates of number {given.number}; {held.number} is held"
        )
    return False
