"""Example-level privacy on the device: DP-SGD, a gradient for each row, clipped, summed and noisy.

Abadi et al. 2016 (CCS, "Deep Learning with Differential Privacy", algorithm 1): every row is in a
step by chance (Poisson sampling, from the operating system's entropy), its gradient is clipped to a
Euclidean norm C, and the sum gets noise of z C. Sum and noise are whole multiples of C / 2^16 and
the noise is a discrete Gaussian, so what floating point does to a continuous one (Mironov 2012,
CCS) does not matter.

Normalisation over a batch mixes rows and has no place here; no bundle can hold it.
"""

import os
from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.func import grad, vmap

from edgechoir.bundle.manifest import LossName
from edgechoir.learning.privacy.noise import Uniform, discrete_gaussian
from edgechoir.training.interpret import Program, run
from edgechoir.training.loss import loss_of

STEPS: Final = 1 << 16
"""Grid steps in the clip; rounding lets a row's gradient be longer by less than sqrt(d) of them."""
_ROWS: Final = 32
"""Rows whose gradients are in memory at once."""


def system_entropy(n: int) -> npt.NDArray[np.uint64]:
    """n uniform 64-bit numbers from the operating system."""
    return np.frombuffer(os.urandom(8 * n), np.uint64)


def poisson_rows(n: int, share: float, uniform: Uniform) -> npt.NDArray[np.int64]:
    """The rows of a step: each of n with probability `share`, on its own."""
    drawn = (uniform(n) >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return np.flatnonzero(drawn < share)


def private_sum(
    program: Program,
    loss: LossName,
    params: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    clip: float,
    noise: float,
    uniform: Uniform,
) -> dict[str, Tensor]:
    """The sum of the rows' clipped gradients plus noise, by parameter; x [rows, ...] may be empty.

    `clip` is C > 0, `noise` z > 0 the deviation in units of the sensitivity.
    """
    held = {name: tensor.detach() for name, tensor in params.items()}
    d = sum(tensor.numel() for tensor in held.values())
    step = clip / STEPS
    total = torch.zeros(d, dtype=torch.float64)
    for rows in torch.split(torch.arange(len(x)), _ROWS) if len(x) else ():
        gradients = _each(program, loss, held, x[rows], y[rows])
        norms = gradients.norm(dim=1, keepdim=True)
        gradients = gradients * (clip / norms.clamp(min=clip))
        total += (gradients / step).round().sum(0)
    sensitivity = STEPS + d**0.5 / 2
    drawn = discrete_gaussian(noise * sensitivity, d, uniform)
    noisy = (total + torch.from_numpy(drawn.astype(np.float64))) * step
    parts = torch.split(noisy.float(), [tensor.numel() for tensor in held.values()])
    return {name: part.view(held[name].shape) for name, part in zip(held, parts, strict=True)}


def _each(
    program: Program, loss: LossName, params: dict[str, Tensor], x: Tensor, y: Tensor
) -> Tensor:
    """One gradient [rows, d] for each row, in float64. A row that has none counts as zero."""

    def of(given: dict[str, Tensor], row: Tensor, target: Tensor) -> Tensor:
        return loss_of(loss, run(program, given, row[None], training=True), target[None])

    try:
        found = vmap(grad(of), in_dims=(None, 0, 0), randomness="different")(params, x, y)
    except RuntimeError:  # recurrent operators know no such batch of batches
        rows = [grad(of)(params, row, target) for row, target in zip(x, y, strict=True)]
        found = {name: torch.stack([row[name] for row in rows]) for name in params}
    flat = torch.cat([found[name].reshape(len(x), -1) for name in params], dim=1).double()
    return torch.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0)
