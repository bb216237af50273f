"""Updates as integers in Z_2^32, Z_2^16 or Z_2^8, so that their sum is exact and can be masked.

A device's part of the sum is w * delta, w = min(n, max_samples) / max_samples, each coordinate of
delta clipped to +-clip and rounded at random to a multiple of 1/scale (stochastic rounding: the
expectation is the value, so errors of many devices cancel; Gupta et al. 2015, section 3.1). Behind
the d coordinates of the model stand the figures of `TAIL`: what would otherwise travel in clear.
In the narrow rings a figure is cut into limbs that each fit a device's share.

Overflow cannot happen: with D devices in the whole tree every coordinate of a device lies within
+-share, and D * share < 2^(bits - 1). The scale follows from that, so all tiers use the same.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from edgechoir.errors import BadUpdate, LocalError
from edgechoir.types import Floats, Ring

WIDTHS: Final = (8, 16, 32)
MAX_DEVICES: Final = (2**31 - 1) // 2
"""In the whole tree: with more, a device's share of the ring is less than 2."""
TAIL: Final = ("samples", "clipped", "ones", "held_out", "correct", "loss")
FIGURE_BITS: Final = 20
"""What limbs must be able to hold of a figure of one device, in the narrow ring."""
LOSS_STEPS: Final = 1024
"""Fixed-point steps per unit of loss."""
CLIPS: Final = (1e-20, 1e20)
"""Clips for which no step of the code leaves the range of float32."""
BLOCK: Final = 64 * 1024


def heaviest(devices: int, bits: int) -> int:
    """The most that a device may weigh among so many in a ring of this width."""
    half: int = 2 ** (bits - 1)
    return max((half - 1) // max(devices, 1), 1)


@dataclass(frozen=True, slots=True)
class Figures:
    """What a device measured of the global model on its own hold-out, before training on."""

    held_out: int = 0
    correct: int = 0
    loss_sum: float = 0.0


@dataclass(frozen=True, slots=True)
class Total:
    """A decoded sum: `delta` [d] is the mean update weighted by samples.

    `cohorts` holds the sums it was made of, where they could be seen (`learning/slots.py`).
    """

    delta: Floats
    samples: int
    devices: int
    clipped_share: float
    held_out: int
    accuracy: float | None
    loss: float | None
    cohorts: tuple["Total", ...] = ()


@dataclass(frozen=True, slots=True)
class Encoding:
    """The fixed-point code of one round; the same on every member of the tree.

    `dimension` d of the model, at most `devices` in the whole tree, `clip` > 0 per coordinate of
    an update, `max_samples` the most that one device may weigh, `bits` 8, 16 or 32 of the ring.
    """

    dimension: int
    devices: int
    clip: float
    max_samples: int
    bits: int = 32

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.devices < 1 or self.max_samples < 1 or not self.clip > 0:
            raise LocalError(f"not an encoding: {self}")
        if not CLIPS[0] <= self.clip <= CLIPS[1]:
            raise BadUpdate(f"a clip of {self.clip:g}, expected {CLIPS[0]:g} to {CLIPS[1]:g}")
        if self.bits not in WIDTHS:
            raise BadUpdate(f"a ring of {self.bits} bits, expected one of {WIDTHS}")
        if self.share < 2 or self.max_samples > self.most:
            raise BadUpdate(
                f"{self.devices} devices of up to {self.max_samples} samples overflow a "
                f"{self.bits}-bit ring"
            )

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16] | np.dtype[np.uint32]:
        """Of a ring element."""
        if self.bits == 8:
            return np.dtype(np.uint8)
        return np.dtype(np.uint16) if self.bits == 16 else np.dtype(np.uint32)

    @property
    def length(self) -> int:
        """Ring elements of a vector."""
        return self.dimension + len(TAIL) * self.limbs

    @property
    def share(self) -> int:
        """The largest magnitude one device may put into any coordinate."""
        half: int = 2 ** (self.bits - 1)
        return (half - 1) // self.devices

    @property
    def limbs(self) -> int:
        """Coordinates that one figure of the tail takes."""
        return 1 if self.bits == 32 else -(-FIGURE_BITS // self._limb_bits)

    @property
    def most(self) -> int:
        """The largest figure of one device."""
        if self.limbs == 1:
            return self.share
        above: int = 2 ** (self._limb_bits * self.limbs)
        return above - 1

    @property
    def _limb_bits(self) -> int:
        return max(self.share.bit_length() - 1, 1)

    @property
    def scale(self) -> float:
        """Fixed-point steps per unit; one step of `share` is kept for rounding up."""
        return (self.share - 1) / self.clip

    def encode(self, delta: Floats, n: int, figures: Figures, noise: Ring) -> Ring:
        """The vector [d + tail] of one device that trained on `n` >= 1 rows.

        `noise` [d] is uniform and decides the rounding. Raises BadUpdate for a delta that is not
        finite or not [d].
        """
        if delta.shape != (self.dimension,):
            raise BadUpdate(f"update has shape {delta.shape}, expected ({self.dimension},)")
        if not np.isfinite(delta).all():
            raise BadUpdate("update has values that are not finite")
        if n < 1 or len(noise) != self.dimension:
            raise LocalError(f"an update needs samples and noise, saw {n} and {len(noise)}")
        weight = min(n, self.max_samples)
        step = self.scale * weight / self.max_samples
        out: Ring = np.empty(self.length, self.dtype)
        clipped = 0
        for start in range(0, self.dimension, BLOCK):
            stop = min(start + BLOCK, self.dimension)
            part = delta[start:stop].astype(np.float64)
            clipped += int(np.count_nonzero(np.abs(part) > self.clip))
            np.clip(part, -self.clip, self.clip, out=part)
            part *= step
            part += noise[start:stop] / 2.0**32
            np.floor(part, out=part)
            out[start:stop] = part.astype(np.int64).astype(self.dtype)
        tail = (weight, clipped, 1, *self._fit_figures(figures))
        out[self.dimension :] = self._cut([int(min(max(v, 0), self.most)) for v in tail])
        return out

    def _cut(self, figures: list[int]) -> list[int]:
        """Figures into limbs, the lowest first."""
        if self.limbs == 1:
            return figures
        width = self._limb_bits
        low = 2**width - 1
        return [v >> (width * i) & low for v in figures for i in range(self.limbs)]

    def _join(self, tail: list[int]) -> list[int]:
        """Sums of limbs back into sums of figures."""
        width, n = self._limb_bits, self.limbs
        return [sum(tail[at + i] << (width * i) for i in range(n)) for at in range(0, len(tail), n)]

    def _fit_figures(self, figures: Figures) -> tuple[float, float, float]:
        """Hold-out rows, right ones and loss steps. A device whose share is too small for them
        stands for fewer rows, so that their means stay what they are; a loss that is not finite
        counts as the largest there is."""
        loss = figures.loss_sum * LOSS_STEPS if np.isfinite(figures.loss_sum) else self.most
        fit = min(1.0, self.most / max(figures.held_out, loss, 1))
        return figures.held_out * fit, figures.correct * fit, loss * fit

    def decode(self, total: Ring) -> Total:
        """Read a sum over devices. Raises BadUpdate where it cannot be one: a wrong unmask."""
        if total.shape != (self.length,):
            raise BadUpdate(f"sum has shape {total.shape}, expected ({self.length},)")
        samples, clipped, ones, held_out, correct, loss = self._join(
            [int(v) for v in total[self.dimension :]]
        )
        if not 1 <= ones <= self.devices:
            raise BadUpdate(f"the sum counts {ones} devices, expected 1 to {self.devices}")
        if not ones <= samples <= ones * self.max_samples or correct > held_out:
            raise BadUpdate(f"the sum of {ones} devices claims {samples} samples, {correct} right")
        signed = total[: self.dimension].view(f"i{self.bits // 8}").astype(np.float64)
        # sum(w_i delta_i) / sum(w_i), with w_i = n_i / max_samples
        delta = signed * (self.max_samples / (self.scale * samples))
        return Total(
            delta=delta.astype(np.float32),
            samples=samples,
            devices=ones,
            clipped_share=clipped / (ones * self.dimension),
            held_out=held_out,
            accuracy=correct / held_out if held_out else None,
            loss=loss / LOSS_STEPS / held_out if held_out else None,
        )

    def within(self, vector: Ring, devices: int) -> None:
        """Check a sum that `devices` devices made before it is masked. Raises BadUpdate."""
        if vector.shape != (self.length,) or vector.dtype != self.dtype:
            raise BadUpdate(
                f"vector is {vector.dtype} {vector.shape}, expected {self.dtype} ({self.length},)"
            )
        bound = devices * self.share
        signed = vector.view(f"i{self.bits // 8}")
        if devices > self.devices or int(signed.max()) > bound or int(signed.min()) < -bound:
            raise BadUpdate(f"vector exceeds what {devices} devices may add up to")
