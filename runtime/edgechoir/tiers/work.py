"""What a device does for a round, by the kind of its task: one function for each kind.

Each gives a vector of `plan.dimension` coordinates, a mean over the rows it was made of, and how
many those were. Raises TrainingError or BadUpdate where this device cannot do it now, and Malformed
for a task that makes no sense.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from edgechoir import wire
from edgechoir.errors import PolicyViolation, TrainingError
from edgechoir.learning.bound import cut_to
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.task import TRAIN, Task, read_task
from edgechoir.tiers import statistics
from edgechoir.tiers.desk import Desk as Desk
from edgechoir.tiers.desk import Learner as Learner
from edgechoir.tiers.desk import Piece as Piece
from edgechoir.tiers.desk import Rows as Rows
from edgechoir.types import FitPlan, Floats


async def do(desk: Desk, plan: wire.Plan) -> Piece:
    """The piece that a plan asks for. Raises PolicyViolation for a kind that is not known."""
    task = read_task(plan.task)
    work = KINDS.get(task.kind)
    if work is None:
        raise PolicyViolation(f"the task {task.kind!r} is not known here")
    # Statistics are of the rows as they were stored, all other work of what the model sees.
    raw = task.kind in statistics.KINDS
    return await work(desk if raw else statistics.seen_by_the_model(desk), plan, task)


async def train(desk: Desk, plan: wire.Plan, task: Task) -> Piece:
    """The global model as it does here, and what training makes of it."""
    trainer = desk.trainer
    if trainer is None:
        raise TrainingError("this device does not train")
    x, y = await asyncio.to_thread(desk.samples.training_arrays)
    if not len(x):
        raise TrainingError("no samples are stored")
    figures = await measure(desk, trainer)
    update = await trainer.fit(
        desk.held.weights, x, y, fit_plan(plan, task), deadline=plan.deadline
    )
    return Piece(bounded(update.delta, task), update.n, figures)


def fit_plan(plan: wire.Plan, task: Task) -> FitPlan:
    """How to train. Raises Malformed."""
    return FitPlan(
        plan.epochs,
        plan.batch_size,
        plan.learning_rate,
        plan.seed,
        task.get("momentum", 0.0),
        task.get("weight_decay", 0.0),
        task.get("max_gradient_norm", 0.0),
        task.get("proximal", 0.0),
    )


def bounded(delta: Floats, task: Task) -> Floats:
    """delta [d], scaled down to the L2 norm that the task allows. Raises Malformed, BadUpdate."""
    most = task.get("max_norm", 0.0)
    return cut_to(delta, most) if most > 0 else delta


async def measure(desk: Desk, trainer: Learner) -> Figures:
    """The global model on the rows held out here, before it is trained on."""
    x, y = await asyncio.to_thread(desk.samples.hold_out_arrays)
    if not len(x):
        return Figures()
    result = await trainer.evaluate(desk.held.weights, x, y)
    n = len(x)
    return Figures(n, round(result.get("accuracy", 0.0) * n), result["loss"] * n)


KINDS: Final[dict[str, Callable[[Desk, wire.Plan, Task], Awaitable[Piece]]]] = {
    TRAIN: train,
    **dict.fromkeys(statistics.KINDS, statistics.statistics),
}
"""The kinds of task that a device knows."""
