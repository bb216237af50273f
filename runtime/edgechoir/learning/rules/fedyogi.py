"""FedYogi: v' = v - (1 - beta2) * D^2 * sign(v - D^2) (Reddi et al. 2021, algorithm 2, after
Zaheer et al. 2018; see `adaptive`). v falls more slowly than FedAdam's where updates get small."""

import numpy as np

from edgechoir.learning.rules.adaptive import Adaptive
from edgechoir.learning.rules.rule import Doubles


def fedyogi(
    rate: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.99,
    tau: float = 1e-3,
    correct_bias: bool = False,
) -> Adaptive:
    """Steps divided by a mean of squares that changes by at most (1 - beta2) D^2 in a round."""

    def second(v: Doubles, square: Doubles) -> Doubles:
        changed: Doubles = v - (1 - beta2) * square * np.sign(v - square)
        return changed

    return Adaptive(rate, beta1, tau, second, correct_bias)
