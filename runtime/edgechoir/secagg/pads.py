"""A 256-bit seed expanded into a pad over Z_2^16 or Z_2^32, block by block in the cache.

AES-256 in counter mode as it is inside GCM with a nonce of zero (NIST SP 800-38D, 7.1: the first
counter block is 2), or ChaCha20 (RFC 8439, 2.3) from a zero counter where processors have no
instructions for AES. Each seed is derived for one pad only, so key and counter never meet twice.

Several pads are added in one pass over the vector: a block of it stays in the cache while all the
keystreams go over it. Beside the vector itself this needs the memory of two blocks.

Why GCM's counter: OpenSSL has code for the wide AES instructions of a processor (VAES) in GCM
and none in plain CTR, so there GCM's keystream comes 2 to 3 times as fast, its authentication tag
included, for which we have no use. Without those instructions plain CTR is the faster one. Both
give the same bytes.
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256, ChaCha20
from cryptography.hazmat.primitives.ciphers.modes import CTR, GCM
from numpy._core import _multiarray_umath  # type: ignore[attr-defined]  # has no stub

from edgechoir.types import Ring

BLOCK_BYTES: Final = 128 * 1024
_ZEROS: Final = bytes(BLOCK_BYTES)
_FIRST_COUNTER: Final = (2).to_bytes(16)
_WIDE: Final = ("AVX512F", "AVX512BW", "AVX512DQ", "AVX512VL", "VAES", "VPCLMULQDQ")
_FEATURES: Final[Mapping[str, bool]] = getattr(_multiarray_umath, "__cpu_features__", {})
WIDE_AES: Final = all(_FEATURES.get(name, False) for name in _WIDE)
"""Whether this processor has what OpenSSL's wide GCM asks for, as numpy has found out."""


class Keystream(Enum):
    """Which cipher expands seeds. All members of a roster must use the same."""

    AES = "aes-256-ctr"
    CHACHA = "chacha20"


SignedSeed = tuple[bytes, int]
"""A seed, and +1 or -1 for adding or subtracting its pad."""


class Pads:
    """The pads of some seeds, from their beginning on, as far as `add` has taken them."""

    def __init__(self, seeds: Sequence[SignedSeed], keystream: Keystream) -> None:
        self._streams = [
            (_start(seed, keystream, wide=WIDE_AES), np.add if sign > 0 else np.subtract)
            for seed, sign in seeds
        ]
        self._buffer = bytearray(BLOCK_BYTES)

    def add(self, vector: Ring | None, out: Ring) -> None:
        """Write `vector` [d], or zeros, plus the next d elements of every pad to `out` [d].

        `out` may be `vector`. All calls but the last take a whole number of `BLOCK_BYTES`.
        """
        block = BLOCK_BYTES // out.itemsize
        pads = np.frombuffer(self._buffer, out.dtype.newbyteorder("<"))
        nothing = np.frombuffer(_ZEROS, out.dtype)
        for start in range(0, len(out), block):
            target = out[start : start + block]
            n = len(target)
            source = nothing[:n] if vector is None else vector[start : start + block]
            zeros = _ZEROS if target.nbytes == BLOCK_BYTES else _ZEROS[: target.nbytes]
            pad = pads[:n]
            for stream, combine in self._streams:
                stream.update_into(zeros, self._buffer)
                combine(source, pad, out=target)
                source = target
            if source is not target:
                target[:] = source


def add_pads(
    vector: Ring,
    seeds: Sequence[SignedSeed],
    keystream: Keystream = Keystream.AES,
    out: Ring | None = None,
) -> None:
    """Add or subtract the pads of `seeds` to `vector` [d], modulo 2^16 or 2^32.

    The sum is written to `out` [d], or to `vector` itself.
    """
    Pads(seeds, keystream).add(vector, vector if out is None else out)


def uniform(seed: bytes, n: int) -> Ring:
    """`n` uniform 32-bit ring elements from a seed."""
    out: Ring = np.zeros(n, np.uint32)
    add_pads(out, [(seed, 1)])
    return out


def _start(seed: bytes, keystream: Keystream, *, wide: bool) -> CipherContext:
    if keystream is Keystream.CHACHA:
        return Cipher(ChaCha20(seed, bytes(16)), None).encryptor()
    if wide:
        return Cipher(AES256(seed), GCM(bytes(12))).encryptor()
    return Cipher(AES256(seed), CTR(_FIRST_COUNTER)).encryptor()
