"""How well the current model does on the rows that the devices hold out, from masked sums.

A classification: the confusion matrix, the mean log loss, and for each class histograms of its
probability over the rows of that class and over the others, from which the AUC follows to within
the pairs that share a bin. A regression: errors and targets up to second order.
"""

from typing import Final

import numpy as np

from edgechoir.types import Reals

SCORES: Final = 256
"""Bins of a probability."""
WORST_LOSS: Final = 16.0
"""A row's log loss counts as this at most: -log(1e-7)."""


def classified(labels: Reals, logits: Reals) -> Reals:
    """A device's part: confusion [k, k] (true, said), scores [k, 2, SCORES], loss / WORST_LOSS;
    shares of its rows with labels [n] and logits [n, k]."""
    n, k = logits.shape
    y = labels.astype(np.int64)
    z = logits.astype(np.float64) - logits.max(1, keepdims=True)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    confusion = np.bincount(y * k + logits.argmax(1), minlength=k * k)
    bins = np.minimum((p * SCORES).astype(np.int64), SCORES - 1)
    own = (y[:, None] == np.arange(k)).astype(np.int64)
    at = (np.arange(k) * 2 + own) * SCORES + bins
    scores = np.bincount(at.ravel(), minlength=k * 2 * SCORES)
    loss = np.minimum(-np.log(np.maximum(p[np.arange(n), y], 1e-30)), WORST_LOSS).mean()
    return np.concatenate([confusion / n, scores / n, [loss / WORST_LOSS]])


def classified_size(k: int) -> int:
    """Coordinates of that part."""
    return k * k + 2 * k * SCORES + 1


def read_classified(part: Reals, k: int) -> dict[str, object]:
    """accuracy, loss, confusion [k, k] as shares, recall and auc by class (None without rows)."""
    part = np.maximum(part.astype(np.float64), 0.0)
    confusion = part[: k * k].reshape(k, k)
    confusion = confusion / max(confusion.sum(), 1e-30)
    scores = part[k * k : -1].reshape(k, 2, SCORES)
    of = confusion.sum(1)
    recalls = [float(confusion[c, c] / of[c]) if of[c] > 0 else None for c in range(k)]
    return {
        "accuracy": float(np.trace(confusion)),
        "loss": float(part[-1] * WORST_LOSS),
        "recall": recalls,
        "auc": [auc(*scores[c]) for c in range(k)],
        "confusion": confusion.tolist(),
    }


def auc(others: Reals, own: Reals) -> float | None:
    """P(score of an own row > that of another), ties half, from histograms [b] of both."""
    if not own.sum() > 0 or not others.sum() > 0:
        return None
    below: Reals = np.concatenate([[0.0], np.cumsum(others)[:-1]])
    return float((own * (below + others / 2)).sum() / (own.sum() * others.sum()))


def regressed(y: Reals, said: Reals, center: Reals, half: Reals) -> Reals:
    """A device's part [k, 4]: error^2 and |error| by 2 half, target and target^2 by center and
    half; an error of more than twice the targets' range counts as that."""
    error = np.clip((said.astype(np.float64) - y) / (2 * half), -1, 1)
    z = np.clip((y - center) / half, -1, 1)
    part: Reals = np.stack([error**2, np.abs(error), z, z * z], 2).mean(0)
    return part


def read_regressed(part: Reals, half: Reals) -> dict[str, object]:
    """rmse, mae and r2 by output, and the rmse over all of them."""
    square, absolute, z, zz = np.maximum(part.astype(np.float64), [0.0, 0.0, -1.0, 0.0]).T
    square, absolute = square * (2 * half) ** 2, absolute * 2 * half
    variance = np.maximum(zz - z * z, 1e-30) * half**2
    return {
        "rmse": float(np.sqrt(square.mean())),
        "rmse_by_output": np.sqrt(square).tolist(),
        "mae_by_output": absolute.tolist(),
        "r2_by_output": (1 - square / variance).tolist(),
    }
