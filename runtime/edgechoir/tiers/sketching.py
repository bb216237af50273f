"""A device's update in the form that the round asks for, and what is left of it for the next one.

e' = (delta + e) - what was sent of it, cut to the clip: kept here, and taken for e once the round
is known to have counted (`tiers/pending.py`). A residual that is lost begins at zero again.
"""

import asyncio

import numpy as np

from edgechoir import wire
from edgechoir.errors import OperatorError, TrainingError
from edgechoir.learning.sketch import sketch_of
from edgechoir.learning.task import Task
from edgechoir.tiers.desk import Desk
from edgechoir.tiers.pending import RESIDUAL, hold
from edgechoir.types import Floats


async def in_form(desk: Desk, plan: wire.Plan, task: Task, delta: Floats) -> Floats:
    """delta [d], or what the round's sketch sends of it. Raises RemoteError, TrainingError."""
    sketch = sketch_of(task)
    if sketch is None:
        return delta
    kept = desk.kept
    if kept is None:
        raise TrainingError("this device has nowhere to keep what it does not send")
    if sketch.share == 1:
        return await asyncio.to_thread(sketch.send, delta)
    try:
        found = await asyncio.to_thread(kept.get, RESIDUAL)
        if found is not None and len(found[0]) == len(delta):
            delta = delta + found[0]
        sent = await asyncio.to_thread(sketch.send, delta)
        cut = np.clip(sent, -plan.clip, plan.clip).astype(np.float32)
        left = delta - await asyncio.to_thread(sketch.open, cut, len(delta))
        await asyncio.to_thread(hold, kept, RESIDUAL, left, plan.round)
    except OperatorError as error:
        raise TrainingError(str(error)) from error
    return sent
