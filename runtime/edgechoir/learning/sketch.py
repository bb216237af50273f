"""A shorter or rounder form of an update that all devices of a round make alike, so that sums of it
are sums of updates: a random rotation, and a random choice of coordinates, by a shared seed.

Rotated by R = H D P the coordinates of any vector have about the same size, ||x|| / sqrt(d), so
that a low clip cuts little and a step of the fixed-point code is worth less (Suresh et al. 2017,
ICML, "Distributed Mean Estimation with Limited Communication", section 3): P a random permutation,
D random signs, H the Walsh-Hadamard transform over blocks whose lengths are powers of two, so that
d coordinates stay d. Of these, or of the vector as it is, `share` are chosen at random. R is linear
and its transpose the inverse, so the mean of what is sent is what is sent of the mean.

What is not sent is no error that averages out; a device adds it to its next update (error feedback:
Stich et al. 2018, NeurIPS, "Sparsified SGD with Memory").
"""

import hashlib
import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgechoir.errors import BadUpdate
from edgechoir.learning.task import Task
from edgechoir.types import Floats

ROTATE: Final = "rotate"
SHARE: Final = "sent_share"
SEED: Final = "sketch_seed"
"""Options of a task whose updates come in this form."""
BLOCK: Final = 4096
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sketch:
    """Of one round; the same on all its devices and at the root."""

    seed: int
    rotate: bool = False
    share: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise BadUpdate(f"a share of {self.share:g} of the coordinates, expected up to 1")

    def length(self, d: int) -> int:
        """Coordinates sent of d."""
        return max(math.ceil(self.share * d), 1)

    def send(self, vector: Floats) -> Floats:
        """What is sent of a vector [d]."""
        whole = vector.astype(np.float64)
        if self.rotate:
            order, signs = self._turn(len(vector))
            whole = hadamard(whole[order] * signs)
        return whole[self._chosen(len(vector))].astype(np.float32)

    def open(self, sent: Floats, d: int) -> Floats:
        """The vector [d] that this says: zero in what was not sent. Raises BadUpdate."""
        if len(sent) != self.length(d):
            raise BadUpdate(f"{len(sent)} coordinates of a sketch, expected {self.length(d)}")
        whole = np.zeros(d)
        whole[self._chosen(d)] = sent
        if self.rotate:
            order, signs = self._turn(d)
            turned = hadamard(whole) * signs
            whole = np.empty(d)
            whole[order] = turned
        return whole.astype(np.float32)

    def _chosen(self, d: int) -> npt.NDArray[np.int64]:
        """Which coordinates, in their order."""
        if self.share == 1:
            return np.arange(d)
        drawn = self._order("chosen", d)[: self.length(d)]
        return np.sort(drawn)

    def _turn(self, d: int) -> tuple[npt.NDArray[np.int64], Doubles]:
        bits = np.frombuffer(self._draw("signs", d), np.uint8) & 1
        return self._order("order", d), np.where(bits, -1.0, 1.0)

    def _order(self, what: str, d: int) -> npt.NDArray[np.int64]:
        """A random permutation; not numpy's own, which another version of it may draw otherwise."""
        drawn = np.frombuffer(self._draw(what, 8 * d), "<u8")
        order: npt.NDArray[np.int64] = np.argsort(drawn, kind="stable")
        return order

    def _draw(self, what: str, size: int) -> bytes:
        return hashlib.shake_128(f"edgechoir sketch {what} {self.seed}".encode()).digest(size)


def hadamard(x: Doubles) -> Doubles:
    """The orthonormal Walsh-Hadamard transform of x [d] by blocks: of `BLOCK`, and what is left of
    d in ever smaller powers of two. Its own inverse."""
    out = x.copy()
    at, size = 0, BLOCK
    while at < len(x):
        count = (len(x) - at) // size
        if count:
            stop = at + count * size
            out[at:stop] = _transform(out[at:stop].reshape(count, size)).reshape(-1)
            at = stop
        size //= 2
    return out


def _transform(rows: Doubles) -> Doubles:
    """Of each row [n, 2^k]."""
    n, size = rows.shape
    half = 1
    while half < size:
        pairs = rows.reshape(n, -1, 2, half)
        rows = np.stack((pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]), 2)
        half *= 2
    scaled: Doubles = rows.reshape(n, size) / math.sqrt(size)
    return scaled


def sketch_of(task: Task) -> Sketch | None:
    """The sketch that a task asks for; None where updates come as they are. Raises RemoteError."""
    if SEED not in task.options:
        return None
    return Sketch(task.get(SEED, 0), task.get(ROTATE, False), task.get(SHARE, 1.0))
