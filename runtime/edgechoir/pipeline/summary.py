"""What a window of rows [n, f] is reduced to: one number for each column, or one in all."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from edgechoir.errors import OperatorError
from edgechoir.types import Floats


def slope(rows: Floats) -> Floats:
    """Least-squares slope of each column per row; 0 for a single row."""
    n = len(rows)
    if n < 2:
        return np.zeros(rows.shape[1], dtype=np.float32)
    t = np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2)
    return np.asarray(t @ rows / (t @ t), dtype=np.float32)


SUMMARIES: Final[dict[str, Callable[[Floats], Floats]]] = {
    "mean": lambda rows: rows.mean(axis=0),
    "std": lambda rows: rows.std(axis=0),
    "min": lambda rows: rows.min(axis=0),
    "max": lambda rows: rows.max(axis=0),
    "last": lambda rows: rows[-1],
    "slope": slope,
    "count": lambda rows: np.array([len(rows)], dtype=np.float32),
}


def summarise(names: Sequence[str]) -> Callable[[Floats], Floats]:
    """Rows [n, ...] -> [k * f]: the k summaries named, one after the other.

    Each gives f values, `count` gives one.

    Raises OperatorError: a name is unknown.
    """
    for name in names:
        if name not in SUMMARIES:
            raise OperatorError(f"unknown summary {name!r}: use {', '.join(SUMMARIES)}")
    chosen = [SUMMARIES[name] for name in names]

    def reduce(rows: Floats) -> Floats:
        flat = rows.reshape(len(rows), -1)
        return np.concatenate([summary(flat) for summary in chosen])

    return reduce
