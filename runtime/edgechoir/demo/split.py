"""scikit-learn's digits, shared out among devices with skewed labels.

For each class the rows are divided by proportions drawn from Dirichlet(alpha) (Hsu et al. 2019,
"Measuring the Effects of Non-Identical Data Distribution", section 3), so that most devices see
few of the classes.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgechoir.errors import OperatorError
from edgechoir.types import Floats

TEST_SHARE: Final = 5
"""One row in so many is kept for the test."""
MIN_ROWS: Final = 24
MAX_DRAWS: Final = 1000


@dataclass(frozen=True, slots=True)
class Rows:
    """x [n, 64] of 0..16 and y [n] of 0..9."""

    x: Floats
    y: npt.NDArray[np.int64]


def digits() -> Rows:
    """All 1,797 images. Raises OperatorError without scikit-learn."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise OperatorError("the demo needs scikit-learn: pip install 'edgechoir[demo]'") from None
    x, y = load_digits(return_X_y=True)
    return Rows(x.astype(np.float32), y.astype(np.int64))


def shared_out(rows: Rows, devices: int, seed: int, alpha: float = 0.5) -> tuple[list[Rows], Rows]:
    """(one part a device, test rows); the same for the same seed, each device has MIN_ROWS.

    Raises OperatorError where the rows are too few for that, or no draw in MAX_DRAWS gives it.
    """
    chance = np.random.default_rng(seed)
    order = chance.permutation(len(rows.y))
    test, train = order[::TEST_SHARE], np.delete(order, np.s_[::TEST_SHARE])
    for _ in range(MAX_DRAWS):
        parts: list[list[int]] = [[] for _ in range(devices)]
        for label in np.unique(rows.y):
            of_label = train[rows.y[train] == label]
            shares = chance.dirichlet(np.full(devices, alpha))
            cuts = (np.cumsum(shares)[:-1] * len(of_label)).astype(int)
            for part, piece in zip(parts, np.split(of_label, cuts), strict=True):
                part.extend(piece.tolist())
        if min(map(len, parts)) >= MIN_ROWS:
            break
    else:
        raise OperatorError(
            f"{len(train)} rows cannot be shared out so that each of {devices} devices has "
            f"{MIN_ROWS}; use fewer devices"
        )
    chosen = [chance.permutation(part) for part in parts]
    return [Rows(rows.x[i], rows.y[i]) for i in chosen], Rows(rows.x[test], rows.y[test])
