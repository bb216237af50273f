"""A member's directory: from the request to a loaded identity."""

import os
from pathlib import Path

import pytest

from edgechoir.errors import OperatorError
from edgechoir.fleet.authority_dir import init_authority, sign_request
from edgechoir.fleet.enrolment import install_certificate, load_member, make_request
from edgechoir.fleet.registry import Registry
from edgechoir.identity.authority import DAY_S

NOW = 1_800_000_000.0


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    init_authority(tmp_path / "ca", "alps", NOW, 365, os.urandom, None)
    return tmp_path / "ca"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "dev-1"


def ask(home: Path, member: str = "dev-1", federation: str = "alps") -> bytes:
    return make_request(home, federation, member, "device", os.urandom).read_bytes()


def sign(ca: Path, request: bytes) -> bytes:
    return sign_request(ca, request, "device", NOW, 30, os.urandom, None, renew=True).pem


def enrol(home: Path, ca: Path) -> None:
    install_certificate(home, sign(ca, ask(home)), (ca / "ca.crt").read_bytes(), NOW)


def test_an_enrolled_member_loads(home: Path, ca: Path) -> None:
    enrol(home, ca)
    member = load_member(home, NOW)
    assert str(member.address) == "device/dev-1"
    assert member.root.federation == "alps"
    assert member.certificate.public_key == member.key.public_key()
    assert member.paths.key.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in member.paths.request.read_bytes()


def test_asking_again_keeps_the_key(home: Path, ca: Path) -> None:
    enrol(home, ca)
    key = (home / "member.key").read_bytes()
    enrol(home, ca)
    assert (home / "member.key").read_bytes() == key


def test_a_directory_belongs_to_one_member(home: Path) -> None:
    ask(home)
    with pytest.raises(OperatorError, match="belongs to device/dev-1 of alps"):
        ask(home, "dev-2")
    with pytest.raises(OperatorError, match="asked for device/dev-1 of jura"):
        ask(home, federation="jura")


def test_a_broker_does_not_enrol_by_request(home: Path) -> None:
    with pytest.raises(OperatorError, match="not enrolled by a request"):
        make_request(home, "alps", "broker-2", "broker", os.urandom)
    assert not home.exists()


def test_a_certificate_for_another_key_is_not_installed(
    home: Path, ca: Path, tmp_path: Path
) -> None:
    ask(home)
    foreign = sign(ca, ask(tmp_path / "other"))
    with pytest.raises(OperatorError, match="for another key"):
        install_certificate(home, foreign, (ca / "ca.crt").read_bytes(), NOW)
    assert not (home / "member.crt").exists()
    assert not (home / "ca.crt").exists()


def test_a_certificate_for_another_member_is_not_installed(
    home: Path, ca: Path, tmp_path: Path
) -> None:
    ask(home)
    other = sign(ca, ask(tmp_path / "other", "dev-2"))
    with pytest.raises(OperatorError, match="is for device/dev-2"):
        install_certificate(home, other, (ca / "ca.crt").read_bytes(), NOW)


def test_a_second_ca_is_not_trusted(home: Path, ca: Path, tmp_path: Path) -> None:
    enrol(home, ca)
    init_authority(tmp_path / "ca2", "alps", NOW, 365, os.urandom, None)
    certificate = sign(tmp_path / "ca2", (home / "request.csr").read_bytes())
    with pytest.raises(OperatorError, match="trusts another CA"):
        install_certificate(home, certificate, (tmp_path / "ca2" / "ca.crt").read_bytes(), NOW)
    load_member(home, NOW)


def test_text_that_is_no_certificate_is_an_operator_error(home: Path, ca: Path) -> None:
    ask(home)
    with pytest.raises(OperatorError, match="cannot be installed"):
        install_certificate(home, b"hello", (ca / "ca.crt").read_bytes(), NOW)


def test_an_expired_certificate_is_named_with_its_date(home: Path, ca: Path) -> None:
    enrol(home, ca)
    with pytest.raises(OperatorError, match=r"member\.crt: .* expired 2027-02-14"):
        load_member(home, NOW + 31 * DAY_S)
    with pytest.raises(OperatorError, match=r"not yet valid: .* clock says 1970"):
        load_member(home, 100.0)


def test_each_missing_file_says_what_to_do(home: Path, ca: Path) -> None:
    with pytest.raises(OperatorError, match=r"identity\.json is missing: enrol this member"):
        load_member(home, NOW)
    ask(home)
    with pytest.raises(OperatorError, match=r"ca\.crt is missing: let the CA sign"):
        load_member(home, NOW)
    enrol(home, ca)
    (home / "member.key").unlink()
    with pytest.raises(OperatorError, match=r"member\.key is missing"):
        load_member(home, NOW)


def test_a_damaged_file_is_named(home: Path, ca: Path) -> None:
    enrol(home, ca)
    (home / "member.key").write_bytes(b"damaged")
    with pytest.raises(OperatorError, match=r"member\.key: not a private key"):
        load_member(home, NOW)
    (home / "identity.json").write_bytes(b"{}")
    with pytest.raises(OperatorError, match=r"identity\.json cannot be read"):
        load_member(home, NOW)


def test_a_key_that_others_can_read_is_warned_of(
    home: Path, ca: Path, caplog: pytest.LogCaptureFixture
) -> None:
    enrol(home, ca)
    load_member(home, NOW)
    assert not caplog.records
    (home / "member.key").chmod(0o644)
    load_member(home, NOW)
    assert "chmod 600" in caplog.text


def test_an_empty_registry_round_trips() -> None:
    registry = Registry(federation="alps")
    assert Registry.model_validate_json(registry.model_dump_json()) == registry
