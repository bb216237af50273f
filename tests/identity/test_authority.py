"""What the CA signs, and what it declines to."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
from cryptography import x509

from edgechoir.errors import BadCertificate, BadSignature, OperatorError
from edgechoir.identity.authority import (
    DAY_S,
    Authority,
    create_authority,
    issue,
    issue_server,
    revocation_list,
)
from edgechoir.identity.request import make_request
from edgechoir.types import Entropy

if TYPE_CHECKING:
    from tests.identity.conftest import Enrolled, Seeded


def test_a_request_for_another_tier_is_not_signed(
    authority: Authority, device: Enrolled, entropy: Entropy, now: float
) -> None:
    request = make_request(device.key, "alps", "cloud", "dev-1")
    with pytest.raises(BadCertificate, match="cloud/dev-1, expected one for tier device"):
        issue(authority, request, "device", now, 30, entropy)


def test_a_member_cannot_ask_to_be_a_broker(
    authority: Authority, device: Enrolled, entropy: Entropy, now: float
) -> None:
    request = make_request(device.key, "alps", "broker", "dev-1")
    with pytest.raises(BadCertificate):
        issue(authority, request, "broker", now, 30, entropy)


def test_a_request_for_another_federation_is_not_signed(
    authority: Authority, device: Enrolled, entropy: Entropy, now: float
) -> None:
    request = make_request(device.key, "jura", "device", "dev-1")
    with pytest.raises(BadCertificate, match="'jura'"):
        issue(authority, request, "device", now, 30, entropy)


def test_a_request_signed_by_another_key_is_not_signed(
    authority: Authority, device: Enrolled, entropy: Entropy, now: float
) -> None:
    request = bytearray(make_request(device.key, "alps", "device", "dev-1"))
    request[-1] ^= 1
    with pytest.raises(BadSignature):
        issue(authority, bytes(request), "device", now, 30, entropy)


@pytest.mark.parametrize("days", [0, -1, 100_000])
def test_a_senseless_time_is_an_operator_error(
    authority: Authority, device: Enrolled, entropy: Entropy, now: float, days: int
) -> None:
    request = make_request(device.key, "alps", "device", "dev-1")
    with pytest.raises(OperatorError, match="days"):
        issue(authority, request, "device", now, days, entropy)


def test_an_expired_ca_signs_nothing(device: Enrolled, seeded: Seeded, now: float) -> None:
    authority = create_authority("alps", seeded("old"), now, 1)
    request = make_request(device.key, "alps", "device", "dev-1")
    with pytest.raises(OperatorError, match="expired"):
        issue(authority, request, "device", now + 2 * DAY_S, 30, seeded("x"))


def test_a_brokers_certificate_carries_its_hosts(
    authority: Authority, device: Enrolled, entropy: Entropy, now: float
) -> None:
    broker = issue_server(
        authority,
        device.key.public_key(),
        "broker",
        ["edge.example"],
        [IPv4Address("127.0.0.1")],
        now,
        30,
        entropy,
    )
    names = x509.load_der_x509_certificate(broker.der).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["edge.example"]
    assert names.value.get_values_for_type(x509.IPAddress) == [IPv4Address("127.0.0.1")]
    assert broker.address.tier == "broker"


def test_a_broker_without_a_host_is_refused(
    authority: Authority, device: Enrolled, entropy: Entropy, now: float
) -> None:
    with pytest.raises(OperatorError, match="at least one"):
        issue_server(authority, device.key.public_key(), "b", [], [], now, 30, entropy)


def test_the_revocation_list_holds_the_serials_until_the_ca_ends(
    authority: Authority, device: Enrolled, now: float
) -> None:
    der = revocation_list(authority, [(device.certificate.serial, now)], 3, now)
    crl = x509.load_der_x509_crl(der)
    public_key = authority.root.public_key
    assert crl.is_signature_valid(public_key)
    assert [entry.serial_number for entry in crl] == [device.certificate.serial]
    assert crl.next_update_utc is not None
    assert crl.next_update_utc.timestamp() == authority.root.not_after
