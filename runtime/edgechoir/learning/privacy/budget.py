"""What noise costs: zero-concentrated differential privacy (zCDP) and its translation to epsilon.

The sum of `honest` discrete Gaussians is nearly one; how nearly, and what it is worth, says
Kairouz, Liu, Steinke 2021 (ICML, "The Distributed Discrete Gaussian Mechanism for Federated
Learning with Secure Aggregation", theorem 1). Rounds add up: rho is a sum. (epsilon, delta) follows
by Canonne, Kairouz, Steinke 2020, proposition 12, minimised over the order.
"""

import math
from typing import Final

import numpy as np

from edgechoir.errors import LocalError

_ORDERS: Final = np.concatenate([1 + np.geomspace(1e-3, 1, 200), np.geomspace(2, 1e6, 2000)])


def cost(sensitivity: float, sigma: float, honest: int, d: int) -> float:
    """rho of one release of a sum [d] in which `honest` members each added noise of `sigma`.

    `sensitivity` is the largest Euclidean norm of one member's vector, in the same integer steps as
    sigma. At sigma >= 1/2 the deviation from one Gaussian is bounded as in the theorem.
    """
    if sigma < 0.5 or sensitivity <= 0 or honest < 1 or d < 1:
        raise LocalError(
            f"no privacy is known for sigma {sigma:g}, sensitivity {sensitivity:g}, "
            f"{honest} honest members, {d} coordinates"
        )
    terms = range(1, honest)
    tau = 10 * sum(math.exp(-2 * math.pi**2 * sigma**2 * k / (k + 1)) for k in terms)
    ratio = sensitivity / (math.sqrt(honest) * sigma)
    epsilon = min(math.sqrt(ratio**2 + tau * d / 2), ratio + tau * math.sqrt(d))
    return epsilon**2 / 2


def epsilon(rho: float, delta: float) -> float:
    """The epsilon that a total cost of rho is worth at this delta; 0 for nothing spent."""
    if rho < 0 or not 0 < delta < 1:
        raise LocalError(f"rho {rho:g} and delta {delta:g} are no budget")
    if rho == 0:
        return 0.0
    a = _ORDERS
    found = a * rho + np.log1p(-1 / a) - (math.log(delta) + np.log(a)) / (a - 1)
    return max(float(found.min()), 0.0)


def rho_for(target: float, delta: float) -> float:
    """The largest rho whose epsilon at this delta stays within `target` > 0."""
    low, high = 0.0, 1.0
    while epsilon(high, delta) < target:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if epsilon(middle, delta) <= target else (low, middle)
    return low
