"""Boxes that one reader can open: HPKE in base mode with a hybrid KEM.

RFC 9180 with ML-KEM-768 + X25519 (FIPS 203; the hybrid of draft-connolly-cfrg-xwing-kem), HKDF with
SHA-256 and AES-256-GCM. A recording of broker traffic stays closed even to an attacker who later
breaks one of the two KEMs. The encapsulation draws its own entropy from the operating system
inside `cryptography`; key pairs are derived from the caller's entropy.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from edgechoir.errors import Malformed
from edgechoir.types import Entropy

SUITE: Final = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
MLKEM_BYTES: Final = 1184
PUBLIC_BYTES: Final = MLKEM_BYTES + 32
OVERHEAD: Final = 1088 + 32 + 16
"""What a box adds to its plaintext: ML-KEM ciphertext, X25519 share, GCM tag."""
_PROBE: Final = X25519PrivateKey.from_private_bytes(bytes(32))
"""Any private key finds a point of low order: they all share zero with it (RFC 7748, 6.1)."""


@dataclass(frozen=True, slots=True)
class KemKey:
    """A one-epoch key pair. `public` [1216] = ML-KEM-768 key, then X25519 key."""

    private: MLKEM768X25519PrivateKey
    public: bytes


def new_kem_key(entropy: Entropy) -> KemKey:
    """Derive a fresh pair from 96 bytes of entropy."""
    lattice = MLKEM768PrivateKey.from_seed_bytes(entropy(64))
    curve = X25519PrivateKey.from_private_bytes(entropy(32))
    public = lattice.public_key().public_bytes_raw() + curve.public_key().public_bytes_raw()
    return KemKey(MLKEM768X25519PrivateKey(lattice, curve), public)


def check_public(public: bytes) -> MLKEM768X25519PublicKey:
    """Parse a peer's public key. Raises Malformed for any that cannot be sealed to."""
    if len(public) != PUBLIC_BYTES:
        raise Malformed(f"a KEM key has {PUBLIC_BYTES} bytes, saw {len(public)}")
    try:
        lattice = MLKEM768PublicKey.from_public_bytes(public[:MLKEM_BYTES])
    except ValueError as error:
        raise Malformed(f"not a KEM key: {error}") from None
    curve = X25519PublicKey.from_public_bytes(public[MLKEM_BYTES:])
    try:
        _PROBE.exchange(curve)
    except ValueError:
        raise Malformed("not a KEM key: its X25519 point is of low order") from None
    return MLKEM768X25519PublicKey(lattice, curve)


def seal(public: bytes, plaintext: bytes, info: bytes) -> bytes:
    """Box for the holder of `public`; it opens only under the same `info`. Raises Malformed."""
    return SUITE.encrypt(plaintext, check_public(public), info)


def unseal(key: KemKey, box: bytes | memoryview, info: bytes) -> bytes:
    """Open a box made for this key under this `info`. Raises Malformed."""
    try:
        return SUITE.decrypt(box, key.private, info)
    except (InvalidTag, ValueError):
        raise Malformed("a sealed box does not open: not for this key, context or intact") from None
