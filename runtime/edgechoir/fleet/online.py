"""What the enrolment endpoint does with the CA's directory: enrol by token, renew by certificate.

Both may be asked again after an answer was lost, and then give the same certificate.
"""

from dataclasses import dataclass
from pathlib import Path

from edgechoir.errors import BadCertificate, OperatorError, RemoteError, Revoked
from edgechoir.fleet.authority_dir import Issued, key_hash, sign_with
from edgechoir.fleet.files import locked, read_file
from edgechoir.fleet.registry import Record, read_registry
from edgechoir.fleet.tokens import TokenRecord, use_token
from edgechoir.identity.authority import DAY_S, Authority
from edgechoir.identity.certificate import Certified, from_pem, read_certificate, to_pem
from edgechoir.identity.request import read_request, request_from_pem
from edgechoir.types import Entropy


@dataclass(frozen=True, slots=True)
class Granted:
    """A certificate for a member. `fresh` is false where it had been issued before."""

    issued: Issued
    fresh: bool


def enrol_by_token(
    authority: Authority,
    directory: Path,
    id: str,
    secret: bytes,
    request_pem: bytes,
    now: float,
    entropy: Entropy,
) -> tuple[Granted, TokenRecord]:
    """Take a machine into the fleet that has a token. Raises RemoteError or OperatorError."""
    request = read_request(request_from_pem(request_pem))
    key = key_hash(request.public_key)
    with locked(directory):
        token = use_token(directory, id, secret, request, key, now)
        again = _issued(authority, directory, token.member, key, now)
        if again is not None:
            return Granted(again, fresh=False), token
        issued = sign_with(
            authority,
            directory,
            request_pem,
            token.tier,
            now,
            token.days,
            entropy,
            renew=token.replace,
        )
        return Granted(issued, fresh=True), token


def renew_by_certificate(
    authority: Authority,
    directory: Path,
    holder: Certified,
    request_pem: bytes,
    now: float,
    entropy: Entropy,
) -> Granted:
    """A new certificate for a member that has shown one which is in its time.

    It is for as long as the last one was; one of which more than half is left is given again. With
    another key the old one is put out of force. Raises
    RemoteError: revoked, unknown, or a request for somebody else.
    """
    request = read_request(request_from_pem(request_pem))
    if (request.federation, request.address) != (holder.federation, holder.address):
        raise BadCertificate(f"{holder.address} asked for a certificate of {request.address}")
    key = key_hash(request.public_key)
    with locked(directory):
        registry = read_registry(directory / "registry.json")
        record = registry.find(holder.address.member)
        if record is None or record.tier != holder.address.tier:
            raise BadCertificate(f"{holder.address} is not in the registry")
        serial = f"{holder.serial:x}"
        out_of_force = any(gone.serial == serial for gone in registry.revocations)
        # Its key was replaced, but the answer may have been lost: the new key may ask on.
        if record.revoked is not None or (out_of_force and key != record.key):
            raise Revoked(f"the certificate of {holder.address} was revoked: enrol it anew")
        again = _issued(authority, directory, record.member, key, now)
        if again is not None and _fresh(record, now):
            return Granted(again, fresh=False)
        days = max(1, round((record.not_after - record.issued) / DAY_S))
        issued = sign_with(
            authority, directory, request_pem, record.tier, now, days, entropy, renew=True
        )
        return Granted(issued, fresh=True)


def _issued(
    authority: Authority, directory: Path, member: str, key: str, now: float
) -> Issued | None:
    """The member's newest certificate, where it is for this key and good."""
    record = read_registry(directory / "registry.json").find(member)
    if record is None or record.key != key or record.revoked is not None:
        return None
    try:
        pem = read_file(directory / "issued" / f"{member}.crt", "")
        certificate = read_certificate(from_pem(pem), authority.root, now)
    except (OperatorError, RemoteError):
        return None  # issued by a version that kept none, or past its time
    if f"{certificate.serial:x}" != record.serial:
        return None
    return Issued(record, certificate, to_pem(certificate.der))


def _fresh(record: Record, now: float) -> bool:
    """Whether less than half of a certificate's time is over."""
    return now - record.issued < (record.not_after - record.issued) / 2
