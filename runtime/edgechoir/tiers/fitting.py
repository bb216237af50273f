"""Training in a round: the rows of this device, the plan's options, the figures of the model."""

import asyncio
from dataclasses import replace
from typing import Final

import numpy as np

from edgechoir import wire
from edgechoir.errors import TrainingError
from edgechoir.learning.bound import cut_to
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.task import Task
from edgechoir.tiers.desk import Desk, Learner
from edgechoir.types import FitPlan, Floats, Update

EXPLODED: Final = 100.0
"""A loss that training multiplied by so much, from 1 at least, is no result of learning."""


class Hopeless(TrainingError):
    """The global model has no finite loss here, so there is nothing to train on from."""

    def __init__(self, figures: Figures) -> None:
        super().__init__("the global model has no finite loss on the rows held out here")
        self.figures = figures


async def fitted(
    desk: Desk, plan: wire.Plan, task: Task, **beside: Floats
) -> tuple[Update, Figures]:
    """What training from the global model gives, and how that model did before.

    Raises TrainingError, or Hopeless; Malformed.
    """
    trainer = trainer_of(desk)
    x, y = await asyncio.to_thread(desk.samples.training_arrays)
    if not len(x):
        raise TrainingError("no samples are stored")
    fit = fit_plan(plan, task)
    if desk.examples is None:
        figures = await measure(desk, trainer)
        if not np.isfinite(figures.loss_sum):
            raise Hopeless(figures)
    else:  # what is measured on single rows has no noise
        clip, noise = desk.examples.clip, desk.examples.noise
        figures, fit = Figures(), replace(fit, example_clip=clip, example_noise=noise)
        await desk.examples.charge(len(x), fit, noise)
    w = desk.weights
    update = await trainer.fit(w, x, y, fit, deadline=plan.deadline, **beside)
    check_settled(update)
    return update, figures


def check_settled(update: Update) -> None:
    """Raises TrainingError for an update that made this device's own loss explode."""
    before, after = update.metrics.get("loss"), update.metrics.get("fit_loss")
    if before is not None and after is not None and after > EXPLODED * max(before, 1.0):
        raise TrainingError(
            f"training took the loss from {before:.4g} to {after:.4g}: nothing is sent; lower the "
            "learning rate, or look for outliers in the samples"
        )


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
        task.get("distil", 0.0),
        task.get("temperature", 1.0),
    )


def bounded(delta: Floats, task: Task) -> Floats:
    """delta, scaled down to the L2 norm that the task allows. Raises Malformed, BadUpdate."""
    most = task.get("max_norm", 0.0)
    return cut_to(delta, most) if most > 0 else delta


async def measure(desk: Desk, trainer: Learner) -> Figures:
    """The global model on the rows held out here, before it is trained on."""
    return await measure_of(desk, trainer, desk.weights)


async def measure_of(desk: Desk, trainer: Learner, w: Floats) -> Figures:
    """w [d] on the rows held out here. The loss of a regression is its mean squared error,
    whatever it is trained with, so that a root has the RMSE."""
    x, y = await asyncio.to_thread(desk.samples.hold_out_arrays)
    if not len(x):
        return Figures()
    result = await trainer.evaluate(w, x, y)
    n = len(x)
    loss = result["rmse"] ** 2 if "rmse" in result else result["loss"]
    return Figures(n, round(result.get("accuracy", 0.0) * n), loss * n)
