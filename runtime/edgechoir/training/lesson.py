"""What a teacher adds to the loss of a step (`learning/rules/distil.py` has the formula)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as losses

from edgechoir.bundle.manifest import Manifest, prepare
from edgechoir.errors import TrainingError
from edgechoir.types import FitPlan, Floats

if TYPE_CHECKING:
    from edgechoir.training.fit import Model

Lesson = Callable[["Model", np.random.Generator], Tensor]


def lesson_of(
    manifest: Manifest, plan: FitPlan, shared: Floats | None, teacher: Floats | None
) -> Lesson | None:
    """A function of the model and the source of rows; None without a teacher. Raises
    TrainingError."""
    if shared is None or teacher is None or not plan.distil:
        return None
    expected = (len(shared), len(manifest.outputs))
    if teacher.shape != expected or not np.isfinite(teacher).all() or not plan.temperature > 0:
        raise TrainingError(
            f"a teacher of shape {teacher.shape} at temperature {plan.temperature}, expected "
            f"{expected} finite numbers and a temperature above 0"
        )
    x = torch.from_numpy(np.ascontiguousarray(prepare(manifest, shared), np.float32))
    said, t = torch.from_numpy(np.array(teacher, np.float32)), plan.temperature
    size = min(plan.batch_size, len(shared))

    def lesson(model: "Model", chance: np.random.Generator) -> Tensor:
        rows = torch.from_numpy(chance.choice(len(x), size, replace=False))
        output = model(x[rows], training=True)
        if manifest.task == "regression":
            return plan.distil * losses.mse_loss(output, said[rows])
        ours, theirs = (losses.log_softmax(each / t, 1) for each in (output, said[rows]))
        kl = losses.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return plan.distil * t * t * kl

    return lesson
