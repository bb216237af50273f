"""A member's masked vector: its own values plus one pad for each other member of the cohort.

Bonawitz et al. 2017, section 4.0.1: of each pair, the member with the lower id adds the pad and the
other subtracts it, so the sum over the whole cohort is the sum of the values, bit for bit, and any
proper subset is uniformly random to whoever lacks the pair's secrets.
"""

from collections.abc import Mapping

import numpy as np

from edgechoir.errors import LocalError
from edgechoir.secagg.pads import add_pad
from edgechoir.types import Ring


def mask(vector: Ring, me: str, seeds: Mapping[str, bytes]) -> Ring:
    """A masked copy of `vector` [d]; `seeds` has one pad seed for each other member."""
    if me in seeds:
        raise LocalError(f"{me} cannot share a pad with itself")
    if not seeds:
        raise LocalError("a vector with no partner to mask it must not leave its member")
    masked: Ring = np.array(vector, dtype=np.uint32)
    for them, seed in seeds.items():
        add_pad(masked, seed, 1 if me < them else -1)
    return masked
