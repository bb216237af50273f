"""Requests are signed by the key they carry, and name a member."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadCertificate, Malformed, OperatorError, RemoteError
from edgechoir.identity.request import (
    make_request,
    read_request,
    request_from_pem,
    request_to_pem,
)
from edgechoir.types import Address, MemberId

if TYPE_CHECKING:
    from tests.identity.conftest import Enrolled


def test_a_request_says_who_asks_and_for_which_key(device: Enrolled) -> None:
    der = make_request(device.key, "alps", "device", "dev-1")
    request = read_request(request_from_pem(request_to_pem(der)))
    assert request.federation == "alps"
    assert request.address == Address("device", MemberId("dev-1"))
    assert request.public_key == device.key.public_key()


@pytest.mark.parametrize(
    ("federation", "tier", "member"),
    [("alps", "device", "Dev"), ("alps", "singer", "dev-1"), ("", "device", "dev-1")],
)
def test_names_that_cannot_stand_in_a_topic_are_refused(
    device: Enrolled, federation: str, tier: str, member: str
) -> None:
    with pytest.raises(OperatorError):
        make_request(device.key, federation, tier, member)


def test_a_flipped_bit_anywhere_is_refused(device: Enrolled) -> None:
    der = make_request(device.key, "alps", "device", "dev-1")
    for at in range(len(der)):
        flipped = bytearray(der)
        flipped[at] ^= 1 << (at % 8)
        with pytest.raises(RemoteError):
            read_request(bytes(flipped))


def test_a_key_on_another_curve_is_refused() -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(BadCertificate, match="P-256"):
        read_request(make_request(key, "alps", "device", "dev-1"))


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_no_request(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_request(data)
