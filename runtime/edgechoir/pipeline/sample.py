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


class Bounds:
    """Numbers that hold for a whole sample, or one for each of its values.

    `shape` is the shape a sample must have, or None where any will do.
    """

    __slots__ = ("_high", "_low", "shape")

    def __init__(self, low: Bound | None, high: Bound | None) -> None:
        """Raises OperatorError: not of one shape, or `low` above `high`."""
        lows = as_values(-np.inf if low is None else low)
        highs = as_values(np.inf if high is None else high)
        if lows.ndim and highs.ndim and lows.shape != highs.shape:
            raise OperatorError(f"minimum has shape {lows.shape}, maximum {highs.shape}")
        if not (lows <= highs).all():
            raise OperatorError(f"minimum {low} is above maximum {high}: swap them")
        self.shape = lows.shape or highs.shape or None
        self._low = None if low is None else lows
        self._high = None if high is None else highs

    def hold(self, x: Floats) -> bool:
        """Whether all of x lies within; a NaN does not."""
        return bool(
            (self._low is None or (x >= self._low).all())
            and (self._high is None or (x <= self._high).all())
        )


def as_values(values: object) -> Floats:
    """Numbers, or nested lists of them, as float32; None becomes NaN, too large becomes inf.

    Raises ValueError or TypeError: not numbers, or a ragged list.
    """
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float32)


class Check:
    """Lets a sample through only as declared.

    It has `shape` (None: any), and every value lies in [`minimum`, `maximum`] (one number, or one
    for each value). A
    value that is absent (NaN) or infinite is `missing`: "drop" refuses the sample, "fill" puts
    `fill` in its place.
    """

    __slots__ = ("_bounds", "_fill", "shape")

    def __init__(
        self,
        shape: tuple[int, ...] | None,
        minimum: Bound | None = None,
        maximum: Bound | None = None,
        missing: Literal["drop", "fill"] = "drop",
        fill: float = 0.0,
    ) -> None:
        """Raises OperatorError: bounds that do not fit the shape, or that no value can meet."""
        self.shape = shape
        self._bounds = Bounds(minimum, maximum)
        self._fill = fill if missing == "fill" else None
        if shape is not None and self._bounds.shape not in (None, shape):
            raise OperatorError(f"bounds of shape {self._bounds.shape}: give one number or {shape}")

    def __call__(self, sample: Sample) -> Sample:
        """The sample, with missing values filled.

        Raises WrongShape, MissingValue, OutOfRange.
        """
        x = sample.x
        if self.shape is not None and x.shape != self.shape:
            raise WrongShape(f"{sample.key}: {x.shape} values, expected {self.shape}")
        if not isfinite(sample.time) or (sample.y is not None and not isfinite(sample.y)):
            raise MissingValue(f"{sample.key}: time {sample.time} or label {sample.y} is no number")
        finite = np.isfinite(x)
        if not finite.all():
            if self._fill is None:
                raise MissingValue(f"{sample.key}: {int((~finite).sum())} values are missing")
            x = np.where(finite, x, np.float32(self._fill))
            sample = Sample(sample.key, sample.time, x, sample.y)
        if not self._bounds.hold(x):
            raise OutOfRange(f"{sample.key}: values from {x.min()} to {x.max()} are out of range")
        return sample
