"""A member's directory, and how it joins the fleet.

    member.key      its private key; it never leaves
    next.key        the key that is to take its place, until its certificate is there
    request.csr     what goes to the CA's operator
    member.crt      what comes back
    ca.crt          the fleet CA, trusted from then on
    ca.crl          the revoked certificates, where somebody has put them
    policy          the federation's policy, where one was signed
    enrolment.url   where to renew, where the member was enrolled by token
    identity.json   federation, tier and id

Two steps: `make_request`, then, once the CA's operator has signed, `install_certificate`. The
first `ca.crt` is trusted as it comes, so it must come by a way that is; another one is refused
later.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, ValidationError

from edgechoir.errors import OperatorError, RemoteError, first_wrong
from edgechoir.fleet.files import PRIVATE, PUBLIC, make_directory, read_file, write_atomic
from edgechoir.fleet.policy_file import pinned_policy
from edgechoir.fleet.registry import Name
from edgechoir.identity.certificate import Certified, Root, from_pem, read_certificate, read_root
from edgechoir.identity.certificate import to_pem as certificate_to_pem
from edgechoir.identity.keys import key_from_pem, key_to_pem, new_key
from edgechoir.identity.naming import address
from edgechoir.identity.policy import Policy
from edgechoir.identity.request import make_request as sign_request
from edgechoir.identity.request import request_to_pem
from edgechoir.types import Address, Entropy, member_id

log = logging.getLogger(__name__)


class Identity(BaseModel):
    """identity.json"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    federation: Name
    tier: Literal["device", "node", "edge-cloud", "cloud", "monitor", "bridge"]
    member: Name

    def __str__(self) -> str:
        return f"{self.tier}/{self.member} of {self.federation}"


@dataclass(frozen=True, slots=True)
class MemberPaths:
    directory: Path

    @property
    def key(self) -> Path:
        return self.directory / "member.key"

    @property
    def next_key(self) -> Path:
        return self.directory / "next.key"

    @property
    def crl(self) -> Path:
        return self.directory / "ca.crl"

    @property
    def url(self) -> Path:
        return self.directory / "enrolment.url"

    @property
    def request(self) -> Path:
        return self.directory / "request.csr"

    @property
    def certificate(self) -> Path:
        return self.directory / "member.crt"

    @property
    def ca(self) -> Path:
        return self.directory / "ca.crt"

    @property
    def identity(self) -> Path:
        return self.directory / "identity.json"


@dataclass(frozen=True, slots=True)
class Member:
    """An enrolled member, ready to speak. The files named by `paths` serve TLS."""

    key: ec.EllipticCurvePrivateKey
    certificate: Certified
    root: Root
    paths: MemberPaths
    policy: Policy

    @property
    def address(self) -> Address:
        return self.certificate.address


def make_request(
    directory: Path, federation: str, member: str, tier: str, entropy: Entropy
) -> Path:
    """Write a key, unless the directory has one, and a request; returns the path of the request.

    Raises OperatorError: names that are not allowed, or a directory of another member.
    """
    holder = address(tier, member)
    try:
        identity = Identity.model_validate(
            {"federation": member_id(federation), "tier": tier, "member": holder.member}
        )
    except ValidationError:
        raise OperatorError(f"a {tier} is not enrolled by a request") from None
    paths = MemberPaths(directory)
    make_directory(directory)
    if paths.key.exists():
        there = _read_identity(paths)
        if there != identity:
            raise OperatorError(f"{directory} belongs to {there}, asked for {identity}")
        key = _read_key(paths)
    else:
        key = new_key(entropy)
        # identity.json first: a key without a name would block the directory after a power cut.
        write_atomic(paths.identity, identity.model_dump_json(indent=2).encode() + b"\n", PUBLIC)
        write_atomic(paths.key, key_to_pem(key, None), PRIVATE)
    request = sign_request(key, federation, tier, member)
    write_atomic(paths.request, request_to_pem(request), PUBLIC)
    return paths.request


def make_renewal(directory: Path, entropy: Entropy, *, new_key_too: bool) -> bytes:
    """A request, in PEM, for the next certificate of a member that has one.

    Another key waits in `next.key` until its certificate is installed. Raises OperatorError.
    """
    paths = MemberPaths(directory)
    identity, key = _read_identity(paths), _read_key(paths)
    if new_key_too:
        if paths.next_key.exists():
            key = key_from_pem(read_file(paths.next_key, ""), None)
        else:
            key = new_key(entropy)
            write_atomic(paths.next_key, key_to_pem(key, None), PRIVATE)
    request = sign_request(key, identity.federation, identity.tier, identity.member)
    return request_to_pem(request)


def endpoint_of(directory: Path, given: str | None) -> str | None:
    """Where a member renews: as given, else where it was enrolled. Raises OperatorError."""
    path = MemberPaths(directory).url
    if given is not None or not path.exists():
        return given
    return read_file(path, "").decode(errors="replace").strip() or None


def install_certificate(
    directory: Path, certificate_pem: bytes, ca_pem: bytes, now: float
) -> Certified:
    """Take the signed certificate and the CA's into a member's directory, if all of it fits.

    Raises OperatorError and leaves the directory as it was.
    """
    paths = MemberPaths(directory)
    identity, key = _read_identity(paths), _read_key(paths)
    try:
        root = read_root(from_pem(ca_pem))
        certificate = read_certificate(from_pem(certificate_pem), root, now)
    except RemoteError as error:
        raise OperatorError(
            f"the certificate for {identity} cannot be installed: {error}"
        ) from None
    following = _following(paths, certificate)
    _check_fit(paths, identity, following or key, certificate)
    if paths.ca.exists() and _read_root(paths) != root:
        raise OperatorError(
            f"{directory} trusts another CA already (fingerprint "
            f"{_read_root(paths).fingerprint.hex()[:16]}, given {root.fingerprint.hex()[:16]}): "
            "to move to another fleet, enrol in an empty directory"
        )
    write_atomic(paths.ca, certificate_to_pem(root.der), PUBLIC)
    write_atomic(paths.certificate, certificate_to_pem(certificate.der), PUBLIC)
    if following is not None:
        os.replace(paths.next_key, paths.key)
    return certificate


def load_member(directory: Path, now: float) -> Member:
    """Read and check a member's directory. Raises OperatorError that says what to do."""
    paths = MemberPaths(directory)
    identity, key, root = _read_identity(paths), _read_key(paths), _read_root(paths)
    data = read_file(paths.certificate, _INSTALL)
    try:
        certificate = read_certificate(from_pem(data), root, now)
    except RemoteError as error:
        raise OperatorError(f"{paths.certificate}: {error}") from None
    following = (
        None if certificate.public_key == key.public_key() else _following(paths, certificate)
    )
    if following is not None:  # the exchange was cut off between its two steps
        os.replace(paths.next_key, paths.key)
        key = following
    _check_fit(paths, identity, key, certificate)
    return Member(key, certificate, root, paths, pinned_policy(directory, root))


def _following(paths: MemberPaths, given: Certified) -> ec.EllipticCurvePrivateKey | None:
    """The key that waits for its certificate, if this is it."""
    if not paths.next_key.exists():
        return None
    key = key_from_pem(read_file(paths.next_key, ""), None)
    return key if key.public_key() == given.public_key else None


_ENROL = "enrol this member first with `edgechoir enrol`"
_INSTALL = "let the CA sign the request, then install the certificate with `edgechoir enrol`"


def _check_fit(
    paths: MemberPaths, identity: Identity, key: ec.EllipticCurvePrivateKey, given: Certified
) -> None:
    if (given.federation, given.address) != (
        identity.federation,
        address(identity.tier, identity.member),
    ):
        raise OperatorError(
            f"the certificate is for {given.address} of {given.federation}, "
            f"{paths.directory} belongs to {identity}"
        )
    if given.public_key != key.public_key():
        raise OperatorError(f"the certificate of {identity} is for another key than {paths.key}")


def _read_identity(paths: MemberPaths) -> Identity:
    data = read_file(paths.identity, _ENROL)
    try:
        return Identity.model_validate_json(data)
    except ValidationError as error:
        _, what = first_wrong(error)
        raise OperatorError(f"{paths.identity} cannot be read: {what}") from None


def _read_key(paths: MemberPaths) -> ec.EllipticCurvePrivateKey:
    data = read_file(paths.key, _ENROL)
    if paths.key.stat().st_mode & 0o077:
        log.warning("%s can be read by others: chmod 600 %s", paths.key, paths.key)
    try:
        return key_from_pem(data, None)
    except OperatorError as error:
        raise OperatorError(f"{paths.key}: {error}") from None


def _read_root(paths: MemberPaths) -> Root:
    try:
        return read_root(from_pem(read_file(paths.ca, _INSTALL)))
    except RemoteError as error:
        raise OperatorError(f"{paths.ca}: {error}") from None
