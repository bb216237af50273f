"""What a device does for a round, by the kind of its task: one function for each kind.

Each gives a vector of `plan.dimension` coordinates, a mean over the rows it was made of, and how
many those were. Raises TrainingError or BadUpdate where this device cannot do it now, and Malformed
for a task that makes no sense.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np

from edgechoir import wire
from edgechoir.errors import BadUpdate, PolicyViolation, TrainingError
from edgechoir.learning.privacy.terms import EXTRAS, terms_of
from edgechoir.learning.rules.distil import DISTIL
from edgechoir.learning.rules.fednova import FEDNOVA
from edgechoir.learning.rules.scaffold import SCAFFOLD
from edgechoir.learning.rules.trees import GRADIENTS
from edgechoir.learning.task import MEASURE, TRAIN, Task, read_task
from edgechoir.tiers import statistics
from edgechoir.tiers.desk import Desk as Desk
from edgechoir.tiers.desk import Learner as Learner
from edgechoir.tiers.desk import Piece as Piece
from edgechoir.tiers.desk import Rows as Rows
from edgechoir.tiers.distil import distil
from edgechoir.tiers.ditto import own_model
from edgechoir.tiers.fednova import fednova
from edgechoir.tiers.fitting import Hopeless, bounded, fitted, measure, trainer_of
from edgechoir.tiers.scaffold import scaffold
from edgechoir.tiers.sketching import in_form
from edgechoir.tiers.trees import figures_of_trees, gradients

log: Final = logging.getLogger(__name__)


async def do(desk: Desk, plan: wire.Plan) -> Piece:
    """The piece that a plan asks for. Raises PolicyViolation for a kind that is not known."""
    task = read_task(plan.task)
    work = KINDS.get(task.kind)
    if work is None:
        raise PolicyViolation(f"the task {task.kind!r} is not known here")
    # Statistics are of the rows as they were stored, all other work of what the model sees.
    raw = task.kind in statistics.KINDS
    try:
        return await work(desk if raw else statistics.seen_by_the_model(desk), plan, task)
    except Hopeless as error:
        # The root must hear how bad it is, or it could never go back to a better model.
        d = plan.dimension if terms_of(task) is None else plan.dimension - EXTRAS
        return Piece(np.zeros(d, np.float32), 1, error.figures)


async def do_privately(desk: Desk, plan: wire.Plan) -> Piece:
    """The same for a round in which this device's vector gets noise: zeros where training fails,
    for that it does, and why, tells of the rows here without any."""
    try:
        return await do(desk, plan)
    except (TrainingError, BadUpdate) as error:
        if desk.trainer is None:
            raise
        log.warning("round %d: nothing but noise is sent: %s", plan.round, error)
        return Piece(np.zeros(max(plan.dimension - EXTRAS, 0), np.float32), 1)


async def train(desk: Desk, plan: wire.Plan, task: Task) -> Piece:
    """The global model as it does here, and what training makes of it."""
    update, figures = await fitted(desk, plan, task)
    own = await own_model(desk, plan, task)
    vector = await in_form(desk, plan, task, bounded(update.delta, task))
    return Piece(vector, update.n, figures, update.personal, own)


async def measure_only(desk: Desk, plan: wire.Plan, task: Task) -> Piece:
    """The global model as it does here, and nothing else."""
    if desk.bundle.manifest.trees is not None:
        figures = await asyncio.to_thread(figures_of_trees, desk)
    else:
        figures = await measure(desk, trainer_of(desk))
    if not figures.held_out:
        raise TrainingError("no samples are held out")
    return Piece(np.zeros(plan.dimension, np.float32), figures.held_out, figures)


KINDS: Final[dict[str, Callable[[Desk, wire.Plan, Task], Awaitable[Piece]]]] = {
    TRAIN: train,
    MEASURE: measure_only,
    SCAFFOLD: scaffold,
    FEDNOVA: fednova,
    DISTIL: distil,
    GRADIENTS: gradients,
    **dict.fromkeys(statistics.KINDS, statistics.statistics),
}
"""The kinds of task that a device knows."""
