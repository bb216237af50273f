"""A device's part in growing trees: histograms of its gradients, in numpy, without torch."""

import asyncio

import numpy as np

from edgechoir import wire
from edgechoir.bundle.manifest import Manifest
from edgechoir.errors import BadUpdate, Malformed, TrainingError
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.statistics.local import MAX_BINS
from edgechoir.learning.task import Task
from edgechoir.learning.trees.forest import Layout
from edgechoir.learning.trees.grow import measured, part_of
from edgechoir.learning.trees.prepare import EDGES, REACH, START
from edgechoir.tiers.desk import Desk, Piece


def layout_of(manifest: Manifest) -> Layout:
    """The forest of a bundle of trees. Raises TrainingError for another."""
    if manifest.trees is None:
        raise TrainingError(f"{manifest.name} is no bundle of trees")
    return Layout(
        manifest.input_shape[0],
        len(manifest.outputs),
        manifest.task == "classification",
        manifest.trees.count,
        manifest.trees.depth,
    )


async def gradients(desk: Desk, plan: wire.Plan, task: Task) -> Piece:
    """The part for one level. Raises TrainingError, BadUpdate, Malformed."""
    return await asyncio.to_thread(_gradients, desk, plan, task)


def _gradients(desk: Desk, plan: wire.Plan, task: Task) -> Piece:
    layout = layout_of(desk.bundle.manifest)
    step, level, bins = task.get("step", -1), task.get("level", -1), task.get("bins", 0)
    steps = layout.trees // layout.scores
    if not (0 <= step < steps and 0 <= level < layout.depth and 2 <= bins <= MAX_BINS):
        raise Malformed(f"histograms of step {step}, level {level}, {bins} bins")
    aux = desk.held.aux
    sizes = {EDGES: layout.columns * (bins - 1), START: layout.scores, REACH: layout.scores}
    wrong = [name for name, size in sizes.items() if name not in aux or len(aux[name]) != size]
    if wrong or not (aux[REACH] > 0).all():
        raise BadUpdate(
            f"the model came without what its trees need: {', '.join(wrong or [REACH])}"
        )
    x, y = desk.samples.training_arrays()
    if not len(x):
        raise TrainingError("no samples are stored")
    w = np.array(desk.held.weights, np.float32)
    layout.split(w).bias[:] = aux[START]
    edges = aux[EDGES].reshape(layout.columns, -1)
    part = part_of(
        layout, w, x, y.astype(np.float64), edges, aux[REACH].astype(np.float64), step, level
    )
    if part.size != plan.dimension:
        raise BadUpdate(f"{part.size} sums here, the plan has {plan.dimension}")
    # Within a tree the forest says nothing new.
    figures = figures_of_trees(desk) if level == 0 and step else Figures()
    return Piece(part * np.float32(plan.clip), len(x), figures)


def figures_of_trees(desk: Desk) -> Figures:
    """The forest on the rows held out here. Blocking."""
    x, y = desk.samples.hold_out_arrays()
    if not len(x):
        return Figures()
    layout = layout_of(desk.bundle.manifest)
    right, loss = measured(layout, desk.held.weights, x, y.astype(np.float64))
    return Figures(len(x), right, loss)
