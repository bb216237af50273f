"""A private round: what a member adds to its vector, and how far that protects it.

Protected is a member's whole update (client-level), from everybody who sees the sum, the aggregator
and its accomplices included: each member clips its update to a Euclidean norm C, rounds it to the
ring's steps and adds a discrete Gaussian of its own before it masks. Of the survivors at least
`honest` do not collude, and their noise alone makes up the promised multiplier z, relative to the
sensitivity of one vector. All members weigh the same, and nothing else of theirs is in the sum but
their number, so that two more figures travel as coordinates under the same noise: was the update
within C (`clipping`), and how right was the global model here.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgechoir.errors import BadUpdate, LocalError
from edgechoir.learning.fixed_point import Encoding, Figures
from edgechoir.learning.privacy.budget import cost
from edgechoir.learning.privacy.clipping import clip_norm
from edgechoir.learning.privacy.noise import Uniform, discrete_gaussian
from edgechoir.learning.task import Task
from edgechoir.types import Floats, Ring

BOUND: Final = "private_bound"
NOISE: Final = "private_noise"
"""Options of a task whose round is private."""
EXTRAS: Final = 2
"""Coordinates behind those of the update: within the bound, and the accuracy."""
_WEIGHT: Final = 0.5
"""Their range in units of C: each lies within half of it either way."""
_SLACK: Final = 2.0**-22
"""For what rounding the extras to float32 may add."""
_TAILS: Final = 10.0
"""Deviations of noise that the ring has room for; beyond lies less than 1e-22 of it."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Of one round: the norm `bound` C > 0 and the noise multiplier `z` > 0."""

    bound: float
    z: float

    def __post_init__(self) -> None:
        if not (0 < self.bound < math.inf and 0 < self.z < math.inf):
            raise BadUpdate(f"a private round with bound {self.bound:g} and noise {self.z:g}")

    @property
    def norm(self) -> float:
        """Of the whole vector at most, its extras included, in units of the model."""
        return self.bound * math.sqrt(1 + EXTRAS * (_WEIGHT / 2) ** 2) * (1 + _SLACK)

    def clip(self, dimension: int, devices: int, bits: int) -> float:
        """The clip of the plan: room for C and the noise of a member who is alone in making it.

        Raises BadUpdate where the ring is too narrow for so many devices and coordinates.
        """
        half: int = 2 ** (bits - 1)
        share = (half - 1) // devices - 1
        coarse = _TAILS * self.z * math.sqrt(dimension) / max(share, 1)
        if coarse > 0.5:
            raise BadUpdate(
                f"{dimension} coordinates of {devices} devices with noise {self.z:g} do not fit "
                f"into a ring of {bits} bits"
            )
        return self.norm * (1 + _TAILS * self.z) / (1 - coarse)

    def sensitivity(self, encoding: Encoding) -> float:
        """The longest vector in the ring's steps: rounding moves each coordinate by less than 1."""
        return self.norm * encoding.scale + math.sqrt(encoding.dimension)

    def sigma(self, encoding: Encoding, honest: int) -> float:
        """Of one member's noise, in the ring's steps."""
        return self.z * self.sensitivity(encoding) / math.sqrt(honest)

    def cost(self, encoding: Encoding, honest: int) -> float:
        """rho (zCDP) of one such round. Raises BadUpdate where nothing can be promised."""
        try:
            sigma = self.sigma(encoding, honest)
            return cost(self.sensitivity(encoding), sigma, honest, encoding.dimension)
        except LocalError as error:
            raise BadUpdate(str(error)) from None


def terms_of(task: Task) -> Terms | None:
    """The terms of a task; None where its round is not private. Raises Malformed, BadUpdate."""
    if BOUND not in task.options and NOISE not in task.options:
        return None
    return Terms(task.get(BOUND, 0.0), task.get(NOISE, 0.0))


def protect(
    delta: Floats,
    accuracy: float,
    terms: Terms,
    encoding: Encoding,
    honest: int,
    rounding: Ring,
    uniform: Uniform,
) -> Ring:
    """The vector of one member in a private round: delta [dimension - EXTRAS], clipped and noisy.

    `accuracy` is of the global model here, 0.5 where nobody knows. `rounding` [dimension] decides
    the rounding, `uniform` the noise. Raises BadUpdate for a delta of another length or not finite,
    and for a plan whose ring has no room for this noise.
    """
    if delta.shape != (encoding.dimension - EXTRAS,) or not np.isfinite(delta).all():
        raise BadUpdate(
            f"update of shape {delta.shape}, expected ({encoding.dimension - EXTRAS},) and finite"
        )
    if encoding.max_samples != 1:
        raise BadUpdate(f"a private round weighs all alike, the plan up to {encoding.max_samples}")
    sigma = terms.sigma(encoding, honest)
    if terms.norm * encoding.scale + _TAILS * sigma > encoding.share:
        raise BadUpdate(f"a clip of {encoding.clip:g} has no room for noise of {sigma:.3g} steps")
    clipped, within = clip_norm(delta, terms.bound)
    figures = np.array([float(within) - 0.5, min(max(accuracy, 0.0), 1.0) - 0.5])
    whole = np.concatenate([clipped, (figures * (_WEIGHT * terms.bound)).astype(np.float32)])
    out = encoding.encode(whole, 1, Figures(), rounding)
    noise = discrete_gaussian(sigma, encoding.dimension, uniform)
    out[: encoding.dimension] += noise.astype(encoding.dtype)
    return out


@dataclass(frozen=True, slots=True)
class Opened:
    """What a private sum says: the mean update [d], the share of updates within the bound, and the
    mean accuracy; the last two are noisy and may lie outside 0 to 1."""

    delta: Floats
    within: float
    accuracy: float


def open_mean(mean: Floats, terms: Terms) -> Opened:
    """Take a decoded mean [d + EXTRAS] apart."""
    within, accuracy = (float(v) / (_WEIGHT * terms.bound) + 0.5 for v in mean[-EXTRAS:])
    return Opened(mean[:-EXTRAS], within, accuracy)
