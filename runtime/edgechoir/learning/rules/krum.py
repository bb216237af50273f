"""Krum and Multi-Krum (Blanchard et al. 2017, NeurIPS, "Machine Learning with Adversaries"). The
score of an update is the sum of its squared distances to its n - f - 2 closest others,

    s(i) = sum_{i -> j} ||V_i - V_j||^2

Krum takes the update with the least score, Multi-Krum the mean of the m updates with the least. It
holds against f bad ones of n >= 2 f + 3, with m up to n - f - 2.
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def scores(updates: Doubles, f: int) -> Doubles:
    """s(i) of updates [n, d], n > f + 2."""
    n = len(updates)
    squares = np.array([((updates - one) ** 2).sum(1) for one in updates])
    np.fill_diagonal(squares, np.inf)
    least: Doubles = np.sort(squares, axis=1)[:, : n - f - 2].sum(1)
    return least


def krum(updates: Doubles, weights: Doubles, f: int, m: int) -> Doubles:
    """The mean of the m updates of [n, d] with the least scores, weighted by weights [n]."""
    chosen = np.argsort(scores(updates, f), kind="stable")[:m]
    mean: Doubles = np.average(updates[chosen], axis=0, weights=weights[chosen])
    return mean
