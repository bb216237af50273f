"""A 256-bit seed expanded into a pad over Z_2^16 or Z_2^32, block by block in the cache.

AES-256 in counter mode (NIST SP 800-38A, 6.5) from a zero counter, or ChaCha20 (RFC 8439, 2.3)
where the processor has no instructions for AES: each seed is derived for one pad only, so key and
counter never meet twice. Several pads are added in one pass over the vector: a block of it stays in
the cache while all the keystreams go over it. Peak memory is the vector itself and one block.
"""

from collections.abc import Sequence
from enum import Enum
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CTR

from edgechoir.types import Ring

BLOCK_BYTES: Final = 256 * 1024
_ZEROS: Final = bytes(BLOCK_BYTES)


class Keystream(Enum):
    """Which cipher expands seeds. All members of a roster must use the same."""

    AES = "aes-256-ctr"
    CHACHA = "chacha20"


SignedSeed = tuple[bytes, int]
"""A seed, and +1 or -1 for adding or subtracting its pad."""


def add_pads(
    vector: Ring, seeds: Sequence[SignedSeed], keystream: Keystream = Keystream.AES
) -> None:
    """Add or subtract the pads of `seeds` to `vector` [d] in place, modulo 2^16 or 2^32."""
    width = vector.itemsize
    streams = [(_start(seed, keystream), sign) for seed, sign in seeds]
    block = BLOCK_BYTES // width
    buffer = bytearray(min(len(vector) * width, BLOCK_BYTES) + 63)
    for start in range(0, len(vector), block):
        part = vector[start : start + block]
        zeros = memoryview(_ZEROS)[: part.nbytes]
        pad = np.frombuffer(buffer, dtype=vector.dtype.newbyteorder("<"), count=len(part))
        for stream, sign in streams:
            stream.update_into(zeros, buffer)
            (np.add if sign > 0 else np.subtract)(part, pad, out=part)


def uniform(seed: bytes, n: int) -> Ring:
    """`n` uniform 32-bit ring elements from a seed."""
    out: Ring = np.zeros(n, np.uint32)
    add_pads(out, [(seed, 1)])
    return out


def _start(seed: bytes, keystream: Keystream) -> CipherContext:
    if keystream is Keystream.AES:
        return Cipher(AES256(seed), CTR(bytes(16))).encryptor()
    return Cipher(ChaCha20(seed, bytes(16)), None).encryptor()
