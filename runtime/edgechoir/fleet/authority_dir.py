"""The CA's directory, and the commands on it.

    ca.key          the private key, encrypted where a passphrase is given
    ca.crt          its certificate: what every member trusts
    ca.crl          the revoked certificates (PEM)
    registry.json   who is in the fleet
    issued/         each member's newest certificate
    tokens.json     hashes of the tokens for enrolment that are open
    <broker id>/    server.key, server.crt and copies of the three public files: all that a
                    broker's machine needs, to be copied there as it is

Every change rewrites registry.json first, the CRL and the copies after it; a change that was cut
off is completed by the next one.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgechoir.errors import OperatorError, RemoteError
from edgechoir.fleet.broker_files import BrokerFiles
from edgechoir.fleet.files import (
    PRIVATE,
    PUBLIC,
    locked,
    make_directory,
    read_file,
    refuse_existing,
    write_atomic,
)
from edgechoir.fleet.registry import (
    Earlier,
    Record,
    Registry,
    Revocation,
    read_registry,
    write_registry,
)
from edgechoir.fleet.tokens import Token, Wanted, new_token, withdraw_tokens
from edgechoir.identity.authority import (
    Authority,
    create_authority,
    issue,
    issue_server,
    revocation_list,
)
from edgechoir.identity.certificate import Certified, Root, from_pem, read_root, to_pem
from edgechoir.identity.keys import key_from_pem, key_to_pem, new_key
from edgechoir.identity.naming import BROKER, address
from edgechoir.identity.request import read_request, request_from_pem
from edgechoir.types import Entropy

# In this order: a broker that looks in between takes a member's rights before its connection.
_PUBLIC_FILES = ("ca.crt", "registry.json", "ca.crl")
_HINT = "make the CA with `edgechoir ca init`"


@dataclass(frozen=True, slots=True)
class Issued:
    """A new certificate: its entry in the registry, and the text that goes back to the member."""

    record: Record
    certificate: Certified
    pem: bytes

    def __str__(self) -> str:
        until = datetime.fromtimestamp(self.record.not_after, UTC).strftime("%Y-%m-%d")
        return f"{self.record}, valid until {until}"


def init_authority(
    directory: Path,
    federation: str,
    now: float,
    days: int,
    entropy: Entropy,
    passphrase: bytes | None,
) -> Authority:
    """Make a CA in a directory that holds none. Raises OperatorError."""
    make_directory(directory)
    with locked(directory):
        refuse_existing(*(directory / name for name in ("ca.key", *_PUBLIC_FILES)))
        authority = create_authority(federation, entropy, now, days)
        write_atomic(directory / "ca.key", key_to_pem(authority.key, passphrase), PRIVATE)
        write_atomic(directory / "ca.crt", to_pem(authority.root.der), PUBLIC)
        _publish(directory, authority, Registry(federation=authority.root.federation), now)
    return authority


def open_authority(directory: Path, passphrase: bytes | None) -> Authority:
    """The CA of a directory. Raises OperatorError: missing, wrong passphrase, mismatched files."""
    key = key_from_pem(read_file(directory / "ca.key", _HINT), passphrase)
    root = _read_root(directory)
    if root.public_key != key.public_key():
        raise OperatorError(f"ca.key and ca.crt in {directory} do not belong together")
    return Authority(key, root)


def _read_root(directory: Path) -> Root:
    try:
        return read_root(from_pem(read_file(directory / "ca.crt", _HINT)))
    except RemoteError as error:
        raise OperatorError(f"{directory / 'ca.crt'}: {error}") from None


def sign_request(
    directory: Path,
    request_pem: bytes,
    tier: str,
    now: float,
    days: int,
    entropy: Entropy,
    passphrase: bytes | None,
    *,
    renew: bool = False,
) -> Issued:
    """Take a member into the fleet, or give it a new certificate for the key it has.

    With `renew` an id may move to another key (a replaced device): its old certificate is revoked.
    Raises OperatorError; RemoteError for a request that is not sound.
    """
    with locked(directory):
        authority = open_authority(directory, passphrase)
        return sign_with(authority, directory, request_pem, tier, now, days, entropy, renew=renew)


def sign_with(
    authority: Authority,
    directory: Path,
    request_pem: bytes,
    tier: str,
    now: float,
    days: int,
    entropy: Entropy,
    *,
    renew: bool = False,
) -> Issued:
    """`sign_request` for a caller that has opened the CA and holds the directory's lock."""
    request_der = request_from_pem(request_pem)
    request = read_request(request_der)
    registry = read_registry(directory / "registry.json")
    key = key_hash(request.public_key)
    _check_id(registry, request.address.member, request.address.tier, key, renew=renew)
    certificate = issue(authority, request_der, tier, now, days, entropy)
    return _enter(directory, authority, registry, certificate, now)


def make_token(directory: Path, wanted: Wanted, url: str, now: float, entropy: Entropy) -> Token:
    """A token with which one machine may enrol itself. Needs no key. Raises OperatorError."""
    holder = address(wanted.tier, wanted.member)
    with locked(directory):
        root = _read_root(directory)
        record = read_registry(directory / "registry.json").find(holder.member)
        if record is not None and record.tier != holder.tier:
            raise OperatorError(
                f"the id {holder.member!r} is taken by {record.tier}/{holder.member}"
            )
        if record is not None and not wanted.replace:
            raise OperatorError(
                f"{holder} is enrolled: with --replace the token moves the id to the new machine"
            )
        return new_token(directory, wanted, root.federation, url, root.fingerprint, now, entropy)


def issue_broker_files(
    directory: Path,
    hosts: Iterable[str],
    now: float,
    days: int,
    entropy: Entropy,
    passphrase: bytes | None,
    *,
    broker: str = BROKER,
    renew: bool = False,
) -> BrokerFiles:
    """Make a broker's folder: a fresh server key, and a certificate for `hosts` (names or IPs).

    Raises OperatorError.
    """
    names, ips = split_hosts(hosts)
    files = BrokerFiles(directory / address(BROKER, broker).member)
    with locked(directory):
        if not renew:
            refuse_existing(files.key, files.certificate)
        authority = open_authority(directory, passphrase)
        registry = read_registry(directory / "registry.json")
        key = new_key(entropy)
        _check_id(registry, broker, BROKER, key_hash(key.public_key()), renew=renew)
        certificate = issue_server(
            authority, key.public_key(), broker, names, ips, now, days, entropy
        )
        make_directory(files.directory)
        write_atomic(files.key, key_to_pem(key, None), PRIVATE)
        write_atomic(files.certificate, to_pem(certificate.der), PUBLIC)
        _enter(directory, authority, registry, certificate, now)
    return files


def revoke(directory: Path, member: str, now: float, passphrase: bytes | None) -> Record:
    """Put a member out of the fleet: marks it and lists its certificate in the CRL.

    Brokers refuse it as soon as the folder's public files have reached them. Raises OperatorError.
    """
    with locked(directory):
        authority = open_authority(directory, passphrase)
        registry = read_registry(directory / "registry.json")
        record = registry.find(member)
        if record is None:
            raise OperatorError(f"no member {member!r} in {directory / 'registry.json'}")
        if record.revoked is not None:
            raise OperatorError(f"{record.tier}/{member} is revoked already")
        gone = record.model_copy(update={"revoked": now})
        members = tuple(gone if other is record else other for other in registry.members)
        revoked = (*registry.revocations, *_revocations(record, now))
        registry = registry.model_copy(update={"members": members, "revocations": revoked})
        withdraw_tokens(directory, member)
        _publish(directory, authority, registry, now)
    return gone


def list_members(directory: Path) -> tuple[Record, ...]:
    """Everybody in the fleet, revoked members included, by tier and id. Raises OperatorError."""
    registry = read_registry(directory / "registry.json")
    return tuple(sorted(registry.members, key=lambda record: (record.tier, record.member)))


def _check_id(registry: Registry, member: str, tier: str, key: str, *, renew: bool) -> None:
    record = registry.find(member)
    if record is None:
        return
    if record.tier != tier:
        raise OperatorError(
            f"the id {member!r} is taken by {record.tier}/{member}: "
            "ids are unique across tiers, choose another"
        )
    if record.key != key and not renew:
        raise OperatorError(
            f"{tier}/{member} is enrolled with another key: renew to replace that key by this one"
        )
    if record.key == key and record.revoked is not None:
        raise OperatorError(f"{tier}/{member} was revoked with this very key: make a new key")


def _enter(
    directory: Path, authority: Authority, registry: Registry, certificate: Certified, now: float
) -> Issued:
    """Record a certificate in the registry, in place of the member's earlier one."""
    holder = certificate.address
    record = Record.model_validate(
        {
            "member": holder.member,
            "tier": holder.tier,
            "serial": f"{certificate.serial:x}",
            "fingerprint": certificate.fingerprint.hex(),
            "key": key_hash(certificate.public_key),
            "issued": now,
            "not_after": certificate.not_after,
        }
    )
    revocations = registry.revocations
    old = registry.find(record.member)
    if old is not None and old.revoked is None:
        if old.key != record.key:
            revocations += _revocations(old, now)
        else:
            before = (*old.earlier, Earlier(serial=old.serial, not_after=old.not_after))
            earlier = tuple(one for one in before if one.not_after > now)
            record = record.model_copy(update={"earlier": earlier})
    others = tuple(other for other in registry.members if other.member != record.member)
    _publish(
        directory,
        authority,
        registry.model_copy(update={"members": (*others, record), "revocations": revocations}),
        now,
    )
    issued = Issued(record, certificate, to_pem(certificate.der))
    make_directory(directory / "issued")
    write_atomic(directory / "issued" / f"{record.member}.crt", issued.pem, PUBLIC)
    return issued


def _revocations(record: Record, now: float) -> tuple[Revocation, ...]:
    """All certificates of a member that are in their time."""
    serials = (record.serial, *(one.serial for one in record.earlier if one.not_after > now))
    return tuple(Revocation(member=record.member, serial=serial, at=now) for serial in serials)


def _publish(directory: Path, authority: Authority, registry: Registry, now: float) -> None:
    registry = registry.model_copy(update={"updates": registry.updates + 1})
    write_registry(directory / "registry.json", registry)
    revoked = [(int(entry.serial, 16), entry.at) for entry in registry.revocations]
    crl = x509.load_der_x509_crl(revocation_list(authority, revoked, registry.updates, now))
    write_atomic(directory / "ca.crl", crl.public_bytes(serialization.Encoding.PEM), PUBLIC)
    for record in registry.members:
        folder = directory / record.member
        if record.tier == BROKER and folder.is_dir():
            for name in _PUBLIC_FILES:
                write_atomic(folder / name, read_file(directory / name, _HINT), PUBLIC)


def split_hosts(
    hosts: Iterable[str],
) -> tuple[list[str], list[IPv4Address | IPv6Address]]:
    """Names, and addresses, of the hosts at which a server answers."""
    names: list[str] = []
    ips: list[IPv4Address | IPv6Address] = []
    for host in hosts:
        try:
            ips.append(ip_address(host))
        except ValueError:
            names.append(host)
    return names, ips


def key_hash(public_key: ec.EllipticCurvePublicKey) -> str:
    """sha256 of the SubjectPublicKeyInfo, as the registry names a key."""
    spki = public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(spki).hexdigest()
