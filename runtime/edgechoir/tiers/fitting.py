"""Training in a round: the rows of this device, the plan's options, the figures of the model."""

import asyncio

from edgechoir import wire
from edgechoir.errors import TrainingError
from edgechoir.learning.bound import cut_to
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.task import Task
from edgechoir.tiers.desk import Desk, Learner
from edgechoir.types import FitPlan, Floats, Update


async def fitted(
    desk: Desk, plan: wire.Plan, task: Task, **beside: Floats
) -> tuple[Update, Figures]:
    """What training from the global model gives, and how that model did before.

    Raises TrainingError, Malformed.
    """
    trainer = trainer_of(desk)
    x, y = await asyncio.to_thread(desk.samples.training_arrays)
    if not len(x):
        raise TrainingError("no samples are stored")
    figures = await measure(desk, trainer)
    fit = fit_plan(plan, task)
    w = desk.weights
    return await trainer.fit(w, x, y, fit, deadline=plan.deadline, **beside), figures


def trainer_of(desk: Desk) -> Learner:
    """Raises TrainingError."""
    if desk.trainer is None:
        raise TrainingError("this device does not train")
    return desk.trainer


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
    """delta, scaled down to the L2 norm that the task allows. Raises Malformed, BadUpdate."""
    most = task.get("max_norm", 0.0)
    return cut_to(delta, most) if most > 0 else delta


async def measure(desk: Desk, trainer: Learner) -> Figures:
    """The global model on the rows held out here, before it is trained on."""
    x, y = await asyncio.to_thread(desk.samples.hold_out_arrays)
    if not len(x):
        return Figures()
    result = await trainer.evaluate(desk.weights, x, y)
    n = len(x)
    return Figures(n, round(result.get("accuracy", 0.0) * n), result["loss"] * n)
