"""The secrets of a pair of members, one step a round.

Bonawitz et al. 2017 (CCS, "Practical Secure Aggregation", section 4) agree a seed per pair and
mask with its expansion. Here both halves of a pair contribute 32 bytes, and the seed moves along a
hash chain (HKDF, RFC 5869), so that a key read out of a member today says nothing of pads spent
before: old links are deleted. `context` names the exact round (federation, aggregator, plan), so
that members who were shown different plans get pads that do not cancel.
"""

from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from edgechoir.errors import OutOfPlace

SECRET_BYTES: Final = 32
MAX_JUMP: Final = 4096
"""Rounds a chain may skip at once: bounds the work a peer can cause by naming a far round."""


@dataclass(frozen=True, slots=True)
class Chain:
    """The link of one pair for rounds from `round` on; nothing before it can be derived."""

    key: bytes
    round: int

    def at(self, round_: int) -> "Chain":
        """This chain moved forward to `round_`. Raises OutOfPlace for a round gone or too far."""
        key = self.key
        for _ in range(self.steps_to(round_)):
            key = _expand(key, b"edgechoir chain next")
        return Chain(key, round_)

    def steps_to(self, round_: int) -> int:
        """How many links lie between here and `round_`. Raises OutOfPlace as `at` does."""
        steps = round_ - self.round
        if not 0 <= steps <= MAX_JUMP:
            raise OutOfPlace(
                f"round {round_} is not within {self.round}..{self.round + MAX_JUMP} of the chain"
            )
        return steps

    def pad_seed(self, context: bytes) -> bytes:
        """The 256-bit seed of this pair's pad in the round that `context` names."""
        return _expand(self.key, b"edgechoir pad" + context)


def pair_chain(
    mine: bytes, theirs: bytes, me: str, them: str, roster_hash: bytes, first_round: int
) -> Chain:
    """The chain of two members from both their secrets [32 bytes each]; the same on both sides."""
    (low, low_secret), (high, high_secret) = sorted([(me, mine), (them, theirs)])
    info = b"edgechoir pair\0" + low.encode() + b"\0" + high.encode()
    key = HKDF(SHA256(), 32, salt=roster_hash, info=info).derive(low_secret + high_secret)
    return Chain(key, first_round)


def _expand(key: bytes, info: bytes) -> bytes:
    return HKDFExpand(SHA256(), 32, info).derive(key)
