"""An envelope opens only whole, untouched, and from the member whose certificate it holds."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadCertificate, BadSignature, LocalError, Malformed, RemoteError
from edgechoir.identity.authority import DAY_S, Authority
from edgechoir.identity.envelope import DOMAIN, MAX_CACHED, Signer, Verifier
from edgechoir.identity.keys import sign
from edgechoir.types import Address, MemberId

if TYPE_CHECKING:
    from tests.identity.conftest import Enrol, Enrolled

LIMIT = 1 << 20


@pytest.fixture(scope="module")
def verifier(authority: Authority) -> Verifier:
    return Verifier(authority.root, "alps", LIMIT)


@pytest.fixture(scope="module")
def wrapped(device: Enrolled) -> bytes:
    return Signer(device.key, device.certificate, b"instance").wrap(3, b"la la la", 17)


def test_an_envelope_comes_out_as_it_went_in(
    device: Enrolled, verifier: Verifier, wrapped: bytes, now: float
) -> None:
    envelope = verifier.open(wrapped, now)
    assert envelope.kind == 3
    assert envelope.federation == "alps"
    assert envelope.sender == Address("device", MemberId("dev-1"))
    assert envelope.instance == b"instance"
    assert envelope.sequence == 17
    assert envelope.certificate == device.certificate
    assert envelope.body == b"la la la"
    assert envelope.digest == hashlib.sha256(wrapped).digest()


def test_the_layout_is_the_published_one(device: Enrolled, wrapped: bytes) -> None:
    der = device.certificate.der
    signed = (
        b"EC\x01\x03\x04alps\x06device\x05dev-1instance"
        + struct.pack(">Q", 17)
        + struct.pack(">H", len(der))
        + der
        + struct.pack(">I", 8)
        + b"la la la"
    )
    assert wrapped == signed + sign(device.key, DOMAIN + signed)


@given(
    kind=st.integers(0, 255),
    body=st.binary(max_size=2000),
    sequence=st.integers(0, 2**64 - 1),
    instance=st.binary(min_size=8, max_size=8),
)
def test_any_message_survives_the_journey(
    device: Enrolled,
    verifier: Verifier,
    now: float,
    kind: int,
    body: bytes,
    sequence: int,
    instance: bytes,
) -> None:
    data = Signer(device.key, device.certificate, instance).wrap(kind, body, sequence)
    envelope = verifier.open(data, now)
    assert (envelope.kind, envelope.body) == (kind, body)
    assert (envelope.sequence, envelope.instance) == (sequence, instance)


def test_a_message_cut_at_any_length_is_malformed(
    verifier: Verifier, wrapped: bytes, now: float
) -> None:
    for length in range(len(wrapped)):
        with pytest.raises(Malformed):
            verifier.open(wrapped[:length], now)


def test_a_flipped_bit_at_any_place_is_refused(
    authority: Authority, wrapped: bytes, now: float
) -> None:
    verifier = Verifier(authority.root, "alps", LIMIT)
    for at in range(len(wrapped)):
        flipped = bytearray(wrapped)
        flipped[at] ^= 1 << (at % 8)
        with pytest.raises((Malformed, BadCertificate, BadSignature)):
            verifier.open(bytes(flipped), now)


@given(data=st.binary(max_size=400), prefix=st.integers(0, 60))
def test_arbitrary_bytes_never_open(
    verifier: Verifier, wrapped: bytes, now: float, data: bytes, prefix: int
) -> None:
    with pytest.raises(RemoteError):
        verifier.open(wrapped[:prefix] + data, now)


def test_bytes_after_the_end_are_refused(verifier: Verifier, wrapped: bytes, now: float) -> None:
    with pytest.raises(Malformed, match="1 bytes after"):
        verifier.open(wrapped + b"!", now)


def test_an_oversized_envelope_is_refused_unread(authority: Authority, now: float) -> None:
    verifier = Verifier(authority.root, "alps", 100)
    with pytest.raises(Malformed, match="limit is 100"):
        verifier.open(b"EC" + bytes(99), now)


def test_a_member_cannot_speak_under_another_name(
    enrol: Enrol, device: Enrolled, verifier: Verifier, wrapped: bytes, now: float
) -> None:
    other = enrol("device", "dev-2")
    signed = wrapped[:-64].replace(b"\x05dev-1", b"\x05dev-2", 1)
    with pytest.raises(BadCertificate, match="its certificate is for alps/device/dev-1"):
        verifier.open(signed + sign(device.key, DOMAIN, signed), now)
    with pytest.raises(BadSignature):
        verifier.open(wrapped[:-64] + sign(other.key, DOMAIN, wrapped[:-64]), now)


def test_a_signature_made_for_another_purpose_is_refused(
    device: Enrolled, verifier: Verifier, wrapped: bytes, now: float
) -> None:
    with pytest.raises(BadSignature):
        verifier.open(wrapped[:-64] + sign(device.key, wrapped[:-64]), now)


def test_a_foreign_certificate_is_refused(foreign: Authority, wrapped: bytes, now: float) -> None:
    with pytest.raises(BadCertificate, match="not signed by the CA"):
        Verifier(foreign.root, "alps", LIMIT).open(wrapped, now)


def test_a_known_certificate_still_expires(
    authority: Authority, wrapped: bytes, now: float
) -> None:
    verifier = Verifier(authority.root, "alps", LIMIT)
    verifier.open(wrapped, now)
    with pytest.raises(BadCertificate, match="expired"):
        verifier.open(wrapped, now + 366 * DAY_S)


def test_a_monitor_may_not_sign_messages(enrol: Enrol, verifier: Verifier, now: float) -> None:
    monitor = enrol("monitor", "eye-1")
    data = Signer(monitor.key, monitor.certificate, bytes(8)).wrap(1, b"", 0)
    with pytest.raises(BadCertificate, match="monitor/eye-1 signed a message"):
        verifier.open(data, now)


def test_a_signer_numbers_only_upwards(signer: Signer) -> None:
    signer.wrap(1, b"", 5)
    with pytest.raises(LocalError, match="sequence 5 after 5"):
        signer.wrap(1, b"", 5)


def test_a_signer_needs_the_key_of_its_certificate(enrol: Enrol, device: Enrolled) -> None:
    with pytest.raises(LocalError, match="does not fit"):
        Signer(enrol("device", "dev-2").key, device.certificate, bytes(8))
    with pytest.raises(LocalError, match="7 bytes"):
        Signer(device.key, device.certificate, bytes(7))


def test_the_memory_of_certificates_is_bounded(
    authority: Authority,
    device: Enrolled,
    enrol: Enrol,
    now: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert MAX_CACHED <= 4096
    monkeypatch.setattr("edgechoir.identity.envelope.MAX_CACHED", 2)
    verifier = Verifier(authority.root, "alps", LIMIT)
    for i in range(5):
        member = enrol("device", f"dev-{i}")
        verifier.open(Signer(member.key, member.certificate, bytes(8)).wrap(1, b"", 0), now)
        assert len(verifier._known) <= 2
