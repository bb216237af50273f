"""Gradient inversion: the training rows that an update gives away.

By division: of a first linear layer, a neuron's weight gradient is the sum of the rows that woke it
times what came back to it, its bias gradient the sum of what came back, so that the quotient is a
row where only one woke it (Phong et al. 2017, IEEE TIFS 13(5), section 3; Geiping et al. 2020,
NeurIPS, proposition 3.1). A cloud that lies picks a layer whose neurons differ by a threshold
alone; then the differences of neighbours hold the rows between two thresholds (Fowl et al. 2022,
ICLR, "Robbing the Fed", section 4). By search: rows whose gradient points where the update does
(Zhu et al. 2019, NeurIPS; with the cosine of Geiping et al.).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch

from edgechoir.bundle.load import Bundle
from edgechoir.bundle.manifest import Targets
from edgechoir.training.fit import Model
from edgechoir.training.interpret import run
from edgechoir.training.loss import loss_of
from edgechoir.types import Floats

RECOVERED: Final = 0.1
"""Of the distance from the mean row: closer than this, a row counts as recovered."""
TURNS: Final = 300
FEWEST: Final = 1e-12


@dataclass(frozen=True, slots=True)
class Gain:
    """`error` is the median over the rows of the distance to the best guess, in units of the
    distance to the mean row; `recovered` the share of rows within RECOVERED."""

    error: float
    recovered: float


def by_division(bundle: Bundle, delta: Floats, low: Floats, high: Floats) -> Floats:
    """Guesses [k, inputs] from an update [d] of a model whose first layer is linear, kept within
    what a row can be."""
    weight, bias = bundle.manifest.parameters[:2]
    w = delta[weight.offset : weight.offset + weight.size].reshape(weight.shape).astype(np.float64)
    b = delta[bias.offset : bias.offset + bias.size].astype(np.float64)
    w, b = np.concatenate([w, np.diff(w, axis=0)]), np.concatenate([b, np.diff(b)])
    awake = np.abs(b) > FEWEST
    if not awake.any():
        return ((low + high) / 2)[None].astype(np.float32)
    return np.clip(w[awake] / b[awake, None], low, high).astype(np.float32)


def by_search(
    bundle: Bundle, w: Floats, delta: Floats, y: Targets, low: Floats, high: Floats, seed: int
) -> Floats:
    """Guesses [len(y), inputs] for the rows behind one step from w [d], their labels known."""
    model = Model.of(bundle, w)
    params = {name: part.detach() for name, part in model.params.items()}
    leaves = [part.requires_grad_() for part in params.values()]
    program, loss = model.program, bundle.manifest.loss
    target = torch.from_numpy(-delta.astype(np.float32))
    target /= target.norm().clamp(min=FEWEST)
    below, above = torch.from_numpy(low), torch.from_numpy(high)
    start = np.random.default_rng(seed).uniform(0.4, 0.6, (len(y), len(low)))
    x = (below + torch.from_numpy(start.astype(np.float32)) * (above - below)).requires_grad_()
    labels = torch.from_numpy(y)
    optimizer = torch.optim.Adam([x], lr=0.05 * float((above - below).mean()))
    for _ in range(TURNS):
        optimizer.zero_grad()
        output = run(program, params, x, training=True)
        found = torch.autograd.grad(loss_of(loss, output, labels), leaves, create_graph=True)
        flat = torch.cat([part.flatten() for part in found])
        (1 - flat @ target / flat.norm().clamp(min=FEWEST)).backward()
        optimizer.step()
        with torch.no_grad():
            x.clamp_(below, above)
    guesses: Floats = x.detach().numpy()
    return guesses


def with_traps(bundle: Bundle, public: Floats) -> Bundle:
    """The bundle with a first layer that sorts rows by the sum of their columns: neuron i wakes
    above the i-th quantile over the `public` rows [n, inputs], and all pull alike behind it."""
    weight, bias, behind = bundle.manifest.parameters[:3]
    hidden = weight.shape[0]
    params = np.array(bundle.params, np.float32)
    direction = 1 / np.maximum(public.std(0), 0.1) / public.shape[1]
    thresholds = np.quantile(public @ direction, (np.arange(hidden) + 0.5) / hidden)
    params[weight.offset : weight.offset + weight.size] = np.tile(direction, hidden)
    params[bias.offset : bias.offset + bias.size] = -thresholds
    back = params[behind.offset : behind.offset + behind.size].reshape(behind.shape)
    back[:] = back[:, :1]
    return replace(bundle, params=params)


def gain(guesses: Sequence[Floats], rows: Sequence[Floats], mean: Floats) -> Gain:
    """Of the best guess for each row; guesses[i] [k, inputs] were made for rows[i] [n, inputs]."""
    errors = np.concatenate(
        [
            np.min(np.linalg.norm(x[:, None] - g[None], axis=2), axis=1)
            / np.linalg.norm(x - mean, axis=1)
            for g, x in zip(guesses, rows, strict=True)
        ]
    )
    return Gain(float(np.median(errors)), float((errors < RECOVERED).mean()))
