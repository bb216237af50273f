"""Many samples of one key at once: what a sensor with a buffer gives, or a replay at full speed.

An operator that has a method `block` takes them as one array, where it can; any other, and one that
raises, gets them one by one.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgechoir.errors import WrongShape
from edgechoir.pipeline.sample import Label, Sample
from edgechoir.types import Floats


@dataclass(frozen=True, slots=True)
class Block:
    """Samples of `key`: times [n] in unix seconds, values x [n, ...], labels y [n] or none."""

    key: str
    time: npt.NDArray[np.float64]
    x: Floats
    y: npt.NDArray[np.float64] | npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        """Raises WrongShape: not as many times, values and labels."""
        n = len(self.x) if self.x.ndim else -1
        if self.time.shape != (n,) or (self.y is not None and self.y.shape != (n,)):
            raise WrongShape(
                f"{self.key}: values {self.x.shape}, times {self.time.shape}, labels "
                f"{None if self.y is None else self.y.shape}: give one time and label for each"
            )

    def __len__(self) -> int:
        return len(self.x)

    def samples(self) -> list[Sample]:
        """One by one, oldest first."""
        labels: list[Label | None]
        labels = [None] * len(self.x) if self.y is None else self.y.tolist()
        key = self.key
        return [
            Sample(key, time, x, y)
            for time, x, y in zip(self.time.tolist(), self.x, labels, strict=True)
        ]

    def where(self, keep: npt.NDArray[np.bool_]) -> "Block | None":
        """The samples for which `keep` [n] is true; None where there are none."""
        if keep.all():
            return self
        if not keep.any():
            return None
        return Block(
            self.key, self.time[keep], self.x[keep], None if self.y is None else self.y[keep]
        )

    def with_values(self, x: Floats) -> "Block":
        """The same samples with values x [n, ...]."""
        return Block(self.key, self.time, x, self.y)
