"""What a source declares about its samples, and what becomes of those that break it.

A sensor that is silent, stuck at its rail or read while it starts is an everyday event: for each
kind of wrong value the declaration says what to do, and nothing of it stops the stream.
"""

from math import isfinite
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgechoir.errors import MissingValue, OperatorError, OutOfRange, WrongShape
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.keyed import Keyed
from edgechoir.pipeline.sample import Bound, Bounds, Sample
from edgechoir.types import Floats

Missing = Literal["drop", "fill", "last", "keep"]
Outside = Literal["drop", "clip", "missing"]


class Check:
    """Lets a sample through only as declared.

    It has `shape` (None: any). A value that is absent (NaN) or infinite is `missing`: "drop"
    refuses the sample, "fill" puts `fill` in its place, "last" the key's last good value there,
    "keep" leaves it to the model as NaN. A value `outside` [`minimum`, `maximum`] (one number, or
    one for each value): "drop" refuses the sample, "clip" moves the value to the bound, "missing"
    treats it as absent.
    """

    __slots__ = ("_bounds", "_fill", "_last", "_missing", "_outside", "shape")

    def __init__(
        self,
        shape: tuple[int, ...] | None,
        minimum: Bound | None = None,
        maximum: Bound | None = None,
        missing: Missing = "drop",
        fill: float = 0.0,
        outside: Outside = "drop",
    ) -> None:
        """Raises OperatorError: bounds that do not fit the shape, or that no value can meet."""
        self.shape = shape
        self._bounds = Bounds(minimum, maximum)
        self._missing, self._fill, self._outside = missing, np.float32(fill), outside
        self._last: Keyed[list[Floats]] = Keyed(list)
        if shape is not None and self._bounds.shape not in (None, shape):
            raise OperatorError(f"bounds of shape {self._bounds.shape}: give one number or {shape}")

    def __call__(self, sample: Sample) -> Sample:
        """The sample, with missing values filled and outlying ones clipped, as declared.

        Raises WrongShape, MissingValue, OutOfRange.
        """
        x = sample.x
        if self.shape is not None and x.shape != self.shape:
            raise WrongShape(f"{sample.key}: {x.shape} values, expected {self.shape}")
        if not isfinite(sample.time) or (sample.y is not None and not isfinite(sample.y)):
            raise MissingValue(f"{sample.key}: time {sample.time} or label {sample.y} is no number")
        absent = ~np.isfinite(x)
        if self._outside == "missing":
            absent |= self._bounds.outside(x)
        if absent.any():
            x = self._filled(sample.key, x, absent)
        if not self._hold(x):
            if self._outside == "drop":
                raise OutOfRange(f"{sample.key}: {np.nanmin(x)} to {np.nanmax(x)} is out of range")
            x = self._bounds.clip(x)
        if self._missing == "last":
            self._last[sample.key][:] = (x,)
        return sample if x is sample.x else sample._replace(x=x)

    def _hold(self, x: Floats) -> bool:
        """Whether all that is there lies within."""
        if self._missing != "keep":
            return self._bounds.hold(x)
        return not (self._bounds.outside(x) & ~np.isnan(x)).any()

    def block(self, block: Block) -> Block:
        """Many at once, if all are as declared. Raises BadSample: they must be taken one by one."""
        x, shape = block.x, block.x.shape[1:]
        if self._missing == "last" or self.shape not in (None, shape):
            raise WrongShape(f"{block.key}: {shape} values, expected {self.shape}")
        finite = np.isfinite(block.time).all() and (block.y is None or np.isfinite(block.y).all())
        if not (finite and np.isfinite(x).all()):
            raise MissingValue(f"{block.key}: a time, label or value is no number")
        if self._bounds.shape not in (None, shape) or not self._bounds.hold(x):
            raise OutOfRange(f"{block.key}: a value is out of range")
        return block

    def _filled(self, key: str, x: Floats, absent: npt.NDArray[np.bool_]) -> Floats:
        if self._missing == "fill":
            return np.where(absent, self._fill, x)
        if self._missing == "keep" and not absent.all():
            return np.where(absent, np.float32(np.nan), x)
        last = self._last[key]
        if self._missing == "last" and last and last[0].shape == x.shape:
            return np.where(absent, last[0], x)
        raise MissingValue(f"{key}: {int(absent.sum())} of {x.size} values are missing")
