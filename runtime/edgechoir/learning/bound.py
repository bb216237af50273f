"""A bound on what one honest device's update can do, whatever its rows are: its L2 norm.

delta' = delta * min(1, most / ||delta||)      (McMahan et al. 2018, ICLR, section 3)
"""

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.types import Floats


def cut_to(delta: Floats, most: float) -> Floats:
    """delta [d] scaled down to an L2 norm of `most` > 0. Raises BadUpdate if it is not finite."""
    norm = float(np.linalg.norm(delta.astype(np.float64)))
    if not np.isfinite(norm):
        raise BadUpdate("update has values that are not finite")
    return delta if norm <= most else (delta * (most / norm)).astype(np.float32)
