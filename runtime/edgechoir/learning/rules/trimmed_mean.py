"""Coordinate-wise trimmed mean (Yin et al. 2018, ICML, definition 2): the mean without the b
largest and the b smallest values of each coordinate. With no more than b bad ones, what is left
lies between good values, so a weight that a bad cohort claims does not carry it beyond them.
"""

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]


def trimmed_mean(updates: Doubles, weights: Doubles, b: int) -> Doubles:
    """Of updates [n, d] weighted by weights [n] > 0, with n > 2 b."""
    order = np.argsort(updates, axis=0, kind="stable")[b : len(updates) - b]
    kept, weighs = np.take_along_axis(updates, order, axis=0), weights[order]
    mean: Doubles = (kept * weighs).sum(0) / weighs.sum(0)
    return mean
