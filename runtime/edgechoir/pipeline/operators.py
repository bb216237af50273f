"""Operators on one sample at a time: each gives a sample, or None to hold it back.

An operator may raise BadSample, or anything else if it runs the user's code; the stage that runs it
counts the sample as a dead letter and the stream goes on.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from edgechoir.errors import OperatorError, WrongShape
from edgechoir.pipeline.keyed import Keyed
from edgechoir.pipeline.sample import Bound, Bounds, Sample, as_values
from edgechoir.types import Floats

Operator = Callable[[Sample], Sample | None]


def mapped(function: Callable[[Floats], object]) -> Operator:
    """The user's `function` on the values; what it gives is the new values."""

    def run(sample: Sample) -> Sample:
        return Sample(sample.key, sample.time, as_values(function(sample.x)), sample.y)

    return run


def filtered(keep: Callable[[Sample], object]) -> Operator:
    """Holds back samples for which the user's `keep` gives something false."""

    def run(sample: Sample) -> Sample | None:
        return sample if keep(sample) else None

    return run


def selected(indices: Sequence[int]) -> Operator:
    """The values at `indices` of the first axis, in that order."""
    at = np.asarray(indices, dtype=np.intp)

    def run(sample: Sample) -> Sample:
        if not sample.x.ndim or not -len(sample.x) <= at.min() <= at.max() < len(sample.x):
            raise WrongShape(f"{sample.key}: no values {list(indices)} in {sample.x.shape}")
        return Sample(sample.key, sample.time, sample.x[at], sample.y)

    return run


def scaled(offset: Bound, factor: Bound) -> Operator:
    """(x - offset) * factor, each one number or one for each value.

    Raises OperatorError: they are not of one shape.
    """
    b, k = as_values(offset), as_values(factor)
    if b.ndim and k.ndim and b.shape != k.shape:
        raise OperatorError(f"offset has shape {b.shape}, factor {k.shape}")
    shape = b.shape or k.shape or None

    def run(sample: Sample) -> Sample:
        _fit(sample, shape)
        return Sample(sample.key, sample.time, (sample.x - b) * k, sample.y)

    return run


def within(minimum: Bound | None, maximum: Bound | None) -> Operator:
    """Holds back samples with a value outside [minimum, maximum].

    For values that are of no interest; values that cannot be right belong in the source's Check.
    Raises OperatorError: the bounds are not of one shape, or no value can meet them.
    """
    bounds = Bounds(minimum, maximum)

    def run(sample: Sample) -> Sample | None:
        _fit(sample, bounds.shape)
        return sample if bounds.hold(sample.x) else None

    return run


def _fit(sample: Sample, shape: tuple[int, ...] | None) -> None:
    """NumPy would stretch values of another shape without a word."""
    if shape is not None and sample.x.shape != shape:
        raise WrongShape(f"{sample.key}: {sample.x.shape} values, the operator is for {shape}")


@dataclass(slots=True)
class _Last:
    x: Floats | None = None
    time: float = float("-inf")


class Deadband:
    """Holds back samples as long as no value is more than `width` away from the last one given.

    `width` is one number or one for each value. With `silence`, a key is heard again after so many
    seconds even if nothing changed, so that "steady" can be told from "gone".
    """

    def __init__(self, width: Bound, silence: float | None = None) -> None:
        """Raises OperatorError: a negative width, or a silence that is not above 0."""
        self._width = as_values(width)
        if not (self._width >= 0).all() or (silence is not None and not silence > 0):
            raise OperatorError(f"width is {width}, silence {silence}: use 0 or more, and above 0")
        self._silence = float("inf") if silence is None else silence
        self._last: Keyed[_Last] = Keyed(_Last)

    def __call__(self, sample: Sample) -> Sample | None:
        _fit(sample, self._width.shape or None)
        last, x = self._last[sample.key], sample.x
        if last.x is not None and last.x.shape == x.shape:
            quiet = 0 <= sample.time - last.time < self._silence
            if quiet and (abs(x - last.x) <= self._width).all():
                return None
        last.x, last.time = x, sample.time
        return sample


class Deadtime:
    """After each sample given, holds back those of the same key for `seconds`."""

    def __init__(self, seconds: float) -> None:
        """Raises OperatorError: `seconds` is not above 0."""
        if not seconds > 0:
            raise OperatorError(f"seconds is {seconds}: use a number above 0")
        self._seconds = seconds
        self._last: Keyed[_Last] = Keyed(_Last)

    def __call__(self, sample: Sample) -> Sample | None:
        last = self._last[sample.key]
        # A time before the last one means that the clock was set back: the wait is over.
        if 0 <= sample.time - last.time < self._seconds:
            return None
        last.time = sample.time
        return sample
