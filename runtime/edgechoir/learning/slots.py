"""Sums of several cohorts in one masked vector, so that a rule can tell a bad one from a good one.

The vector of k slots is k times the code of a round; each member puts its sum into the slot of its
place in the plan's sorted cohort and leaves the others zero. Masked and added up as any vector, it
opens as the k sums side by side, figures included. A member that is not in the sum leaves its slot
empty. Nothing keeps a member that deviates from writing into the slot of another: what this
isolates are bad devices beneath members that do as they should.
"""

from dataclasses import replace

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Encoding, Total
from edgechoir.types import Ring


def place(vector: Ring, index: int, k: int) -> Ring:
    """vector [n] in slot `index` of [k * n]."""
    out: Ring = np.zeros(k * len(vector), vector.dtype)
    out[index * len(vector) : (index + 1) * len(vector)] = vector
    return out


def slots(vector: Ring, k: int) -> list[Ring]:
    """The k slots of a vector [k * n]. Raises BadUpdate where it has no k equal parts."""
    n, rest = divmod(len(vector), k)
    if rest:
        raise BadUpdate(f"a vector of {len(vector)} numbers has no {k} slots")
    return [vector[i * n : (i + 1) * n] for i in range(k)]


def decode_apart(encoding: Encoding, vector: Ring, k: int) -> Total:
    """The sum over all slots, with that of each that is not empty as its `cohorts`.

    Raises BadUpdate.
    """
    filled = [own for own in slots(vector, k) if own.any()]
    if not filled:
        raise BadUpdate("all slots are empty")
    whole = filled[0].copy()
    for own in filled[1:]:
        whole += own
    cohorts = tuple(encoding.decode(own) for own in filled)
    return replace(encoding.decode(whole), cohorts=cohorts)
