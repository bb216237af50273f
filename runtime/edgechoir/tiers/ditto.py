"""A device's own model under Ditto (`learning/rules/ditto.py`): trained beside the global one, and
answering in its place for as long as it does better on the rows held out here."""

import asyncio
import logging
from dataclasses import replace
from typing import Final

import numpy as np

from edgechoir import wire
from edgechoir.errors import OperatorError, TrainingError
from edgechoir.learning.rules.ditto import DITTO
from edgechoir.learning.task import Task
from edgechoir.tiers.desk import Desk, Keeper, Own
from edgechoir.tiers.fitting import fit_plan, trainer_of
from edgechoir.types import Floats, Update

log: Final = logging.getLogger(__name__)

ANSWERS: Final = "ditto-answers"
"""Kept beside v_i while it is what answers."""


async def own_model(desk: Desk, plan: wire.Plan, task: Task) -> Own | None:
    """v_i after this round; None where none is asked for, or it cannot be had. Raises Malformed."""
    pull = task.get(DITTO, 0.0)
    if not pull > 0 or desk.kept is None:
        return None
    w = desk.weights
    try:
        trainer = trainer_of(desk)
        found = await asyncio.to_thread(desk.kept.get, DITTO)
        before = w if found is None or len(found[0]) != len(w) else found[0]
        x, y = await asyncio.to_thread(desk.samples.training_arrays)
        fit = replace(fit_plan(plan, task), proximal=pull)
        update = await trainer.fit(before, x, y, fit, deadline=plan.deadline, anchor=w)
        own = trained(before, update)
        x, y = await asyncio.to_thread(desk.samples.hold_out_arrays)
        better = False
        if len(x):
            ours, theirs = await trainer.evaluate(own, x, y), await trainer.evaluate(w, x, y)
            better = ours["loss"] < theirs["loss"]
        await asyncio.to_thread(keep_own, desk.kept, own, better, plan.round)
    except (TrainingError, OperatorError) as error:  # what is sent does not depend on it
        log.warning("round %d: this device's own model stays as it was: %s", plan.round, error)
        return None
    return Own(own, better)


def trained(before: Floats, update: Update) -> Floats:
    """The whole vector [d] after training from `before` [d]."""
    shared = before[: len(update.delta)] + update.delta
    return shared if update.personal is None else np.concatenate([shared, update.personal])


def keep_own(kept: Keeper, own: Floats, better: bool, round_: int) -> None:
    """Raises OperatorError."""
    kept.put(DITTO, own, round_)
    if better:
        kept.put(ANSWERS, np.ones(1, np.float32), round_)
    else:
        kept.drop(ANSWERS)


def answering(kept: Keeper | None, d: int) -> Floats | None:
    """The own model that answered when the device stopped, if one did and it fits."""
    if kept is None or kept.get(ANSWERS) is None:
        return None
    found = kept.get(DITTO)
    return None if found is None or len(found[0]) != d else found[0]
