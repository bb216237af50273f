"""How long an update may be, and how that bound finds itself.

Adaptive clipping (Andrew, Thakkar, McMahan, Ramaswamy 2021, NeurIPS, "Differentially Private
Learning with Adaptive Clipping", algorithm 1): every member says, under the same noise as the rest
of its vector, whether its update was within the bound; the bound then follows the quantile,

    C <- C exp(-rate (share within - quantile)).
"""

import math

import numpy as np

from edgechoir.types import Floats

LEAST = 1e-6
"""Where no device learns anything any more the bound ends here, not in numbers that are none."""
_SLACK = 2.0**-22
"""Of the bound, for what rounding to float32 may add."""


def clip_norm(vector: Floats, bound: float) -> tuple[Floats, bool]:
    """The vector scaled to at most `bound` in Euclidean norm, and whether it was so before.

    No rounding lets it be longer: privacy rests on that.
    """
    exact = vector.astype(np.float64)
    norm = float(np.linalg.norm(exact))
    if norm <= bound:
        return vector, True
    return (exact * (bound * (1 - _SLACK) / norm)).astype(np.float32), False


def next_bound(bound: float, within: float, quantile: float, rate: float, most: float) -> float:
    """The bound of the next round, up to `most`; `within` is the noisy share, taken for what it
    can be."""
    following = bound * math.exp(-rate * (min(max(within, 0.0), 1.0) - quantile))
    return min(max(following, LEAST), most)
