"""A member's mask, and what takes the masks off a sum again.

Bonawitz et al. 2017, section 4: member u sends q_u + PRG(b_u) + sum over v of +-PRG(s_uv). Of each
pair the one with the lower id adds the pad and the other subtracts it, so between survivors they
cancel; their self-masks come off with the b of each, and the pads towards those who are missing
with the leaves that these left in escrow.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
from numpy.typing import DTypeLike

from edgechoir.errors import LocalError
from edgechoir.secagg.chains import pad_seed
from edgechoir.secagg.pads import BLOCK_BYTES, Keystream, Pads, SignedSeed
from edgechoir.types import Ring

SUM_BYTES: Final = 32 * 1024
"""Of a block that only two vectors go into."""


def mask_seeds(
    me: str, b: bytes, leaves: Mapping[str, bytes], context: bytes
) -> tuple[SignedSeed, ...]:
    """The seeds of a member's whole mask; `leaves` has one for each other member of the cohort."""
    if me in leaves or not leaves:
        raise LocalError("a vector needs partners other than its member to mask it")
    pairs = ((pad_seed(leaf, context), sign(me, them)) for them, leaf in sorted(leaves.items()))
    return ((pad_seed(b, context), 1), *pairs)


def expand_mask(
    seeds: tuple[SignedSeed, ...], length: int, dtype: DTypeLike, keystream: Keystream
) -> Ring:
    """The mask [length] itself: made while training goes on, so that only one sum is left to do."""
    mask: Ring = np.empty(length, dtype)
    Pads(seeds, keystream).add(None, mask)
    return mask


def masked_blocks(
    vector: Ring, mask: Ring | None, seeds: tuple[SignedSeed, ...], keystream: Keystream
) -> Iterator[Ring]:
    """The masked vector, block by block: `vector` [d] plus its mask.

    The mask is `mask` [d] or, where that was not made ahead, comes from the seeds. Each block is
    good until the next one is asked for, so that no whole masked vector need ever be in memory.
    """
    size = (BLOCK_BYTES if mask is None else SUM_BYTES) // vector.itemsize
    pads = Pads(seeds, keystream) if mask is None else None
    room: Ring = np.empty(size, vector.dtype)
    for start in range(0, len(vector), size):
        part = vector[start : start + size]
        out = room[: len(part)]
        if mask is not None:
            np.add(part, mask[start : start + size], out=out)
        elif pads is not None:
            pads.add(part, out)
        yield out


def sum_seeds(
    survivors: Mapping[str, bytes], missing: Mapping[str, Mapping[str, bytes]], context: bytes
) -> tuple[SignedSeed, ...]:
    """The seeds of what must be added to a sum over `survivors` to lay it bare.

    `survivors` gives b by id, `missing` the leaves of each absent member towards the survivors.
    """
    own: Iterable[SignedSeed] = ((pad_seed(b, context), -1) for b in survivors.values())
    pairs: Iterable[SignedSeed] = (
        (pad_seed(leaves[them], context), -sign(them, absent))
        for absent, leaves in missing.items()
        for them in survivors
    )
    return (*own, *pairs)


def sign(me: str, them: str) -> int:
    """+1 for the lower id of a pair, which adds, and -1 for the other, which subtracts."""
    return 1 if me < them else -1
