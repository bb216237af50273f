"""What a member leaves with the aggregator before a turn, so that the turn survives its absence.

For the turn the member draws a self-mask seed b and a leaf key K. Each other member gets a box with
its share of both; the aggregator gets the escrow, all the leaves of this turn locked under K, and
a commitment to b and to K by which wrong shares are noticed. Nobody can open anything with it
until t members have answered for one set of survivors. (Bonawitz et al. 2017, figure 4, shares the
seeds after the set of participants is known; here they lie ready before, which saves a round trip.)

Boxes and escrow are AES-256-GCM (NIST SP 800-38D) under keys that lock one text only, so a
nonce of zero is used once with each.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from edgechoir.errors import Malformed
from edgechoir.secagg.chains import SECRET_BYTES, Chain
from edgechoir.secagg.shamir import SHARE_BYTES, split
from edgechoir.types import Entropy

_NONCE: Final = bytes(12)
BOX_BYTES: Final = 2 * SHARE_BYTES + 16


@dataclass(frozen=True, slots=True)
class Shares:
    """One member's shares [33 bytes] of another's b and K of one turn."""

    b: bytes
    k: bytes


@dataclass(frozen=True, slots=True)
class Provision:
    """A member's own secrets of one turn, and what it leaves with others for it."""

    turn: int
    b: bytes
    own: Shares
    boxes: tuple[tuple[str, bytes], ...]
    escrow: bytes
    commit_b: bytes
    commit_k: bytes


def provide(
    me: str, places: Mapping[str, int], links: Mapping[str, Chain], t: int, entropy: Entropy
) -> Provision:
    """Draw b and K for the turn that the `links` (one for each other member) stand at.

    `places` gives each member's x, this one's included; t is the threshold of the roster.
    """
    turn = next(iter(links.values())).turn
    b, k = entropy(SECRET_BYTES), entropy(SECRET_BYTES)
    xs = list(places.values())
    b_shares, k_shares = split(b, t, xs, entropy), split(k, t, xs, entropy)
    shares = {name: Shares(b_shares[x], k_shares[x]) for name, x in places.items()}
    others = sorted(links)
    boxes = tuple(
        (them, _lock(links[them].box_key(me, them), shares[them].b + shares[them].k, b"shares"))
        for them in others
    )
    leaves = b"".join(links[them].leaf() for them in others)
    return Provision(
        turn=turn,
        b=b,
        own=shares[me],
        boxes=boxes,
        escrow=_lock(k, leaves, b"escrow"),
        commit_b=commitment(b"b", b),
        commit_k=commitment(b"K", k),
    )


def open_box(sender: str, reader: str, link: Chain, box: bytes) -> Shares:
    """The shares that `sender` left for `reader` in the turn of their `link`. Raises Malformed."""
    text = _unlock(link.box_key(sender, reader), box, b"shares")
    if len(text) != 2 * SHARE_BYTES:
        raise Malformed(f"the box of {sender} holds {len(text)} bytes")
    return Shares(text[:SHARE_BYTES], text[SHARE_BYTES:])


def open_escrow(k: bytes, escrow: bytes, others: list[str]) -> dict[str, bytes]:
    """The leaves by the other member's id; `others` is the sorted roster without the owner."""
    text = _unlock(k, escrow, b"escrow")
    if len(text) != SECRET_BYTES * len(others):
        raise Malformed(f"an escrow holds {len(text)} bytes for {len(others)} members")
    return {them: text[i * SECRET_BYTES : (i + 1) * SECRET_BYTES] for i, them in enumerate(others)}


def commitment(label: bytes, secret: bytes) -> bytes:
    """Binds to a secret of 256 random bits, and hides it."""
    return hashlib.sha256(b"edgechoir commitment " + label + b"\0" + secret).digest()


def _lock(key: bytes, text: bytes, what: bytes) -> bytes:
    return AESGCM(key).encrypt(_NONCE, text, b"edgechoir " + what)


def _unlock(key: bytes, box: bytes, what: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(_NONCE, box, b"edgechoir " + what)
    except (InvalidTag, ValueError):
        raise Malformed(f"{what.decode()} do not open: not of this turn, or not intact") from None
