"""One reading of a sensor on its way through the pipeline."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edgechoir.errors import OperatorError
from edgechoir.inference.prediction import Prediction
from edgechoir.types import Floats

Label = int | float
Bound = float | Sequence[float]
MAX_KEY: Final = 64
FEW: Final = 32


class Sample(NamedTuple):
    """Values x of any shape, read at `time` (unix seconds) from the sensor called `key`.

    `y` is what the model should answer, where it is known; `answer` is what it did answer, once
    the sample has passed it. (A named tuple is made in a third of a frozen dataclass's time, and
    every step makes one.)
    """

    key: str
    time: float
    x: Floats
    y: Label | None = None
    answer: Prediction | None = None


class Bounds:
    """Numbers that hold for a whole sample, or one for each of its values.

    `shape` is the shape a sample must have, or None where any will do.
    """

    __slots__ = ("_high", "_low", "_range", "shape")

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
        self._range = None if self.shape else (float(lows), float(highs))

    def hold(self, x: Floats) -> bool:
        """Whether all of x lies within; a NaN does not, where there is a bound."""
        if self._low is None and self._high is None:
            return True
        if self._range is not None and x.size <= FEW:
            # For a few values a loop takes a quarter of NumPy's time, and half of a generator's.
            low, high = self._range
            for value in x.ravel().tolist():  # noqa: SIM110
                if not low <= value <= high:
                    return False
            return True
        return bool(
            (self._low is None or (x >= self._low).all())
            and (self._high is None or (x <= self._high).all())
        )

    def rows_within(self, x: Floats) -> npt.NDArray[np.bool_]:
        """For each row of x [n, ...], whether it lies within."""
        within = self._within(x).reshape(len(x), -1)
        rows: npt.NDArray[np.bool_] = np.logical_and.reduce(within, axis=1)
        return rows

    def outside(self, x: Floats) -> npt.NDArray[np.bool_]:
        """For each value, whether it lies outside."""
        return ~self._within(x)

    def _within(self, x: Floats) -> npt.NDArray[np.bool_]:
        within: npt.NDArray[np.bool_] = np.full(x.shape, True)
        if self._low is not None:
            within = within & (x >= self._low)
        if self._high is not None:
            within = within & (x <= self._high)
        return within

    def clip(self, x: Floats) -> Floats:
        """x with what lies outside moved to the bound."""
        if self._low is None and self._high is None:
            return x
        return np.clip(x, self._low, self._high)


def as_values(values: object) -> Floats:
    """Numbers, or nested lists of them, as float32; None becomes NaN, too large becomes inf.

    Raises ValueError or TypeError: not numbers, or a ragged list.
    """
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype=np.float32)
