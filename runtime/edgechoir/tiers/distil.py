"""A device's part in distillation (`learning/rules/distil.py`): its own model learns from its rows
and from the teacher, and says what it makes of the shared set. The model itself never leaves, and
may have any shape that gives the same outputs."""

import asyncio
from pathlib import Path
from typing import Final

import numpy as np

from edgechoir import wire
from edgechoir.errors import BadUpdate, OperatorError, TrainingError
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.rules.distil import centred, shared_hash
from edgechoir.learning.task import Task
from edgechoir.tiers.desk import Desk, Keeper, Own, Piece
from edgechoir.tiers.ditto import trained
from edgechoir.tiers.fitting import fit_plan, measure_of, trainer_of
from edgechoir.types import Floats

OWN: Final = "own-model"
MOST: Final = 4_000_000
"""Numbers in a shared set."""


async def distil(desk: Desk, plan: wire.Plan, task: Task) -> Piece:
    """[m * k] what the trained model says. Raises TrainingError, BadUpdate, Malformed."""
    trainer, kept, x_shared = trainer_of(desk), desk.kept, desk.shared
    if x_shared is None or kept is None:
        raise TrainingError("this device has no shared set: name it in training.shared")
    if desk.examples is not None:
        raise TrainingError("this device protects its rows by noise, which answers do not have")
    seen, wanted = shared_hash(x_shared), task.get("shared", "")
    if seen != wanted:
        raise BadUpdate(f"the shared set here hashes to {seen[:16]}, the plan's to {wanted[:16]}")
    teacher = desk.held.weights.reshape(len(x_shared), -1)
    outputs = len(desk.bundle.manifest.outputs)
    if teacher.shape[1] != outputs:
        raise BadUpdate(f"a teacher of {teacher.shape[1]} outputs, this model has {outputs}")
    x, y = await asyncio.to_thread(desk.samples.training_arrays)
    if not len(x):
        raise TrainingError("no samples are stored")
    before = own_model(kept, desk.bundle.params)
    figures = await measure_of(desk, trainer, before)
    if not np.isfinite(figures.loss_sum):
        before, figures = desk.bundle.params, Figures()  # begin anew
    beside = {"shared_x": x_shared, "teacher": teacher} if teacher.any() else {}
    fit = fit_plan(plan, task)
    update = await trainer.fit(before, x, y, fit, deadline=plan.deadline, **beside)
    own = trained(before, update)
    said = await trainer.predict(own, x_shared, deadline=plan.deadline)
    if desk.bundle.manifest.task == "classification":
        said = centred(said)
    try:
        await asyncio.to_thread(kept.put, OWN, own, plan.round)
    except OperatorError as error:
        raise TrainingError(str(error)) from error
    return Piece(said.reshape(-1), update.n, figures, own=Own(own, True))


def own_model(kept: Keeper | None, first: Floats) -> Floats:
    """This device's model as it left it, or as the bundle has it."""
    found = None if kept is None else kept.get(OWN)
    return first if found is None or len(found[0]) != len(first) else found[0]


def read_shared(path: Path, shape: tuple[int, ...]) -> Floats:
    """The shared set: `x` [m, *shape] of an NPZ file, raw samples as a sensor gives them. Raises
    OperatorError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x = np.asarray(arrays["x"], np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise OperatorError(f"{path}: no NPZ file with an array x: {error}") from None
    if x.shape[1:] != shape or not len(x) or x.size > MOST or not np.isfinite(x).all():
        raise OperatorError(
            f"{path}: x has shape {x.shape}, expected 1 or more finite samples of {shape}, "
            f"{MOST} numbers at most"
        )
    return x


def shared_set(path: Path | None, shape: tuple[int, ...]) -> Floats | None:
    """The shared set of a device whose federation distils. Raises OperatorError."""
    return None if path is None else read_shared(path, shape)
