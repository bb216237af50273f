"""Coordinate-wise median (Yin et al. 2018, ICML, "Byzantine-Robust Distributed Learning",
definition 1): with fewer than half of the values bad it lies between two good ones.
"""

import numpy as np
import numpy.typing as npt


def median(updates: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Of updates [n, d], in each coordinate; of two in the middle their mean."""
    middle: npt.NDArray[np.float64] = np.median(updates, axis=0)
    return middle
