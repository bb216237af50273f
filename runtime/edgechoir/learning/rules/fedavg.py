"""FedAvg: w' = w + sum_i (n_i / n) delta_i (McMahan et al. 2017, AISTATS, algorithm 1).

Linear in the updates, so a masked sum is all it needs.
"""

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.types import Floats


def fedavg(weights: Floats, mean_delta: Floats) -> Floats:
    """The next weights [d] from the mean update [d]. Raises BadUpdate for a non-finite result."""
    with np.errstate(over="ignore"):
        following = (weights.astype(np.float64) + mean_delta).astype(np.float32)
    if not np.isfinite(following).all():
        raise BadUpdate("the next global model would hold values that are not finite")
    return following
