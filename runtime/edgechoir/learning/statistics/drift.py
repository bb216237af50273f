"""How far what a model sees and says now is from what it was made with.

The population stability index sum (p - q) ln(p / q), and the Jensen-Shannon divergence in bits (Lin
1991, IEEE Trans. Inf. Theory 37(1), equation 4.1). Below .1 the index is commonly read as no
change, above .25 as a large one; with few rows both are above zero by chance alone, about
(bins - 1) (1 / n + 1 / m) for the index.
"""

from typing import Final

import numpy as np

from edgechoir.types import Reals

LEAST: Final = 1e-4
"""A share counts as this at least, or one empty bin would make the index infinite."""
MODERATE, LARGE = 0.1, 0.25


def stability(p: Reals, q: Reals) -> Reals:
    """The index [f] between shares p and q [f, b]."""
    p, q = np.maximum(_whole(p), LEAST), np.maximum(_whole(q), LEAST)
    index: Reals = ((p - q) * np.log(p / q)).sum(-1)
    return index


def divergence(p: Reals, q: Reals) -> Reals:
    """Jensen-Shannon, in [0, 1] bits, between shares p and q [f, b]."""
    p, q = _whole(p), _whole(q)
    return _entropy((p + q) / 2) - (_entropy(p) + _entropy(q)) / 2


def by_chance(bins: int, n: int, m: int) -> float:
    """The index to expect of two samples of n and m rows of one population."""
    return (bins - 1) * (1 / max(n, 1) + 1 / max(m, 1))


def word(index: float) -> str:
    """How the index is commonly read."""
    return "none" if index < MODERATE else "moderate" if index < LARGE else "large"


def _whole(p: Reals) -> Reals:
    p = np.maximum(p.astype(np.float64), 0.0)
    whole: Reals = p / np.maximum(p.sum(-1, keepdims=True), 1e-30)
    return whole


def _entropy(p: Reals) -> Reals:
    bits: Reals = -(p * np.log2(np.where(p > 0, p, 1.0))).sum(-1)
    return bits
