"""The CA's list of revoked certificates, and envelopes held to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadSignature, Malformed, RemoteError, Replayed, Revoked
from edgechoir.identity.authority import Authority, revocation_list
from edgechoir.identity.envelope import Signer, Verifier
from edgechoir.identity.revocation import MAX_BYTES, newest, read_revocations

if TYPE_CHECKING:
    from tests.identity.conftest import Enrolled

NOW = 1_800_000_000.0


@given(serials=st.sets(st.integers(1, 2**127), max_size=20), number=st.integers(0, 2**63 - 1))
def test_a_list_is_read_as_it_was_signed(
    serials: set[int], number: int, authority: Authority
) -> None:
    der = revocation_list(authority, [(serial, NOW) for serial in serials], number, NOW)
    read = read_revocations(der, authority.root)
    assert (read.number, read.serials, read.der) == (number, frozenset(serials), der)
    pem = x509.load_der_x509_crl(der).public_bytes(serialization.Encoding.PEM)
    assert read_revocations(pem, authority.root) == read


def test_a_list_of_another_ca_is_refused(authority: Authority, foreign: Authority) -> None:
    with pytest.raises(BadSignature, match="not signed by the CA"):
        read_revocations(revocation_list(foreign, [], 1, NOW), authority.root)


@given(data=st.data())
def test_no_changed_list_is_taken(data: st.DataObject, authority: Authority) -> None:
    der = revocation_list(authority, [(77, NOW)], 3, NOW)
    at = data.draw(st.integers(0, len(der) - 1))
    changed = der[:at] + bytes([der[at] ^ data.draw(st.integers(1, 255))]) + der[at + 1 :]
    with pytest.raises(RemoteError):
        read_revocations(changed, authority.root)


@given(st.binary(max_size=300))
def test_what_is_no_list_is_malformed(data: bytes) -> None:
    # The root is not looked at before the bytes are a list.
    with pytest.raises(Malformed):
        read_revocations(data, None)  # type: ignore[arg-type]  # see above


def test_a_list_has_a_bound(authority: Authority) -> None:
    with pytest.raises(Malformed, match="over"):
        read_revocations(bytes(MAX_BYTES + 1), authority.root)


def test_nobody_goes_back_to_an_older_list(authority: Authority) -> None:
    old, new = (
        read_revocations(revocation_list(authority, [], number, NOW), authority.root)
        for number in (3, 4)
    )
    assert newest(None, old)
    assert newest(old, new)
    assert not newest(new, new)
    with pytest.raises(Replayed, match="number 3; 4 is held"):
        newest(new, old)


def test_an_envelope_under_a_revoked_certificate_is_refused(
    device: Enrolled, authority: Authority
) -> None:
    signer = Signer(device.key, device.certificate, b"instance")
    verifier = Verifier(authority.root, "alps", 1 << 16)
    envelope = signer.wrap(1, b"body", 1)
    assert verifier.open(envelope, NOW).body == b"body"
    verifier.revoked = frozenset({device.certificate.serial})
    with pytest.raises(Revoked, match="device/dev-1 signed a message, but"):
        verifier.open(envelope, NOW)
    verifier.revoked = frozenset({device.certificate.serial + 1})
    assert verifier.open(envelope, NOW).body == b"body"
