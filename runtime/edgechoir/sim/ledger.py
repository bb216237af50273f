"""What must hold whatever happens, checked in every step from what an all-seeing witness knows."""

import hashlib
from collections.abc import Callable

import numpy as np

from edgechoir import wire
from edgechoir.errors import EdgechoirError
from edgechoir.rounds.events import RoundDone, RoundFailed
from edgechoir.secagg.pads import SignedSeed
from edgechoir.types import Ring


class ViolationError(EdgechoirError):
    """Something that must always hold did not."""


class Ledger:
    """Remembers in clear what members did. Every name here is the one of a place in the tree."""

    def __init__(self, when: Callable[[], str]) -> None:
        self.when = when
        self.contributed: dict[tuple[str, int], dict[str, Ring]] = {}
        self.pads: dict[tuple[str, bytes], bytes] = {}
        """The vector a member's pad was used on, by its hash."""
        self.spoken: dict[tuple[str, str, bytes], bytes] = {}

    def check(self, holds: bool, what: str) -> None:
        """Raises ViolationError."""
        if not holds:
            raise ViolationError(f"{self.when()}: {what}")

    def contribute(self, parent: str, member: str, round_: int, vector: Ring) -> None:
        """What a member puts into its parent's round."""
        self.contributed.setdefault((parent, round_), {})[member] = vector

    def mask(self, who: str, seeds: tuple[SignedSeed, ...], vector: Ring) -> None:
        """These pads go onto this vector, and onto no other."""
        digest = hashlib.sha256(vector.tobytes()).digest()
        for seed, _ in seeds:
            known = self.pads.setdefault((who, seed), digest)
            self.check(known == digest, f"{who} uses a pad on a second vector")

    def speak(self, who: str, message: wire.Message) -> None:
        """A member signs one survivor set for a context, and answers for one."""
        said: bytes
        match message:
            case wire.Consent(context=context, signature=said):
                pass
            case wire.Answer(context=context, sealed=said):
                pass
            case wire.Upload(context=context, receipt=said):
                # A second upload for the same context would have the same receipt.
                again = (who, "Upload", context) in self.spoken
                self.check(not again, f"{who} uploads twice in turn {message.turn}")
                signed = (who, "Consent", context) in self.spoken
                answered = (who, "Answer", context) in self.spoken
                late = signed or answered
                self.check(not late, f"{who} uploads in turn {message.turn} after it answered")
            case _:
                return
        kind = type(message).__name__
        known = self.spoken.setdefault((who, kind, context), said)
        self.check(known == said, f"{who} sends two {kind}s in a turn")

    def done(self, who: str, done: RoundDone, floor: int) -> None:
        """The unmasked sum is the plain sum of the survivors, bit for bit, and not too small."""
        plain = np.zeros_like(done.total)
        parts = self.contributed.get((who, done.plan.round), {})
        for member in done.survivors:
            self.check(member in parts, f"{who} counts {member}, who gave nothing")
            plain += parts[member]
        self.check(
            bool(np.array_equal(plain, done.total)),
            f"{who}: the sum of round {done.plan.round} is not the plain sum",
        )
        few = f"{who} has unmasked {len(done.survivors)} members, the least is {floor}"
        self.check(len(done.survivors) >= floor, few)

    def failed(self, who: str, failed: RoundFailed) -> None:
        """A round that fails says why; among honest members never for masks that do not fit."""
        self.check(bool(failed.reason), f"{who} failed round {failed.round} without a reason")
        wrong = "do not come off" in failed.reason or "do not open" in failed.reason
        self.check(not wrong, f"{who} failed round {failed.round}: {failed.reason}")


def read_message(data: bytes) -> wire.Message:
    """The message in an envelope of our own making; its signature is not looked at."""
    at = 4
    for _ in range(3):
        at += 1 + data[at]
    at += 16
    at += 2 + int.from_bytes(data[at : at + 2])
    size = int.from_bytes(data[at : at + 4])
    return wire.decode(data[3], data[at + 4 : at + 4 + size])
