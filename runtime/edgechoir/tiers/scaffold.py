"""A device's part in SCAFFOLD (`learning/rules/scaffold.py`): its control variate c_i, which stays
here, and when it moves on.

c and the c_i must tell the same story, so c_i becomes c_i' only once it is known that the change
was added to c: the round's upload has left, and a model made by that very round has come. Until
then c_i' lies beside it as pending; whatever else comes, it is dropped. That errs, if at all, in
one way each:

- The sum went without this member though its upload left (it came too late, or its node was lost):
  c_i moves on, c has not. The other way round, a device that was away when its round's model came
  keeps its old c_i, and c has moved. Neither can be told from here; the rule's leak lets what is
  wrong in c die out.
- A c_i that is lost begins at 0 again, and so it does where the model has no c: at a run's start.
"""

import asyncio

import numpy as np

from edgechoir import wire
from edgechoir.errors import BadUpdate, OperatorError, TrainingError
from edgechoir.learning.rules.scaffold import CONTROL, change_of, mean_gradient, own_of
from edgechoir.learning.task import Task
from edgechoir.tiers.desk import Desk, Keeper, Piece
from edgechoir.tiers.fitting import bounded, fitted
from edgechoir.tiers.pending import hold
from edgechoir.types import Floats


async def scaffold(desk: Desk, plan: wire.Plan, task: Task) -> Piece:
    """[delta, scale * change of c_i]. Raises TrainingError, BadUpdate, Malformed."""
    kept = desk.kept
    if kept is None:
        raise TrainingError("this device has nowhere to keep a control variate")
    scale, leak = task.get("scale", 0.0), task.get("leak", 0.0)
    if not scale > 0 or not 0 <= leak <= 1:
        raise BadUpdate(f"a scale of {scale} and a leak of {leak}: above 0, and from 0 to 1")
    d = len(desk.held.weights)
    c, before = await asyncio.to_thread(variates, kept, desk.held.aux.get(CONTROL), d)
    update, figures = await fitted(desk, plan, task, shift=c - before)
    own = before - c + mean_gradient(update.delta, update.steps, plan.learning_rate)
    # What is cut on its way to the sum is cut in c_i' too.
    sent = bounded(change_of(own, before, c, leak) * np.float32(scale), task)
    sent = np.clip(sent, -plan.clip, plan.clip)
    own = own_of(sent / np.float32(scale), before, c, leak)
    try:
        await asyncio.to_thread(hold, kept, CONTROL, own, plan.round)
    except OperatorError as error:
        raise TrainingError(str(error)) from error
    vector = np.concatenate([bounded(update.delta, task), sent])
    return Piece(vector, update.n, figures, update.personal)


def variates(kept: Keeper, c: Floats | None, d: int) -> tuple[Floats, Floats]:
    """(c [d], c_i [d]): 0 where there is none, or one of another length."""
    nothing = np.zeros(d, np.float32)
    found = kept.get(CONTROL)
    if c is None or len(c) != d:
        return nothing, nothing
    return c, nothing if found is None or len(found[0]) != d else found[0]
