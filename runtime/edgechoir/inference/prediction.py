"""What a model's output row means: class scores, class probabilities, or plain values."""

from dataclasses import dataclass
from enum import Enum
from math import exp, isfinite

import numpy as np

from edgechoir.errors import InferenceError
from edgechoir.types import Floats


class Output(Enum):
    """How to read the model's first output. The value is the word used in a manifest."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"
    VALUES = "values"


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one sample.

    `values` is the output row as the model gave it; `label` is the most likely class and
    `confidence` its probability in [0, 1] (both None for a model that gives plain values);
    `version` is the model that answered; `seconds` is the time from request to answer.
    """

    values: Floats
    label: int | None
    confidence: float | None
    version: int
    seconds: float


def read_row(row: list[float], output: Output) -> tuple[int | None, float | None]:
    """Label and confidence of one output row.

    A single logit or probability is that of class 1 against class 0.
    Raises InferenceError: a value is not finite.
    """
    # A list and math.exp: for the tens of classes of a device's model this takes a fifth of the
    # time of the same formula on a small array.
    if not isfinite(sum(row)):
        raise InferenceError(f"the model's answer is not finite: {row[:8]}")
    if output is Output.VALUES:
        return None, None
    if len(row) == 1:
        p = _sigmoid(row[0]) if output is Output.LOGITS else row[0]
        return (1, p) if p > 0.5 else (0, 1.0 - p)
    top = max(row)
    label = row.index(top)
    if output is Output.PROBABILITIES:
        return label, top
    return label, 1.0 / sum([exp(z - top) for z in row])


def read_rows(
    rows: Floats, output: Output
) -> tuple[list[int] | list[None], list[float] | list[None]]:
    """`read_row` of each of rows [n, k], at a fraction of its cost for many of them."""
    if not np.isfinite(rows).all():
        row = rows[int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])]
        raise InferenceError(f"the model's answer is not finite: {row.tolist()[:8]}")
    if output is Output.VALUES:
        return [None] * len(rows), [None] * len(rows)
    if rows.shape[1] == 1 or not len(rows):
        read = [read_row(row, output) for row in rows.tolist()]
        return [label or 0 for label, _ in read], [p or 0.0 for _, p in read]
    labels = rows.argmax(axis=1)
    top = rows.max(axis=1, keepdims=True)
    if output is Output.PROBABILITIES:
        return labels.tolist(), top[:, 0].tolist()
    z = rows.astype(np.float64) - top
    return labels.tolist(), (1.0 / np.exp(z).sum(axis=1)).tolist()


def _sigmoid(z: float) -> float:
    return 1.0 / (1.0 + exp(-z)) if z >= 0 else exp(z) / (1.0 + exp(z))
