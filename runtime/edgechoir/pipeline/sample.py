"""One reading of a sensor, and what its source declares about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Final, Literal

import numpy as np

from edgechoir.errors import MissingValue, OperatorError, OutOfRange, WrongShape
from edgechoir.types import Floats

Label = int | float
Bound = float | Sequence[float]
MAX_KEY: Final = 64


@dataclass(frozen=True, slots=True)
class Sample:
    """Values x of any shape, read at `time` (unix seconds) from the sensor called `key`.

    `y` is what the model should answer, where the source knows it.
    """

    key: str
    time: float
    x: Floats
    y: Label | None = None


def as_values(values: object) -> Floats:
    """Numbers, or nested lists of them, as float32; None becomes NaN, too large becomes inf.

    Raises ValueError or TypeError: not numbers, or a ragged list.
    """
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float32)


class Check:
    """Lets a sample through only as declared.

    Every value lies in [`minimum`, `maximum`] (one number, or one for each value of `shape`). A
    value that is absent (NaN) or infinite is `missing`: "drop" refuses the sample, "fill" puts
    `fill` in its place.
    """

    __slots__ = ("_fill", "_maximum", "_minimum", "shape")

    def __init__(
        self,
        shape: tuple[int, ...],
        minimum: Bound | None = None,
        maximum: Bound | None = None,
        missing: Literal["drop", "fill"] = "drop",
        fill: float = 0.0,
    ) -> None:
        """Raises OperatorError: bounds that do not fit the shape, or that no value can meet."""
        self.shape = shape
        self._minimum = _bound("minimum", minimum, shape)
        self._maximum = _bound("maximum", maximum, shape)
        self._fill = fill if missing == "fill" else None
        if (
            self._minimum is not None
            and self._maximum is not None
            and np.any(self._minimum > self._maximum)
        ):
            raise OperatorError(f"minimum {minimum} is above maximum {maximum}: swap them")

    def __call__(self, sample: Sample) -> Sample:
        """The sample, with missing values filled.

        Raises WrongShape, MissingValue, OutOfRange.
        """
        x = sample.x
        if x.shape != self.shape:
            raise WrongShape(f"{sample.key}: {x.shape} values, expected {self.shape}")
        if not isfinite(sample.time) or (sample.y is not None and not isfinite(sample.y)):
            raise MissingValue(f"{sample.key}: time {sample.time} or label {sample.y} is no number")
        finite = np.isfinite(x)
        if not finite.all():
            if self._fill is None:
                raise MissingValue(f"{sample.key}: {int((~finite).sum())} values are missing")
            x = np.where(finite, x, np.float32(self._fill))
            sample = Sample(sample.key, sample.time, x, sample.y)
        if self._minimum is not None and (x < self._minimum).any():
            raise OutOfRange(f"{sample.key}: {x.min()} is below the minimum")
        if self._maximum is not None and (x > self._maximum).any():
            raise OutOfRange(f"{sample.key}: {x.max()} is above the maximum")
        return sample


def _bound(name: str, bound: Bound | None, shape: tuple[int, ...]) -> Floats | None:
    if bound is None:
        return None
    array = as_values(bound)
    if array.shape not in ((), shape):
        raise OperatorError(f"{name} has shape {array.shape}: give one number or {shape}")
    return array
