"""Statistics on a device: which of its rows a task is about, and its part of the sum.

Inputs are taken as they were stored, before any normalisation. What the model would answer is asked
of the model that answers the stream, so a device needs no trainer for it.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edgechoir import wire
from edgechoir.bundle.manifest import Manifest, Targets, preparation
from edgechoir.errors import BadModel, BadUpdate
from edgechoir.learning.statistics.inquiry import MEAN, SCALE
from edgechoir.learning.statistics.local import PARTS, statistic
from edgechoir.learning.task import Task
from edgechoir.tiers.desk import Desk, Piece, Rows
from edgechoir.types import Floats, Reals

KINDS: Final = tuple(PARTS)


@dataclass(frozen=True, slots=True)
class Standardised:
    """Rows as the model sees them: (x - mean) * scale, a missing value in the mean's place."""

    rows: Rows
    mean: Floats
    scale: Floats

    def training_arrays(self) -> tuple[Floats, Targets]:
        """Those to learn from."""
        x, y = self.rows.training_arrays()
        return standardise(x, self.mean, self.scale), y

    def hold_out_arrays(self) -> tuple[Floats, Targets]:
        """Those to measure on."""
        x, y = self.rows.hold_out_arrays()
        return standardise(x, self.mean, self.scale), y


def standardise(x: Floats, mean: Floats, scale: Floats) -> Floats:
    """x [n, ..., f] as the model sees it."""
    out: Floats = (x - mean) * scale
    missing = np.isnan(out)
    if missing.any():
        out[missing] = 0.0
    return out


def seen_by_the_model(desk: Desk) -> Desk:
    """The desk, its rows normalised as the global state says."""
    found = normalisation(desk.held.aux)
    return desk if found is None else replace(desk, samples=Standardised(desk.samples, *found))


def preparation_of(
    manifest: Manifest, aux: Mapping[str, Floats], *, gaps: bool = False
) -> Callable[[Floats], Floats]:
    """What is done to a raw batch before the model of this state answers it.

    With `gaps` values may be missing: trees take them, a network without a mean to put there has
    its zero. Raises BadModel.
    """
    own, found = preparation(manifest), normalisation(aux)
    if found is None:
        if gaps and manifest.trees is None:
            return lambda x: np.nan_to_num(own(x))
        return own
    mean, scale = found
    columns = manifest.input_shape[-1]
    if len(mean) != columns or len(scale) != columns:
        raise BadModel(f"a model with {len(mean)} means for {columns} columns")
    return lambda x: own(standardise(x, mean, scale))


def normalisation(aux: Mapping[str, Floats]) -> tuple[Floats, Floats] | None:
    """(mean [f], scale [f]) where the global state has them."""
    return (aux[MEAN], aux[SCALE]) if MEAN in aux and SCALE in aux else None


async def statistics(desk: Desk, plan: wire.Plan, task: Task) -> Piece:
    """The part of a statistic, scaled to the clip of the plan."""
    part, n = await asyncio.to_thread(statistic, task, DeskRows(desk))
    if part.size != plan.dimension:
        raise BadUpdate(
            f"the task {task.kind!r} gives {part.size} numbers here, the plan has {plan.dimension}"
        )
    return Piece((part * plan.clip).astype(np.float32), n)


@dataclass(frozen=True, slots=True)
class DeskRows:
    """The rows of a device by source, as `learning.statistics.local` reads them."""

    desk: Desk

    @property
    def outputs(self) -> int:
        """Columns of the model's output."""
        return len(self.desk.bundle.manifest.outputs)

    @property
    def classifies(self) -> bool:
        """Whether they are classes."""
        return self.desk.bundle.manifest.task == "classification"

    def inputs(self, source: str) -> Floats:
        """x [n, ...]. Raises BadUpdate where there is none."""
        if source == "recent":
            return self._recent()[0]
        x, _ = self._stored(source)
        return x

    def labels(self, source: str) -> Reals:
        """y [n] or [n, k]. Raises BadUpdate: nobody has labelled what was just inferred on."""
        if source == "recent":
            raise BadUpdate("recent samples have no labels: ask for stored ones")
        return self._stored(source)[1].astype(np.float64)

    def answers(self, source: str) -> tuple[Reals, Reals]:
        """Classes [n] or values [n, k], and confidence [n]."""
        outputs = self.logits(source).astype(np.float64)
        if not self.classifies:
            return outputs, np.ones(len(outputs))
        p = np.exp(outputs - outputs.max(1, keepdims=True))
        return outputs.argmax(1).astype(np.float64), p.max(1) / p.sum(1)

    def logits(self, source: str) -> Floats:
        """The outputs [n, k] given then, or those that the model gives now."""
        if source == "recent":
            return self._recent()[1]
        if self.desk.answer is None:
            raise BadUpdate("this device has no model to ask")
        return self.desk.answer(self._stored(source)[0])

    def _recent(self) -> tuple[Floats, Floats]:
        if self.desk.recent is None:
            raise BadUpdate("this device remembers no inferences: see [predictions] recent")
        x, outputs = self.desk.recent()
        if not len(x):
            raise BadUpdate("this device has not inferred on anything yet")
        return x, outputs

    def _stored(self, source: str) -> tuple[Floats, Targets]:
        parts = []
        if source != "held_out":
            parts.append(self.desk.samples.training_arrays())
        if source != "train":
            parts.append(self.desk.samples.hold_out_arrays())
        x = np.concatenate([part[0] for part in parts])
        y = np.concatenate([part[1] for part in parts])
        if not len(x):
            raise BadUpdate(f"this device has no samples to count as {source!r}")
        return x, y
