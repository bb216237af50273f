"""How far a model is from the labels of samples that it was not trained on here."""

import numpy as np
import numpy.typing as npt

from edgechoir.inference.candidate import Candidate
from edgechoir.inference.prediction import Output
from edgechoir.types import Floats

_ROWS = 64


def error_of(model: Candidate, x: Floats, y: npt.NDArray[np.generic], output: Output) -> float:
    """Of raw samples x [n, *shape], n > 0: the share of wrong classes y [n], or, of values
    y [n, k], the root of the mean square error in units of y's own deviation.

    Both are 0 for a perfect model; 1 is always wrong, and as good as the mean. Infinite for answers
    that are not finite. Raises InferenceError.
    """
    batches = [x[at : at + _ROWS] for at in range(0, len(x), _ROWS)]
    rows = np.concatenate([model.session.run(model.prepare(batch)) for batch in batches])
    if not np.isfinite(rows).all():
        return float("inf")
    if output is Output.VALUES:
        given = y.astype(np.float64).reshape(len(y), -1)
        deviation = given.std(0)
        deviation[deviation == 0] = 1.0
        return float(np.sqrt((((rows - given) / deviation) ** 2).mean()))
    if rows.shape[1] == 1:
        classes = (rows[:, 0] > (0.0 if output is Output.LOGITS else 0.5)).astype(np.int64)
    else:
        classes = rows.argmax(1)
    return float((classes != y).mean())
