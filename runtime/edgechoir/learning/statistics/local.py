"""A device's part of each statistic: what its rows come to, in [-1, 1] for every coordinate."""

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import numpy as np

from edgechoir.errors import Malformed
from edgechoir.learning.statistics import bins, evaluation, linear
from edgechoir.learning.statistics.inquiry import SOURCES, SUBJECTS
from edgechoir.learning.statistics.moments import moments_of
from edgechoir.learning.statistics.packed import unpack
from edgechoir.learning.task import Task
from edgechoir.types import Reals

MAX_BINS: Final = 4096


class Rows(Protocol):
    """What a device has: rows by source. Labels and answers are [n] classes or [n, k] values."""

    @property
    def outputs(self) -> int:
        """Columns of the model's output."""

    @property
    def classifies(self) -> bool:
        """Whether they are classes."""

    def inputs(self, source: str) -> Reals:
        """x [n, ...], raw."""

    def labels(self, source: str) -> Reals:
        """y; raises BadUpdate where the source has none."""

    def answers(self, source: str) -> tuple[Reals, Reals]:
        """The model's answers, and how sure it is of each [n] (ones for values)."""

    def logits(self, source: str) -> Reals:
        """The model's outputs [n, k]."""


def statistic(task: Task, rows: Rows) -> tuple[Reals, int]:
    """(mean [d], rows) of a device for a task of `PARTS`. Raises Malformed, BadUpdate."""
    source = task.get("source", "stored")
    if source not in SOURCES:
        raise Malformed(f"the task {task.kind!r} asks for rows {source!r}, known are {SOURCES}")
    part, n = PARTS[task.kind](task, rows, source)
    return part.astype(np.float32).ravel(), n


def _table(task: Task, rows: Rows, source: str) -> tuple[Reals, int]:
    """The values asked about, [m, f], and of how many rows they are."""
    of = task.get("of", "x")
    if of == "x":
        x = rows.inputs(source)
        return _columns(task, x.reshape(-1, x.shape[-1])), len(x)
    if of not in SUBJECTS:
        raise Malformed(f"the task {task.kind!r} asks for {of!r}, known are {SUBJECTS}")
    if of == "y":
        values: Reals = rows.labels(source)
    else:
        answers, sure = rows.answers(source)
        values = answers if of == "answer" else sure
    return values.astype(np.float32).reshape(len(values), -1), len(values)


def _columns(task: Task, x: Reals) -> Reals:
    chosen: Sequence[int] = task.get("columns", [])
    if not all(type(j) is int and 0 <= j < x.shape[1] for j in chosen):
        raise Malformed(f"the task {task.kind!r} asks for columns {chosen!r:.100}, of {x.shape[1]}")
    return x[:, list(chosen)] if chosen else x


def _spread(task: Task, rows: Rows, source: str) -> tuple[Reals, int]:
    values, n = _table(task, rows, source)
    return bins.spread_of(values), n


def _moments(task: Task, rows: Rows, source: str) -> tuple[Reals, int]:
    values, n = _table(task, rows, source)
    f = values.shape[1]
    return moments_of(values, unpack(task, "center", f), _positive(task, "half", f)), n


def _histogram(task: Task, rows: Rows, source: str) -> tuple[Reals, int]:
    values, n = _table(task, rows, source)
    count = task.get("bins", 0)
    if not 2 <= count <= MAX_BINS:
        raise Malformed(f"the task {task.kind!r} has {count} bins, expected 2 to {MAX_BINS}")
    edges = unpack(task, "edges", values.shape[1], count - 1)
    if (np.diff(edges, axis=1) < 0).any():
        raise Malformed(f"the task {task.kind!r} has edges that do not ascend")
    return bins.histogram_of(values, edges), n


def _evaluate(task: Task, rows: Rows, source: str) -> tuple[Reals, int]:
    y, said = rows.labels(source), rows.logits(source)
    if rows.classifies:
        return evaluation.classified(y, said), len(y)
    center, half = unpack(task, "center", rows.outputs), _positive(task, "half", rows.outputs)
    return evaluation.regressed(y, said, center, half), len(y)


def _gram(task: Task, rows: Rows, source: str) -> tuple[Reals, int]:
    values, n = _table(task, rows, source)
    y = rows.labels(source)
    if len(values) != n:
        raise Malformed("a linear model is of samples with one axis")
    f, k = values.shape[1], rows.outputs
    z = (values.astype(np.float64) - unpack(task, "center", f)) / _positive(task, "half", f)
    z = np.clip(np.nan_to_num(z), -1, 1)
    if rows.classifies:
        b = (y[:, None] == np.arange(k)).astype(np.float64)
    else:
        b = np.clip((y - unpack(task, "at", k)) / _positive(task, "size", k), -1, 1)
    return linear.gram_of(z, b), n


def _positive(task: Task, name: str, size: int) -> Reals:
    values = unpack(task, name, size).astype(np.float64)
    if not (values > 0).all():
        raise Malformed(f"the task {task.kind!r} has {name} that is not above zero")
    return values


PARTS: Final[dict[str, Callable[[Task, Rows, str], tuple[Reals, int]]]] = {
    "spread": _spread,
    "moments": _moments,
    "histogram": _histogram,
    "bins": _histogram,
    "evaluate": _evaluate,
    "gram": _gram,
}
"""The kinds of statistics; `bins` is a histogram for the trees' use."""
