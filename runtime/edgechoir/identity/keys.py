"""The one key of a member: ECDSA on P-256 with SHA-256 (FIPS 186-5), for TLS and for signatures.

P-256 and not Ed25519 because secure elements, TPMs and AWS IoT take it. Signatures are
deterministic (RFC 6979), so that a simulated fleet is repeatable and a device with a poor random
source does not leak its key. They travel as r || s, 32 bytes each, with s in the lower half of
the group's order: ECDSA accepts (r, s) and (r, n - s), we accept only the first of the two, so
that a broker cannot make a second valid message out of one it saw.

A key that signs is a `SigningKey`: one in memory, or a stand-in for one in a secure element or a
PKCS#11 token.

The same key signs TLS handshakes. Whoever signs data with it prefixes a label of its own (domain
separation), as `envelope.py` does.
"""

import hashlib
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from edgechoir.errors import BadSignature, LocalError, OperatorError
from edgechoir.types import Entropy

SIGNATURE_BYTES: Final = 64
ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""n, the order of the group of P-256 (SP 800-186, section 3.2.1.3)."""

_DRAWS: Final = 64
_PREHASHED: Final = utils.Prehashed(hashes.SHA256())


class SigningKey(Protocol):
    """What signs for a member. `EllipticCurvePrivateKey` is one; so is whatever asks a token.

    `sign` is ECDSA over SHA-256 of data that is hashed already, in DER; a token that cannot be
    deterministic may ignore that wish.
    """

    def public_key(self) -> ec.EllipticCurvePublicKey: ...

    def sign(self, data: bytes, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """The signature of a digest [32]."""
        ...


def new_key(entropy: Entropy) -> ec.EllipticCurvePrivateKey:
    """A private key drawn by rejection sampling (FIPS 186-5, appendix A.2.2).

    A draw fails with probability 2^-32; LocalError after 64 failures says the source is broken.
    """
    for _ in range(_DRAWS):
        d = int.from_bytes(entropy(32))
        if 1 <= d < ORDER:
            return ec.derive_private_key(d, ec.SECP256R1())
    raise LocalError(f"the entropy source gave {_DRAWS} times a number outside the group's order")


def sign(key: SigningKey, *data: bytes | memoryview) -> bytes:
    """Sign the concatenation of `data`; 64 bytes r || s, always the same for the same input."""
    der = key.sign(_digest(data), ec.ECDSA(_PREHASHED, deterministic_signing=True))
    r, s = utils.decode_dss_signature(der)
    return r.to_bytes(32) + min(s, ORDER - s).to_bytes(32)


def verify(
    public_key: ec.EllipticCurvePublicKey, signature: bytes | memoryview, *data: bytes | memoryview
) -> None:
    """Check a signature made by `sign` over the concatenation of `data`. Raises BadSignature."""
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"a signature of {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    if not (1 <= r < ORDER and 1 <= s <= ORDER // 2):
        raise BadSignature("the signature's numbers are out of range")
    try:
        public_key.verify(utils.encode_dss_signature(r, s), _digest(data), ec.ECDSA(_PREHASHED))
    except InvalidSignature:
        raise BadSignature("the signature does not fit the bytes and the key") from None


def _digest(data: tuple[bytes | memoryview, ...]) -> bytes:
    digest = hashlib.sha256()
    for part in data:
        digest.update(part)
    return digest.digest()


def key_to_pem(key: ec.EllipticCurvePrivateKey, passphrase: bytes | None) -> bytes:
    """PKCS#8 in PEM; encrypted (PBES2, AES-256) when a passphrase is given."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        encryption = serialization.BestAvailableEncryption(passphrase)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )


def key_from_pem(pem: bytes, passphrase: bytes | None) -> ec.EllipticCurvePrivateKey:
    """Read what `key_to_pem` wrote.

    Raises OperatorError: not a key, not on P-256, or a passphrase that is missing, wrong or
    given for a key that has none.
    """
    try:
        key = serialization.load_pem_private_key(pem, passphrase)
    except TypeError:
        if passphrase is None:
            raise OperatorError("the private key is encrypted: give its passphrase") from None
        raise OperatorError("a passphrase was given, but the key is not encrypted") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise OperatorError(f"not a private key in PEM, or a wrong passphrase: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not on_p256(key.public_key()):
        raise OperatorError(f"the private key is {type(key).__name__}, expected ECDSA on P-256")
    return key


def on_p256(public_key: object) -> bool:
    """Whether a key is one that this package works with."""
    return isinstance(public_key, ec.EllipticCurvePublicKey) and isinstance(
        public_key.curve, ec.SECP256R1
    )
