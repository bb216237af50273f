"""Operators on one sample at a time.

Each gives a sample, None to hold it back, a list of samples, or a sample with the name of the
output that it takes. One may have a method `block` besides, which does the same to many samples at
once; it must change nothing before it raises, because each of them is then taken alone. An operator
may raise BadSample, or anything else if it runs the user's code; the stage that runs it counts the
sample as a dead letter and the stream goes on.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from edgechoir.errors import BadSample, MissingValue, OperatorError, WrongShape
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.keyed import Keyed
from edgechoir.pipeline.sample import Bound, Bounds, Sample, as_values
from edgechoir.types import Floats


class Routed(NamedTuple):
    """A sample, and the output of its operator that it leaves by."""

    output: str
    sample: Sample


Given = Sample | Routed | Block | list[Sample | Routed] | None
Operator = Callable[[Sample], Given]


class Map:
    """The user's `function` on the values; what it gives is the new values.

    With `rows` the function takes many samples [n, ...] at once and gives as many [n, ...].
    """

    def __init__(self, function: Callable[[Floats], object], *, rows: bool = False) -> None:
        self._function, self._rows = function, rows

    def __call__(self, sample: Sample) -> Sample:
        if self._rows:
            return _changed(sample, as_values(self._function(sample.x[None]))[0])
        return _changed(sample, as_values(self._function(sample.x)))

    def block(self, block: Block) -> Given:
        if self._rows:
            return block.with_values(as_values(self._function(block.x)))
        return block.with_values(as_values([self._function(x) for x in block.x]))


class Filter:
    """Holds back samples for which the user's `keep` gives something false."""

    def __init__(self, keep: Callable[[Sample], object]) -> None:
        self._keep = keep

    def __call__(self, sample: Sample) -> Sample | None:
        return sample if self._keep(sample) else None


class FlatMap:
    """The user's `function` on a sample gives none, one or many: values, or samples."""

    def __init__(self, function: Callable[[Sample], Iterable[object]], most: int = 10_000) -> None:
        """`most` bounds what may come of one sample."""
        self._function, self._most = function, most

    def __call__(self, sample: Sample) -> Given:
        """Raises BadSample: it gives more than `most`."""
        given: list[Sample | Routed] = []
        for item in self._function(sample):
            if len(given) == self._most:
                raise BadSample(f"more than {self._most} came of one sample")
            made = item if isinstance(item, Sample) else _changed(sample, as_values(item))
            given.append(made)
        return given


class Split:
    """Sends each sample to one of `outputs`, by the name that `choose` gives for it."""

    def __init__(self, choose: Callable[[Sample], object], outputs: Sequence[str]) -> None:
        """Raises OperatorError: fewer than two outputs, or one named twice."""
        if len(outputs) < 2 or len(set(outputs)) != len(outputs):
            raise OperatorError(f"outputs are {list(outputs)}: give two or more names")
        self._choose, self.outputs = choose, tuple(outputs)

    def __call__(self, sample: Sample) -> Routed:
        """Raises BadSample: the name is no output."""
        output = self._choose(sample)
        if output not in self.outputs:
            raise BadSample(f"{output!r} is no output: use one of {', '.join(self.outputs)}")
        return Routed(str(output), sample)


def union(sample: Sample) -> Sample:
    """Everything that comes, from whichever input."""
    return sample


class Select:
    """The values at `indices` of the first axis, in that order."""

    def __init__(self, indices: Sequence[int]) -> None:
        self._at = np.asarray(indices, dtype=np.intp)

    def __call__(self, sample: Sample) -> Sample:
        """Raises WrongShape: the sample has no such values."""
        n, at = len(sample.x) if sample.x.ndim else 0, self._at
        if not -n <= at.min() <= at.max() < n:
            raise WrongShape(f"{sample.key}: no values {at.tolist()} in {sample.x.shape}")
        return _changed(sample, sample.x[at])

    def block(self, block: Block) -> Block:
        return block.with_values(block.x[:, self._at])


class Scale:
    """(x - offset) * factor, each one number or one for each value."""

    def __init__(self, offset: Bound, factor: Bound) -> None:
        """Raises OperatorError: they are not of one shape."""
        self._b, self._k = as_values(offset), as_values(factor)
        if self._b.ndim and self._k.ndim and self._b.shape != self._k.shape:
            raise OperatorError(f"offset has shape {self._b.shape}, factor {self._k.shape}")
        self._shape = self._b.shape or self._k.shape or None
        self._shifts = bool((self._b != 0).any())
        # NumPy takes a plain number in half the time of an array of none; float32 stays float32.
        self._by: tuple[Floats | float, Floats | float] = (_plain(self._b), _plain(self._k))

    def __call__(self, sample: Sample) -> Sample:
        if self._shape is not None:
            _fit(sample, self._shape)
        return _changed(sample, self._scaled(sample.x))

    def block(self, block: Block) -> Block:
        _fit(block, self._shape)
        return block.with_values(self._scaled(block.x))

    def _scaled(self, x: Floats) -> Floats:
        b, k = self._by
        scaled: Floats = (x - b) * k if self._shifts else x * k
        return scaled


class Range:
    """Holds back samples with a value outside [minimum, maximum].

    For values that are of no interest; values that cannot be right belong in the source's Check.
    """

    def __init__(self, minimum: Bound | None, maximum: Bound | None) -> None:
        """Raises OperatorError: the bounds are not of one shape, or no value can meet them."""
        self._bounds = Bounds(minimum, maximum)

    def __call__(self, sample: Sample) -> Sample | None:
        if self._bounds.shape is not None:
            _fit(sample, self._bounds.shape)
        return sample if self._bounds.hold(sample.x) else None

    def block(self, block: Block) -> Block | None:
        _fit(block, self._bounds.shape)
        return block.where(self._bounds.rows_within(block.x))


class Valve:
    """Lets samples pass while it is open. What comes to `note` opens and shuts it."""

    def __init__(self, *, is_open: bool = True) -> None:
        self.is_open = is_open

    def __call__(self, sample: Sample) -> Sample | None:
        return sample if self.is_open else None

    def block(self, block: Block) -> Block | None:
        return block if self.is_open else None

    def note(self, sample: Sample) -> None:
        """Open for a first value above 0, shut for another. Raises MissingValue: there is none."""
        if not sample.x.size or np.isnan(sample.x.flat[0]):
            raise MissingValue(f"{sample.key}: no value that opens or shuts the valve")
        self.is_open = bool(sample.x.flat[0] > 0)


def answer_values(sample: Sample) -> Sample:
    """The model's answer in place of the values: what follows works on answers.

    Raises MissingValue: the sample has not passed a model.
    """
    if sample.answer is None:
        raise MissingValue(f"{sample.key}: no answer yet, put this behind the model")
    return _changed(sample, sample.answer.values)


def _changed(sample: Sample, x: Floats) -> Sample:
    return Sample(sample.key, sample.time, x, sample.y, sample.answer)


def _plain(values: Floats) -> Floats | float:
    return values if values.ndim else float(values)


def _fit(given: Sample | Block, shape: tuple[int, ...] | None) -> None:
    """NumPy would stretch values of another shape without a word."""
    seen = given.x.shape[1:] if isinstance(given, Block) else given.x.shape
    if shape is not None and seen != shape:
        raise WrongShape(f"{given.key}: {seen} values, the operator is for {shape}")


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


class JoinLatest:
    """Puts the latest values of another input behind those of each sample: [f] and [g] -> [f + g].

    The other input's samples come to `note`. With `by_key` a sample meets the latest one of its own
    key, else the latest of any. Until there is one, and when it is older than `max_age` seconds of
    event time, the sample is held back.
    """

    def __init__(self, max_age: float | None = None, *, by_key: bool = False) -> None:
        """Raises OperatorError: a `max_age` that is not above 0."""
        if max_age is not None and not max_age > 0:
            raise OperatorError(f"max_age is {max_age} seconds: use a number above 0")
        self._max_age = float("inf") if max_age is None else max_age
        self._by_key = by_key
        self._last: Keyed[_Last] = Keyed(_Last)

    def note(self, sample: Sample) -> None:
        last = self._last[sample.key if self._by_key else ""]
        last.x, last.time = sample.x.reshape(-1), sample.time

    def __call__(self, sample: Sample) -> Sample | None:
        last = self._last[sample.key if self._by_key else ""]
        if last.x is None or sample.time - last.time > self._max_age:
            return None
        return _changed(sample, np.concatenate([sample.x.reshape(-1), last.x]))
