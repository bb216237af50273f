"""What the CA of this package signs is accepted, everything else is refused by name."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadCertificate, Malformed, RemoteError
from edgechoir.identity.authority import DAY_S, Authority, create_authority
from edgechoir.identity.certificate import from_pem, read_certificate, read_root, to_pem
from edgechoir.identity.naming import authority_subject, subject, uri
from edgechoir.types import Address, MemberId

if TYPE_CHECKING:
    from tests.identity.conftest import Enrol, Enrolled, Seeded

DEVICE = Address("device", MemberId("dev-1"))
NAME = subject("alps", DEVICE)
PLAIN = x509.BasicConstraints(ca=False, path_length=None)
SIGNING = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
SERVER = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
ALTERNATIVE = x509.SubjectAlternativeName([uri("alps", DEVICE)])


def forge(
    authority: Authority, now: float, name: x509.Name, *extensions: x509.ExtensionType
) -> bytes:
    """A certificate with the CA's true signature and contents that it never gives."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(authority_subject("alps"))
        .public_key(authority.root.public_key)
        .serial_number(7)
        .not_valid_before(datetime.fromtimestamp(now - 60, UTC))
        .not_valid_after(datetime.fromtimestamp(now + 60, UTC))
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    signed = builder.sign(authority.key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def test_an_issued_certificate_names_its_member(
    device: Enrolled, authority: Authority, now: float
) -> None:
    certified = read_certificate(device.certificate.der, authority.root, now)
    assert certified == device.certificate
    assert (certified.federation, certified.address) == ("alps", DEVICE)
    assert certified.public_key == device.key.public_key()


def test_the_forging_helper_makes_a_good_certificate_when_all_is_right(
    authority: Authority, now: float
) -> None:
    der = forge(authority, now, NAME, PLAIN, SIGNING, CLIENT, ALTERNATIVE)
    assert read_certificate(der, authority.root, now).address == DEVICE


@pytest.mark.parametrize(
    ("name", "extensions", "message"),
    [
        (NAME, (SIGNING, CLIENT, ALTERNATIVE), "basic constraints"),
        (NAME, (PLAIN, CLIENT, ALTERNATIVE), "lacks an extension"),
        (NAME, (PLAIN, SIGNING, ALTERNATIVE), "lacks an extension"),
        (NAME, (PLAIN, SIGNING, CLIENT), "lacks an extension"),
        (NAME, (PLAIN, SIGNING, SERVER, ALTERNATIVE), "not for the use"),
        (
            NAME,
            (x509.BasicConstraints(True, 0), SIGNING, CLIENT, ALTERNATIVE),
            "one of a CA",
        ),
        (
            subject("alps", Address("node", MemberId("dev-1"))),
            (PLAIN, SIGNING, CLIENT, ALTERNATIVE),
            "names itself",
        ),
        (
            subject("alps", Address("choir", MemberId("dev-1"))),
            (PLAIN, SIGNING, CLIENT, ALTERNATIVE),
            "not a tier",
        ),
        (
            subject("alps", Address("device", MemberId("Dev 1"))),
            (PLAIN, SIGNING, CLIENT, ALTERNATIVE),
            "not a valid id",
        ),
        (
            subject("jura", DEVICE),
            (PLAIN, SIGNING, CLIENT, ALTERNATIVE),
            "for federation 'jura'",
        ),
        (authority_subject("alps"), (PLAIN, SIGNING, CLIENT, ALTERNATIVE), "is not O=federation"),
    ],
)
def test_contents_that_the_ca_never_gives_are_refused(
    authority: Authority,
    now: float,
    name: x509.Name,
    extensions: tuple[x509.ExtensionType, ...],
    message: str,
) -> None:
    with pytest.raises(BadCertificate, match=message):
        read_certificate(forge(authority, now, name, *extensions), authority.root, now)


def test_a_foreign_ca_of_the_same_name_is_refused(
    device: Enrolled, foreign: Authority, now: float
) -> None:
    with pytest.raises(BadCertificate, match="not signed by the CA of 'alps'"):
        read_certificate(device.certificate.der, foreign.root, now)


def test_a_certificate_outside_its_time_is_refused(
    enrol: Enrol, authority: Authority, now: float
) -> None:
    der = enrol("device", "dev-2", days=2).certificate.der
    read_certificate(der, authority.root, now - 3000)
    read_certificate(der, authority.root, now + 2 * DAY_S)
    with pytest.raises(BadCertificate, match="not yet valid"):
        read_certificate(der, authority.root, now - 4000)
    with pytest.raises(BadCertificate, match="expired"):
        read_certificate(der, authority.root, now + 2 * DAY_S + 1)


def test_a_certificate_never_outlives_its_ca(
    enrol: Enrol, authority: Authority, now: float
) -> None:
    certificate = enrol("node", "node-1", days=20_000).certificate
    assert certificate.not_after == authority.root.not_after


def test_pem_and_der_are_the_same_certificate(device: Enrolled, authority: Authority) -> None:
    assert from_pem(to_pem(device.certificate.der)) == device.certificate.der
    assert read_root(from_pem(to_pem(authority.root.der))) == authority.root
    with pytest.raises(Malformed):
        from_pem(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_a_members_certificate_is_no_root(device: Enrolled) -> None:
    with pytest.raises(BadCertificate, match="own key"):
        read_root(device.certificate.der)


def test_a_self_signed_certificate_without_the_ca_bit_is_no_root(
    authority: Authority, now: float
) -> None:
    with pytest.raises(BadCertificate, match="not one of a CA"):
        read_root(forge(authority, now, authority_subject("alps"), PLAIN))


def test_the_same_seed_makes_the_same_fleet(
    seeded: Seeded, authority: Authority, now: float
) -> None:
    assert create_authority("alps", seeded("alps"), now, 3650).root.der == authority.root.der


@given(cut=st.integers(0, 4000))
def test_a_cut_certificate_is_malformed(
    device: Enrolled, authority: Authority, now: float, cut: int
) -> None:
    der = device.certificate.der
    with pytest.raises(Malformed):
        read_certificate(der[: cut % len(der)], authority.root, now)


def test_a_flipped_bit_anywhere_is_refused(
    device: Enrolled, authority: Authority, now: float
) -> None:
    der = device.certificate.der
    for at in range(len(der)):
        flipped = bytearray(der)
        flipped[at] ^= 1 << (at % 8)
        with pytest.raises((Malformed, BadCertificate)):
            read_certificate(bytes(flipped), authority.root, now)


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_no_certificate(authority: Authority, now: float, data: bytes) -> None:
    with pytest.raises(RemoteError):
        read_certificate(data, authority.root, now)
    with pytest.raises(RemoteError):
        read_root(data)
