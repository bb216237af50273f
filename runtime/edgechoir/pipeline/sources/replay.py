"""Recorded samples from an NPZ or CSV file, given out again at a steady rate.

Ticks lie on a fixed grid of the monotonic clock, so delays do not add up. A consumer that is late
by up to `CATCH_UP` seconds gets the samples of the passed ticks at once; beyond that the grid moves
on, so that a stall is never followed by a flood. No sample is left out. Late ticks are counted.
"""

import asyncio
import csv
import zipfile
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edgechoir.errors import OperatorError
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Label, Sample, as_values
from edgechoir.types import Floats

CATCH_UP: Final = 0.25
MAX_BYTES: Final = 256 * 1024 * 1024


class Replay:
    """Samples of `path`, `rate` a second (None: as fast as they are taken), once or in a `loop`.

    NPZ: array `x` [n, ...] and, if `y` is given, array `y` [n]. CSV with a header line: `x` lists
    the columns in order, `y` names the label's; an empty field is a missing value. `seed` shuffles
    each pass anew.
    """

    def __init__(
        self,
        path: Path,
        rate: float | None,
        *,
        x: str | Sequence[str] = "x",
        y: str | None = None,
        loop: bool = False,
        seed: int | None = None,
        key: str = "replay",
        clock: Clock | None = None,
    ) -> None:
        """Raises OperatorError: a rate that is not above 0."""
        if rate is not None and not rate > 0:
            raise OperatorError(f"rate is {rate} samples a second: give a number above 0")
        self._path, self._rate, self._x, self._y = path, rate, x, y
        self._loop, self._seed, self._key = loop, seed, key
        self._clock = Clock() if clock is None else clock
        self._rows: tuple[Floats, list[Label] | None] | None = None
        self._late = 0

    @property
    def counts(self) -> Mapping[str, int]:
        return {"late": self._late} if self._late else {}

    async def __aenter__(self) -> "Replay":
        """Read the file. Raises OperatorError: it is not as declared."""
        self._rows = await asyncio.to_thread(read, self._path, self._x, self._y)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._rows = None

    async def __aiter__(self) -> AsyncIterator[Sample]:
        if self._rows is None:
            raise OperatorError("the replay is not open: use 'async with'")
        xs, ys = self._rows
        shuffle = None if self._seed is None else np.random.default_rng(self._seed)
        clock, period = self._clock, 0.0 if self._rate is None else 1 / self._rate
        due = clock.monotonic()
        while True:
            order = range(len(xs)) if shuffle is None else shuffle.permutation(len(xs)).tolist()
            for i in order:
                if period:
                    due = await self._tick(due, period)
                yield Sample(self._key, clock.now(), xs[i], None if ys is None else ys[i])
            if not self._loop:
                return

    async def _tick(self, due: float, period: float) -> float:
        """Wait for the tick at `due`; the next one's time."""
        behind = self._clock.monotonic() - due
        if behind < 0:
            await self._clock.sleep(-behind)
        elif behind > max(CATCH_UP, period):
            passed = int(behind / period)
            self._late += passed
            due += passed * period
        elif behind > period:
            self._late += 1
        return due + period


def read(path: Path, x: str | Sequence[str], y: str | None) -> tuple[Floats, list[Label] | None]:
    """Values [n, ...] and labels of a recording.

    Raises OperatorError: no such file, too large, another format, or a missing array or column.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise OperatorError(f"{path} has {size} bytes, expected at most {MAX_BYTES}: split it")
        xs, ys = _npz(path, x, y) if path.suffix == ".npz" else _csv(path, x, y)
    except (OSError, ValueError, zipfile.BadZipFile, csv.Error) as error:
        raise OperatorError(f"{path} cannot be replayed: {error}") from error
    if not len(xs):
        raise OperatorError(f"{path} holds no samples")
    return xs, ys


def _npz(path: Path, x: str | Sequence[str], y: str | None) -> tuple[Floats, list[Label] | None]:
    if not isinstance(x, str):
        raise OperatorError(f"{path}: an NPZ file has one array of values, got {list(x)}")
    # No pickles: an array of objects could run code while it is read.
    with np.load(path, allow_pickle=False) as arrays:
        for name in (x, y):
            if name is not None and name not in arrays:
                raise OperatorError(f"{path} has no array {name!r}, only {list(arrays)}")
        xs = as_values(arrays[x])
        labels = None if y is None else arrays[y]
    if xs.ndim < 1 or (labels is not None and labels.shape != xs.shape[:1]):
        raise OperatorError(f"{path}: {x!r} is {xs.shape}, expected [n, ...] with n labels")
    if labels is not None and labels.dtype.kind not in "biuf":
        raise OperatorError(f"{path}: labels are {labels.dtype}, expected numbers")
    return xs, None if labels is None else [_label(value) for value in labels.tolist()]


def _csv(path: Path, x: str | Sequence[str], y: str | None) -> tuple[Floats, list[Label] | None]:
    columns = [x] if isinstance(x, str) else list(x)
    rows: list[list[float]] = []
    labels: list[Label] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        for name in columns if y is None else [*columns, y]:
            if name not in (reader.fieldnames or ()):
                raise OperatorError(f"{path} has no column {name!r}, only {reader.fieldnames}")
        for row in reader:
            try:
                rows.append([float(row[name] or "nan") for name in columns])
                if y is not None:
                    labels.append(_label(float(row[y])))
            except (TypeError, ValueError) as error:
                raise OperatorError(f"{path}, line {reader.line_num}: {error}") from error
    return as_values(rows), None if y is None else labels


def _label(value: float) -> Label:
    """Class labels as int, so that they compare and print as classes."""
    return int(value) if float(value).is_integer() else value
