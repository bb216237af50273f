"""From a device's piece to the integers that it masks: rounding and, in a private round, noise."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from edgechoir import wire
from edgechoir.errors import PolicyViolation
from edgechoir.learning.privacy.terms import Terms, protect, terms_of
from edgechoir.learning.task import read_task
from edgechoir.rounds.epoch import encoding_of
from edgechoir.secagg.pads import uniform
from edgechoir.tiers.work import Piece
from edgechoir.types import Entropy, Ring


def private_terms(plan: wire.Plan) -> Terms | None:
    """The terms of a private round, None for another. Raises RemoteError."""
    return terms_of(read_task(plan.task))


def cost_of(plan: wire.Plan, terms: Terms, honest: int) -> float:
    """rho of taking part. Raises RemoteError, also where nobody is left to be honest."""
    if honest < 1:
        raise PolicyViolation("a private round in which all others may collude")
    return terms.cost(encoding_of(plan), honest)


def contribution(plan: wire.Plan, piece: Piece, honest: int, entropy: Entropy) -> Ring:
    """The vector of one device, in clear. `honest` survivors at least will have added noise.

    Raises BadUpdate for a piece that does not fit the plan.
    """
    encoding, terms = encoding_of(plan), private_terms(plan)
    rounding = uniform(entropy(32), plan.dimension)
    if terms is None:
        return encoding.encode(piece.vector, piece.n, piece.figures, rounding)
    held, right = piece.figures.held_out, piece.figures.correct
    accuracy = right / held if held else 0.5
    draw = _uniform64(entropy)
    return protect(piece.vector, accuracy, terms, encoding, honest, rounding, draw)


def _uniform64(entropy: Entropy) -> Callable[[int], npt.NDArray[np.uint64]]:
    """64-bit numbers from a keystream with a fresh key for each call."""

    def draw(n: int) -> npt.NDArray[np.uint64]:
        return uniform(entropy(32), 2 * n).view(np.uint64)

    return draw
