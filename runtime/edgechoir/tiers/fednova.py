"""A device's part in FedNova: its update per effective step, and how many those were."""

from edgechoir import wire
from edgechoir.errors import BadUpdate
from edgechoir.learning.rules.fednova import effective_steps, normalised
from edgechoir.learning.task import Task
from edgechoir.tiers.desk import Desk, Piece
from edgechoir.tiers.fitting import bounded, fit_plan, fitted


async def fednova(desk: Desk, plan: wire.Plan, task: Task) -> Piece:
    """[delta / tau, tau], scaled. Raises TrainingError, BadUpdate, Malformed."""
    unit, most = task.get("unit", 0), task.get("most", 0.0)
    if unit < 1 or not most >= 1:
        raise BadUpdate(f"a unit of {unit} steps of at most {most}: 1 or more of each")
    update, figures = await fitted(desk, plan, task)
    fit = fit_plan(plan, task)
    tau = effective_steps(update.steps, fit.learning_rate, fit.momentum, fit.proximal)
    if not tau > 0:
        raise BadUpdate(f"{update.steps} steps go {tau:g} along a steady gradient: lower the rate")
    delta = bounded(update.delta, task)
    vector = normalised(delta, tau, plan.clip, unit, most)
    return Piece(vector, update.n, figures, update.personal)
