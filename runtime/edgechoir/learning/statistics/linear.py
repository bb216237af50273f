"""Linear models in closed form: A^T A and A^T b are sums over rows, so one masked sum gives both.

    w = argmin |A w - b|^2 / n + ridge |w|^2 = (A^T A / n + ridge I)^-1 A^T b / n

on standardised columns, the intercept free of the ridge (Hoerl and Kennard 1970, Technometrics
12(1), section 2). A classification is regressed on the one-hot class, whose largest output is the
answer. Mean and deviation are read from the sums themselves.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.types import Reals

WORST: Final = 1e6
"""Condition number from which the fixed point's errors would show in the weights."""


@dataclass(frozen=True, slots=True)
class Linear:
    """y = weights [k, f] x + bias [k], in the units of the columns; `condition` of what was solved,
    `r2` [k] the share of the variance that is explained."""

    weights: Reals
    bias: Reals
    condition: float
    r2: Reals


def coordinates(f: int, k: int) -> int:
    """Of a device's part: the upper triangle of A^T A, A^T b, and b^2."""
    return (f + 1) * (f + 2) // 2 + (f + 1) * k + k


def gram_of(z: Reals, b: Reals) -> Reals:
    """A device's part, from columns z [n, f] and targets b [n, k] that lie within [-1, 1]."""
    a = np.concatenate([np.ones((len(z), 1)), z.astype(np.float64)], 1)
    whole = (a.T @ a / len(a))[np.triu_indices(a.shape[1])]
    return np.concatenate([whole, (a.T @ b / len(a)).ravel(), (b * b).mean(0)])


def solve(part: Reals, f: int, k: int, ridge: float) -> Linear:
    """The model in units of z and b. Raises BadUpdate where the columns do not determine it."""
    part = part.astype(np.float64)
    size = (f + 1) * (f + 2) // 2
    gram = np.zeros((f + 1, f + 1))
    gram[np.triu_indices(f + 1)] = part[:size]
    gram = gram + np.triu(gram, 1).T
    with_b = part[size : size + (f + 1) * k].reshape(f + 1, k)
    squares = part[size + (f + 1) * k :]
    mean, mean_b = gram[0, 1:] / gram[0, 0], with_b[0] / gram[0, 0]
    covariance = gram[1:, 1:] - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    used = deviation > 1e-5
    scale = np.where(used, 1.0 / np.where(used, deviation, 1.0), 0.0)
    correlation = covariance * np.outer(scale, scale) + np.diag(np.where(used, 0.0, 1.0))
    cross = (with_b[1:] - np.outer(mean, mean_b)) * scale[:, None]
    system = correlation + ridge * np.eye(f)
    condition = float(np.linalg.cond(system)) if f else 1.0
    if condition > WORST:
        raise BadUpdate(
            f"the columns hardly determine a model (condition number {condition:.1e}, at most "
            f"{WORST:.0e}): leave dependent columns out, or ask with a larger ridge"
        )
    solved = np.linalg.solve(system, cross)
    weights = (solved * scale[:, None]).T
    variance = np.maximum(squares - mean_b**2, 1e-30)
    left = variance - 2 * (solved * cross).sum(0) + (solved * (correlation @ solved)).sum(0)
    return Linear(weights, mean_b - weights @ mean, condition, 1 - left / variance)


def in_units(model: Linear, center: Reals, half: Reals, at: Reals, size: Reals) -> Linear:
    """The model of z = (x - center) / half [f] and b = (y - at) / size [k], for x and y."""
    weights = model.weights * size[:, None] / half
    bias = model.bias * size + at - weights @ center
    return Linear(weights, bias, model.condition, model.r2)
