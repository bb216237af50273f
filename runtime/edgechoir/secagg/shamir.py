"""A 32-byte secret in shares, any t of which give it back and fewer of which say nothing.

Shamir 1979 (CACM 22(11), "How to share a secret") over the integers modulo the first prime above
2^256, so that every 32-byte secret is a field element. A share is a point of the polynomial; its x
is the reader's place in the roster, from 1, and does not travel.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from edgechoir.errors import LocalError, Malformed
from edgechoir.types import Entropy

PRIME: Final = 2**256 + 297
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 33


def split(secret: bytes, t: int, xs: Sequence[int], entropy: Entropy) -> dict[int, bytes]:
    """Shares [33 bytes each] by x for the places `xs`, all from 1 up and different."""
    n = len(set(xs))
    if len(secret) != SECRET_BYTES or not 1 <= t <= n or n < len(xs) or min(xs) < 1:
        raise LocalError(f"cannot share {len(secret)} bytes among {list(xs)} with threshold {t}")
    # 64 bytes modulo a 257-bit prime: the bias is below 2^-255.
    coefficients = [int.from_bytes(entropy(64)) % PRIME for _ in range(t - 1)]
    coefficients.append(int.from_bytes(secret))
    shares = {}
    for x in xs:
        y = 0
        for coefficient in coefficients:
            y = (y * x + coefficient) % PRIME
        shares[x] = y.to_bytes(SHARE_BYTES)
    return shares


def weights_at_zero(xs: Sequence[int]) -> list[int]:
    """Lagrange's coefficients for the value at 0 from points at `xs`."""
    weights = []
    for x in xs:
        above = below = 1
        for other in xs:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        weights.append(above * pow(below, -1, PRIME) % PRIME)
    return weights


def combine(shares: Mapping[int, bytes]) -> bytes:
    """The secret behind exactly t true shares; with a false one, some other 32 bytes.

    Raises Malformed where no 32-byte secret can be behind them.
    """
    values = []
    for share in shares.values():
        value = int.from_bytes(share)
        if len(share) != SHARE_BYTES or value >= PRIME:
            raise Malformed("a share is not a number of the field")
        values.append(value)
    total = sum(w * y for w, y in zip(weights_at_zero(list(shares)), values, strict=True)) % PRIME
    if total >= 1 << 256:
        raise Malformed("the shares do not belong together")
    return total.to_bytes(SECRET_BYTES)
