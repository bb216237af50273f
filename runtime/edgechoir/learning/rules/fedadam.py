"""FedAdam: v' = beta2 * v + (1 - beta2) * D^2 (Reddi et al. 2021, algorithm 2; see `adaptive`)."""

from edgechoir.learning.rules.adaptive import Adaptive
from edgechoir.learning.rules.rule import Doubles


def fedadam(
    rate: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.99,
    tau: float = 1e-3,
    correct_bias: bool = False,
) -> Adaptive:
    """Steps divided by a decaying mean of the squared mean updates."""

    def second(v: Doubles, square: Doubles) -> Doubles:
        return beta2 * v + (1 - beta2) * square

    return Adaptive(rate, beta1, tau, second, correct_bias)
