"""A 256-bit seed expanded into a pad over Z_2^32, block by block into a buffer that stays in cache.

AES-256 in counter mode (NIST SP 800-38A, 6.5) from a zero counter: each seed is derived for one
pad only, so key and counter never meet twice. Peak memory is the vector itself and one block.
"""

from typing import Final, Literal

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR

from edgechoir.types import Ring

BLOCK: Final = 64 * 1024
"""Ring elements a block: 256 KiB of keystream."""
_ZEROS: Final = bytes(BLOCK * 4)


def add_pad(vector: Ring, seed: bytes, sign: Literal[1, -1]) -> None:
    """Add (or subtract) the pad of `seed` to `vector` [d] in place, modulo 2^32."""
    keystream = Cipher(AES256(seed), CTR(bytes(16))).encryptor()
    buffer = bytearray(min(len(vector), BLOCK) * 4 + 15)
    for start in range(0, len(vector), BLOCK):
        part = vector[start : start + BLOCK]
        n = keystream.update_into(memoryview(_ZEROS)[: len(part) * 4], buffer)
        pad = np.frombuffer(buffer, dtype="<u4", count=n // 4)
        (np.add if sign == 1 else np.subtract)(part, pad, out=part)


def stream(seed: bytes, n: int) -> Ring:
    """`n` uniform ring elements from a seed."""
    out = np.zeros(n, np.uint32)
    add_pad(out, seed, 1)
    return out
