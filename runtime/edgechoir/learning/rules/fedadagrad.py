"""FedAdagrad: v' = v + D^2 (Reddi et al. 2021, algorithm 2, after Duchi et al. 2011; see
`adaptive`). Steps only ever get shorter, so it settles without a schedule."""

from edgechoir.learning.rules.adaptive import Adaptive
from edgechoir.learning.rules.rule import Doubles


def fedadagrad(
    rate: float = 0.01, beta1: float = 0.0, tau: float = 1e-3, correct_bias: bool = False
) -> Adaptive:
    """Steps divided by all squared mean updates so far."""

    def second(v: Doubles, square: Doubles) -> Doubles:
        return v + square

    return Adaptive(rate, beta1, tau, second, correct_bias)
