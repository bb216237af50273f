"""Published vectors, tampered input and files of the member key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadSignature, LocalError, OperatorError
from edgechoir.identity.authority import Authority
from edgechoir.identity.envelope import Signer, Verifier
from edgechoir.identity.keys import ORDER, key_from_pem, key_to_pem, new_key, sign, verify
from edgechoir.types import Entropy

if TYPE_CHECKING:
    from tests.identity.conftest import Enrolled

# RFC 6979, appendix A.2.5: the key, and for SHA-256 the (r, s) of two messages.
RFC_KEY = 0xC9AFA9D845BA75166B5C215767B1D6934E50C3DB36E89B127B8A622B120F6721
RFC_VECTORS = {
    b"sample": (
        0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
        0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
    ),
    b"test": (
        0xF1ABB023518351CD71D881567B1EA663ED3EFCF6C5132B354F28D3B0B7D38367,
        0x019F4113742A2B14BD25926B49C649155F267E60D3814B4C0CC84250E46F0083,
    ),
}


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(RFC_KEY, ec.SECP256R1())


@pytest.mark.parametrize("message", RFC_VECTORS)
def test_signatures_are_those_of_rfc_6979_with_the_lower_s(
    key: ec.EllipticCurvePrivateKey, message: bytes
) -> None:
    r, s = RFC_VECTORS[message]
    assert sign(key, message) == r.to_bytes(32) + min(s, ORDER - s).to_bytes(32)


def test_the_second_form_of_a_signature_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    signature = sign(key, b"sample")
    other = signature[:32] + (ORDER - int.from_bytes(signature[32:])).to_bytes(32)
    with pytest.raises(BadSignature, match="out of range"):
        verify(key.public_key(), other, b"sample")


@given(parts=st.lists(st.binary(max_size=40), max_size=4), signature=st.binary(max_size=70))
def test_only_the_signature_of_the_whole_data_fits(parts: list[bytes], signature: bytes) -> None:
    key = ec.derive_private_key(RFC_KEY, ec.SECP256R1())
    verify(key.public_key(), sign(key, *parts), b"".join(parts))
    with pytest.raises(BadSignature):
        verify(key.public_key(), sign(key, *parts), b"".join(parts), b"x")
    with pytest.raises(BadSignature):
        verify(key.public_key(), signature, *parts)


def test_a_key_drawn_outside_the_order_is_drawn_again() -> None:
    draws = iter([b"\xff" * 32, bytes(32), (7).to_bytes(32)])
    assert new_key(lambda n: next(draws)).private_numbers().private_value == 7


def test_a_broken_entropy_source_is_named() -> None:
    with pytest.raises(LocalError, match="entropy"):
        new_key(bytes)


@pytest.mark.parametrize("passphrase", [None, b"choir"])
def test_a_key_survives_its_file(entropy: Entropy, passphrase: bytes | None) -> None:
    key = new_key(entropy)
    pem = key_to_pem(key, passphrase)
    assert (b"ENCRYPTED" in pem) == (passphrase is not None)
    assert key_from_pem(pem, passphrase).private_numbers() == key.private_numbers()


@pytest.mark.parametrize(
    ("written", "read", "message"),
    [
        (b"choir", b"chair", "wrong passphrase"),
        (b"choir", None, "give its passphrase"),
        (None, b"choir", "not encrypted"),
    ],
)
def test_a_wrong_passphrase_is_an_operator_error(
    entropy: Entropy, written: bytes | None, read: bytes | None, message: str
) -> None:
    with pytest.raises(OperatorError, match=message):
        key_from_pem(key_to_pem(new_key(entropy), written), read)


def test_a_key_on_another_curve_is_refused() -> None:
    pem = key_to_pem(ec.generate_private_key(ec.SECP384R1()), None)
    with pytest.raises(OperatorError, match="P-256"):
        key_from_pem(pem, None)


class SecureElement:
    """A key that can be asked to sign and for nothing else, as one on a PKCS#11 token.

    It is not deterministic, and every other signature has its s in the upper half.
    """

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self._count = 0

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._key.public_key()

    def sign(self, data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        self._count += 1
        der = self._key.sign(data, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        r, s = utils.decode_dss_signature(der)
        low = min(s, ORDER - s)
        return utils.encode_dss_signature(r, ORDER - low if self._count % 2 else low)


def test_a_key_in_a_secure_element_signs_as_well(device: Enrolled, authority: Authority) -> None:
    element = SecureElement(device.key)
    signer = Signer(element, device.certificate, b"instance")
    verifier = Verifier(authority.root, "alps", 1 << 16)
    for number in range(4):
        envelope = signer.wrap(1, b"body", number)
        assert verifier.open(envelope, 1_800_000_000.0).sequence == number
