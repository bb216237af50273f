"""The commands of the CA: what they write, and what they refuse."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from edgechoir.errors import OperatorError, RemoteError
from edgechoir.fleet.authority_dir import (
    Issued,
    init_authority,
    issue_broker_files,
    list_members,
    open_authority,
    revoke,
    sign_request,
)
from edgechoir.fleet.enrolment import make_request
from edgechoir.fleet.registry import read_registry
from edgechoir.identity.certificate import from_pem, read_certificate

NOW = 1_800_000_000.0


@dataclass(frozen=True)
class Office:
    """A CA's directory, and a place where members keep theirs."""

    ca: Path
    members: Path

    def enrol(self, member: str, tier: str = "device", *, home: str = "", **how: bool) -> Issued:
        directory = self.members / (home or member)
        request = make_request(directory, "alps", member, tier, os.urandom).read_bytes()
        return sign_request(self.ca, request, tier, NOW, 30, os.urandom, None, **how)

    def revoked_serials(self) -> set[int]:
        crl = x509.load_pem_x509_crl((self.ca / "ca.crl").read_bytes())
        assert crl.is_signature_valid(open_authority(self.ca, None).root.public_key)
        return {entry.serial_number for entry in crl}


@pytest.fixture
def office(tmp_path: Path) -> Office:
    init_authority(tmp_path / "ca", "alps", NOW, 365, os.urandom, None)
    return Office(tmp_path / "ca", tmp_path / "members")


def test_a_new_ca_is_private_and_never_overwritten(office: Office) -> None:
    assert (office.ca / "ca.key").stat().st_mode & 0o777 == 0o600
    assert office.ca.stat().st_mode & 0o777 == 0o700
    assert open_authority(office.ca, None).root.federation == "alps"
    with pytest.raises(OperatorError, match="not overwritten"):
        init_authority(office.ca, "alps", NOW, 365, os.urandom, None)


def test_the_cas_key_is_encrypted_by_its_passphrase(tmp_path: Path) -> None:
    init_authority(tmp_path, "alps", NOW, 365, os.urandom, b"choir")
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in (tmp_path / "ca.key").read_bytes()
    open_authority(tmp_path, b"choir")
    with pytest.raises(OperatorError, match="give its passphrase"):
        open_authority(tmp_path, None)


def test_a_directory_without_a_ca_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="edgechoir ca init"):
        open_authority(tmp_path, None)


def test_key_and_certificate_of_different_cas_are_noticed(office: Office, tmp_path: Path) -> None:
    init_authority(tmp_path / "other", "alps", NOW, 365, os.urandom, None)
    (office.ca / "ca.key").write_bytes((tmp_path / "other" / "ca.key").read_bytes())
    with pytest.raises(OperatorError, match="belong together"):
        open_authority(office.ca, None)


def test_a_signed_member_stands_in_the_registry(office: Office) -> None:
    issued = office.enrol("dev-1")
    root = open_authority(office.ca, None).root
    assert read_certificate(from_pem(issued.pem), root, NOW) == issued.certificate
    assert list_members(office.ca) == (issued.record,)
    assert str(issued).startswith("device/dev-1 enrolled, certificate ")
    assert str(issued).endswith("valid until 2027-02-14")


def test_the_same_key_may_get_a_new_certificate(office: Office) -> None:
    office.enrol("dev-1")
    second = office.enrol("dev-1")
    assert list_members(office.ca) == (second.record,)
    assert office.revoked_serials() == set()


def test_an_id_moves_to_another_key_only_by_renewal(office: Office) -> None:
    first = office.enrol("dev-1", home="stolen")
    with pytest.raises(OperatorError, match="enrolled with another key"):
        office.enrol("dev-1", home="new")
    second = office.enrol("dev-1", home="new", renew=True)
    assert list_members(office.ca) == (second.record,)
    assert office.revoked_serials() == {first.certificate.serial}


def test_an_id_is_unique_across_tiers(office: Office) -> None:
    office.enrol("singer", "device")
    with pytest.raises(OperatorError, match="taken by device/singer"):
        office.enrol("singer", "node", home="other", renew=True)
    issue_broker_files(office.ca, ["localhost"], NOW, 30, os.urandom, None)
    with pytest.raises(OperatorError, match="taken by broker/broker"):
        office.enrol("broker", "monitor")


def test_a_revoked_member_is_marked_listed_and_stays_out_with_its_key(office: Office) -> None:
    issued = office.enrol("dev-1")
    assert str(revoke(office.ca, "dev-1", NOW, None)).startswith("device/dev-1 revoked")
    assert office.revoked_serials() == {issued.certificate.serial}
    assert read_registry(office.ca / "registry.json").active() == ()
    with pytest.raises(OperatorError, match="revoked already"):
        revoke(office.ca, "dev-1", NOW, None)
    with pytest.raises(OperatorError, match="make a new key"):
        office.enrol("dev-1", renew=True)
    office.enrol("dev-1", home="new", renew=True)
    assert office.revoked_serials() == {issued.certificate.serial}


def test_revoking_a_stranger_is_refused(office: Office) -> None:
    with pytest.raises(OperatorError, match="no member 'dev-9'"):
        revoke(office.ca, "dev-9", NOW, None)


def test_a_request_that_is_no_request_is_refused(office: Office) -> None:
    with pytest.raises(RemoteError):
        sign_request(office.ca, b"hello", "device", NOW, 30, os.urandom, None)
    assert list_members(office.ca) == ()


def test_a_brokers_folder_holds_all_it_needs_and_follows_the_registry(office: Office) -> None:
    files = issue_broker_files(office.ca, ["localhost", "127.0.0.1"], NOW, 30, os.urandom, None)
    assert sorted(path.name for path in files.directory.iterdir()) == [
        "ca.crl",
        "ca.crt",
        "registry.json",
        "server.crt",
        "server.key",
    ]
    assert files.key.stat().st_mode & 0o777 == 0o600
    office.enrol("dev-1")
    revoke(office.ca, "dev-1", NOW, None)
    for name in ("ca.crt", "ca.crl", "registry.json"):
        assert (files.directory / name).read_bytes() == (office.ca / name).read_bytes()


def test_a_brokers_files_are_replaced_only_by_renewal(office: Office) -> None:
    files = issue_broker_files(office.ca, ["localhost"], NOW, 30, os.urandom, None)
    before = files.certificate.read_bytes()
    with pytest.raises(OperatorError, match="not overwritten"):
        issue_broker_files(office.ca, ["localhost"], NOW, 30, os.urandom, None)
    assert files.certificate.read_bytes() == before
    issue_broker_files(office.ca, ["localhost"], NOW, 30, os.urandom, None, renew=True)
    assert len(office.revoked_serials()) == 1


def test_a_broken_registry_is_named(office: Office) -> None:
    path = office.ca / "registry.json"
    path.write_text('{"federation": "Alps!"}')
    with pytest.raises(OperatorError, match="federation: String should match"):
        list_members(office.ca)
    path.write_text("choir")
    with pytest.raises(OperatorError, match="the file: Invalid JSON"):
        list_members(office.ca)


def test_a_registry_that_names_a_member_twice_is_refused(office: Office) -> None:
    office.enrol("dev-1")
    path = office.ca / "registry.json"
    registry = read_registry(path)
    double = registry.model_copy(update={"members": registry.members * 2})
    path.write_text(double.model_dump_json())
    with pytest.raises(OperatorError, match="twice"):
        list_members(office.ca)
