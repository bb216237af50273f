"""A recording read from a file: NPZ, CSV, or Parquet where pyarrow is installed."""

import csv
import importlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from edgechoir.errors import OperatorError
from edgechoir.pipeline.sample import MAX_KEY, Label, as_values
from edgechoir.types import Floats

MAX_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Recording:
    """Values x [n, ...], and for each of the n its label, unix time and key, where asked for."""

    x: Floats
    y: list[Label] | None = None
    time: npt.NDArray[np.float64] | None = None
    keys: list[str] | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Which arrays (NPZ) or columns (CSV, Parquet) hold what. A null or empty x is missing."""

    x: str | Sequence[str] = "x"
    y: str | None = None
    time: str | None = None
    key: str | None = None

    @property
    def values(self) -> list[str]:
        return [self.x] if isinstance(self.x, str) else list(self.x)

    @property
    def all(self) -> list[str]:
        """Each once, in order."""
        beside = (name for name in (self.y, self.time, self.key) if name)
        return list(dict.fromkeys((*self.values, *beside)))


def read_recording(path: Path, columns: Columns) -> Recording:
    """Times are unix seconds, or ISO 8601 text (without a zone: UTC).

    Raises OperatorError: no such file, too large, another format, or a missing array or column.
    """
    try:
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise OperatorError(f"{path} has {size} bytes, expected at most {MAX_BYTES}: split it")
        reader = {".npz": _npz, ".parquet": _parquet}.get(path.suffix, _csv)
        recording = reader(path, columns)
    except (OSError, ValueError, zipfile.BadZipFile, csv.Error) as error:
        raise OperatorError(f"{path} cannot be replayed: {error}") from error
    if not len(recording.x):
        raise OperatorError(f"{path} holds no samples")
    if recording.time is not None and not np.isfinite(recording.time).all():
        raise OperatorError(f"{path}: a time in {columns.time!r} is missing")
    return recording


def _npz(path: Path, columns: Columns) -> Recording:
    if not isinstance(columns.x, str):
        raise OperatorError(f"{path}: an NPZ file has one array of values, got {columns.values}")
    # No pickles: an array of objects could run code while it is read.
    with np.load(path, allow_pickle=False) as arrays:
        for name in columns.all:
            if name not in arrays:
                raise OperatorError(f"{path} has no array {name!r}, only {list(arrays)}")
        xs = as_values(arrays[columns.x])
        labels, times, keys = (
            None if name is None else arrays[name]
            for name in (columns.y, columns.time, columns.key)
        )
    beside = ((columns.y, labels), (columns.time, times), (columns.key, keys))
    for what, array in beside:
        if xs.ndim < 1 or (array is not None and array.shape != xs.shape[:1]):
            raise OperatorError(
                f"{path}: {columns.x!r} is {xs.shape}, {what!r} is not one for each of its rows; "
                "expected [n, ...] with n labels"
            )
        if array is not None and what != columns.key and array.dtype.kind not in "biuf":
            raise OperatorError(f"{path}: {what!r} is {array.dtype}, expected numbers")
    return Recording(
        xs,
        None if labels is None else [_label(value) for value in labels.tolist()],
        None if times is None else times.astype(np.float64),
        None if keys is None else [str(key)[:MAX_KEY] for key in keys.tolist()],
    )


def _csv(path: Path, columns: Columns) -> Recording:
    rows: list[list[float]] = []
    labels: list[Label] = []
    times: list[float] = []
    keys: list[str] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        _check_columns(path, columns, reader.fieldnames or ())
        for row in reader:
            try:
                rows.append([float(row[name] or "nan") for name in columns.values])
                if columns.y is not None:
                    labels.append(_label(float(row[columns.y])))
                if columns.time is not None:
                    times.append(_time(row[columns.time]))
                if columns.key is not None:
                    keys.append(str(row[columns.key])[:MAX_KEY])
            except (TypeError, ValueError) as error:
                raise OperatorError(f"{path}, line {reader.line_num}: {error}") from error
    return Recording(
        as_values(rows),
        labels if columns.y else None,
        np.array(times) if columns.time else None,
        keys if columns.key else None,
    )


def _parquet(path: Path, columns: Columns) -> Recording:
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise OperatorError(
            f"{path}: Parquet needs pyarrow ({error}): pip install 'edgechoir[parquet]', "
            "or save the recording as CSV or NPZ"
        ) from error
    _check_columns(path, columns, parquet.read_schema(path).names)
    table = parquet.read_table(path, columns=columns.all)
    found: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in columns.all}
    values = [found[name] for name in columns.values]
    # One column may hold lists: then each is a sample. Several hold one value each.
    rows = (
        values[0]
        if isinstance(columns.x, str) and _nested(values[0])
        else list(zip(*values, strict=True))
    )
    try:
        return Recording(
            as_values(rows),
            [_label(float(y)) for y in found[columns.y]] if columns.y else None,
            np.array([_time(t) for t in found[columns.time]]) if columns.time else None,
            [str(key)[:MAX_KEY] for key in found[columns.key]] if columns.key else None,
        )
    except TypeError as error:
        raise OperatorError(f"{path}: a value is missing or no number: {error}") from error


def _nested(values: list[Any]) -> bool:
    return bool(values) and isinstance(values[0], list)


def _check_columns(path: Path, columns: Columns, there: Sequence[str]) -> None:
    for name in columns.all:
        if name not in there:
            raise OperatorError(f"{path} has no column {name!r}, only {list(there)}")


def _time(value: Any) -> float:
    """Unix seconds of a number, a text with a number or a date, or a date."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value)


def _label(value: float) -> Label:
    """Class labels as int, so that they compare and print as classes."""
    return int(value) if float(value).is_integer() else value
