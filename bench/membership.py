"""Membership inference: was this row trained on? From models alone, as every member sees them.

By the loss of the last model (Yeom et al. 2018, IEEE CSF, section 3); by the likelihood ratio of
its confidence under shadow models with and without the row (Carlini et al. 2022, IEEE S&P, "LiRA",
with one variance for all rows, since the shadows are few); and by the sequence of releases: how far
each step of the global model goes down the row's own gradient (the cosine of Li et al. 2022,
"Effective passive membership inference attacks in federated learning").
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import torch
from torch.func import grad, vmap

from edgechoir.bundle.load import Bundle
from edgechoir.bundle.manifest import Targets
from edgechoir.training.fit import Model, predict
from edgechoir.training.interpret import run
from edgechoir.training.loss import loss_of
from edgechoir.types import Floats

_ROWS: Final = 64
FALSE: Final = 0.01


@dataclass(frozen=True, slots=True)
class Power:
    """`auc` of 0.5 is a coin; `true_rate` is of members found where FALSE of the others are taken
    for members too."""

    auc: float
    true_rate: float


def power(scores: Floats, member: np.ndarray) -> Power:
    """Of scores [n] that are high for members [n]."""
    inside, outside = scores[member], scores[~member]
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores, kind="stable")] = np.arange(1, len(scores) + 1)
    for value in np.unique(scores):  # equal scores share their rank
        same = scores == value
        ranks[same] = ranks[same].mean()
    below = ranks[member].sum() - len(inside) * (len(inside) + 1) / 2
    auc = below / (len(inside) * len(outside))
    return Power(float(auc), float((inside > np.quantile(outside, 1 - FALSE)).mean()))


def confidence(bundle: Bundle, w: Floats, x: Floats, y: Targets) -> Floats:
    """log(p / (1 - p)) of the true class, [n]."""
    outputs = predict(bundle, w, x).astype(np.float64)
    at = np.arange(len(y))
    true = outputs[at, y]
    outputs[at, y] = -np.inf
    most = outputs.max(1)
    found = true - most - np.log(np.exp(outputs - most[:, None]).sum(1))
    return np.asarray(found, np.float32)


def by_likelihood(seen: Floats, shadows: Floats, inside: np.ndarray) -> Floats:
    """Scores [n] of confidences `seen` [n], by those of shadow models [k, n], of which `inside`
    [k, n] had the row among theirs."""
    total = np.zeros(len(seen))
    for had, sign in ((inside, 1.0), (~inside, -1.0)):
        mean = np.where(had, shadows, 0).sum(0) / np.maximum(had.sum(0), 1)
        variance = np.square(np.where(had, shadows - mean, 0)).sum() / max(had.sum(), 1) + 1e-9
        total += sign * (-np.square(seen - mean) / (2 * variance) - np.log(variance) / 2)
    return total.astype(np.float32)


def by_sequence(bundle: Bundle, models: Sequence[Floats], x: Floats, y: Targets) -> Floats:
    """Scores [n]: the cosines of every step with the row's way down, added up."""
    total = np.zeros(len(x))
    for before, after in pairwise(models):
        step = torch.from_numpy(after - before)
        total += _cosines(Model.of(bundle, before), step, x, y)
    return total.astype(np.float32)


def _cosines(model: Model, step: torch.Tensor, x: Floats, y: Targets) -> Floats:
    params = {name: part.detach() for name, part in model.params.items()}

    def of(given: dict[str, torch.Tensor], row: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        output = run(model.program, given, row[None], training=False)
        return loss_of(model.manifest.loss, output, target[None])

    each = vmap(grad(of), in_dims=(None, 0, 0))
    found = []
    for start in range(0, len(x), _ROWS):
        rows = torch.from_numpy(x[start : start + _ROWS])
        parts = each(params, rows, torch.from_numpy(y[start : start + _ROWS]))
        flat = torch.cat([parts[name].reshape(len(rows), -1) for name in params], dim=1)
        cosine = -(flat @ step) / (flat.norm(dim=1) * step.norm()).clamp(min=1e-12)
        found.append(cosine.numpy())
    return np.concatenate(found)
