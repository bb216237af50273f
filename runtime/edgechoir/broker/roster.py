"""What a broker knows of the fleet at one moment: read from its folder, replaced on a change."""

import logging
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from edgechoir.broker.access import Access
from edgechoir.broker.bridges import BRIDGES, read_bridges
from edgechoir.broker.federation import Federation
from edgechoir.errors import BadCertificate, OperatorError, RemoteError
from edgechoir.fleet.broker_files import BrokerFiles
from edgechoir.fleet.files import read_file
from edgechoir.fleet.registry import Registry, read_registry
from edgechoir.identity.certificate import Certified, Root, from_pem, read_certificate, read_root
from edgechoir.identity.naming import address
from edgechoir.types import Address

log = logging.getLogger(__name__)

_HINT = "copy the broker's folder from the CA (`edgechoir ca broker`)"


@dataclass(frozen=True, slots=True)
class Roster:
    """The fleet's root, its rules, and who is in it."""

    root: Root
    federation: Federation
    revoked: frozenset[int]
    """Serial numbers of certificates."""

    @property
    def members(self) -> frozenset[Address]:
        return self.federation.members

    @property
    def access(self) -> Access:
        return self.federation.access

    def admit(self, der: bytes, now: float) -> Certified:
        """The holder of a client's certificate. Raises BadCertificate or Malformed."""
        certified = read_certificate(der, self.root, now)
        if certified.serial in self.revoked:
            raise BadCertificate(f"the certificate of {certified.address} was revoked")
        if certified.address not in self.members:
            raise BadCertificate(f"{certified.address} is not in this broker's registry")
        return certified


def roster(registry: Registry, root: Root, directory: Path) -> Roster:
    """`directory`: the broker's. Raises OperatorError where the registry is another fleet's."""
    if registry.federation != root.federation:
        raise OperatorError(
            f"the registry is of {registry.federation!r}, the CA beside it of {root.federation!r}"
        )
    members = frozenset(address(record.tier, record.member) for record in registry.active())
    try:
        bridges = read_bridges(directory, members)
    except (
        OperatorError
    ) as error:  # a revocation must not wait for it; a bridge without it can do nothing
        log.error("no bridge has rights: %s", error)
        bridges = {}
    return Roster(
        root=root,
        federation=Federation(registry.federation, members, bridges),
        revoked=frozenset(int(entry.serial, 16) for entry in registry.revocations),
    )


def read_roster(files: BrokerFiles) -> Roster:
    """Read a broker's folder. Raises OperatorError unless it is complete and of one fleet."""
    for path in (files.key, files.certificate):
        read_file(path, _HINT)
    try:
        root = read_root(from_pem(read_file(files.ca, _HINT)))
    except RemoteError as error:
        raise OperatorError(f"{files.ca}: {error}") from None
    try:
        crl = x509.load_pem_x509_crl(read_file(files.crl, _HINT))
        ours = crl.is_signature_valid(root.public_key)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise OperatorError(f"{files.crl} is not a list of revoked certificates: {error}") from None
    if not ours:
        raise OperatorError(f"{files.crl} is not signed by the CA in {files.ca}")
    return roster(read_registry(files.registry), root, files.directory)


def stamps(files: BrokerFiles) -> tuple[tuple[int, int, int] | None, ...]:
    """Changes whenever one of the folder's files does: inode, size and time of each."""
    return tuple(
        _stamp(path)
        for path in (
            *(files.key, files.certificate, files.ca, files.crl, files.registry),
            files.directory / BRIDGES,
        )
    )


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
