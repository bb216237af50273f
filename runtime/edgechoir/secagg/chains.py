"""The secrets of a pair of members, one link a turn.

Bonawitz et al. 2017 (CCS, "Practical Secure Aggregation", section 4) agree a seed per pair and
mask with its expansion. Here both halves of a pair contribute 32 bytes, and the secret moves along
a hash chain (HKDF, RFC 5869), so that a key read out of a member today says nothing of pads spent
before: old links are deleted.

A link gives a leaf, which may be revealed for its one turn without harm to others, and a key for
the boxes that the pair exchange. The pad of a turn depends on the leaf and on a context that names
the exact round (federation, aggregator, plan): members who were shown different plans get pads
that do not cancel.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from edgechoir.errors import OutOfPlace

SECRET_BYTES: Final = 32
MAX_JUMP: Final = 4096
"""Turns a chain may skip at once: bounds the work a peer can cause by naming a far one."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The link of one pair for `turn` and, by moving on, those after it; never those before."""

    key: bytes
    turn: int

    def at(self, turn: int) -> "Chain":
        """This chain moved forward. Raises OutOfPlace for a turn gone or too far."""
        steps = turn - self.turn
        if not 0 <= steps <= MAX_JUMP:
            raise OutOfPlace(
                f"turn {turn} is not within {self.turn}..{self.turn + MAX_JUMP} of the chain"
            )
        key = self.key
        for _ in range(steps):
            key = _expand(key, b"edgechoir chain next")
        return Chain(key, turn)

    def leaf(self) -> bytes:
        """The pair's secret of this turn alone."""
        return _expand(self.key, b"edgechoir leaf")

    def box_key(self, sender: str, reader: str) -> bytes:
        """The key of the one box that `sender` makes for `reader` in this turn."""
        return _expand(self.key, b"edgechoir box\0" + sender.encode() + b"\0" + reader.encode())


def pair_chain(mine: bytes, theirs: bytes, me: str, them: str, roster_hash: bytes) -> Chain:
    """The chain of two members from both their secrets [32 bytes each]; the same on both sides."""
    (low, low_secret), (high, high_secret) = sorted([(me, mine), (them, theirs)])
    info = b"edgechoir pair\0" + low.encode() + b"\0" + high.encode()
    key = HKDF(SHA256(), 32, salt=roster_hash, info=info).derive(low_secret + high_secret)
    return Chain(key, 1)


def pad_seed(leaf: bytes, context: bytes) -> bytes:
    """The 256-bit seed of a pad, from a pair's leaf or a member's own b, in one exact round."""
    return _expand(leaf, b"edgechoir pad" + context)


def _expand(key: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, info).derive(key)
