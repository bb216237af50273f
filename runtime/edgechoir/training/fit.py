"""SGD on the flat vector, step by step as `step` says, and the measures of how well a vector does.

No state is kept between rounds here: what a device learns leaves it in the update alone.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import torch
from torch import Tensor

from edgechoir.bundle.load import Bundle
from edgechoir.bundle.manifest import Manifest, Targets, prepare
from edgechoir.errors import TrainingError
from edgechoir.learning.privacy.examples import private_steps
from edgechoir.training.interpret import Program, compile_graph, run
from edgechoir.training.lesson import lesson_of
from edgechoir.training.loss import loss_of
from edgechoir.training.private import poisson_rows, private_sum, system_entropy
from edgechoir.training.step import Step
from edgechoir.types import FitPlan, Floats, Update

_ROWS: Final = 256
"""Rows a pass without gradients takes at once, which bounds its memory."""
_MAX_EPOCHS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Model:
    """The graph over one flat vector: `params` are views into `flat` [d], not copies."""

    program: Program
    manifest: Manifest
    flat: Tensor
    params: Mapping[str, Tensor]

    @classmethod
    def of(cls, bundle: Bundle, w: Floats) -> Self:
        """A model at w [d]; w itself is never written. Raises TrainingError."""
        manifest = bundle.manifest
        if manifest.trees is not None:
            raise TrainingError("a forest is not trained by gradient steps, but by the rule trees")
        if w.shape != (manifest.size,):
            raise TrainingError(f"weights of shape {w.shape}, expected ({manifest.size},)")
        if not np.isfinite(w).all():
            raise TrainingError("the given weights are not finite")
        flat = torch.from_numpy(np.array(w, np.float32))
        params = {
            p.name: flat[p.offset : p.offset + p.size].view(p.shape) for p in manifest.parameters
        }
        return cls(compile_graph(bundle.graph), manifest, flat, params)

    def parts(self, vector: Floats, what: str) -> list[Tensor]:
        """The part of a vector [d] that belongs to each parameter. Raises TrainingError."""
        if vector.shape != (self.manifest.size,) or not np.isfinite(vector).all():
            raise TrainingError(
                f"{what} of shape {vector.shape}, expected ({self.manifest.size},) finite numbers"
            )
        flat = torch.from_numpy(np.array(vector, np.float32))
        return [flat[p.offset : p.offset + p.size].view(p.shape) for p in self.manifest.parameters]

    def __call__(self, x: Tensor, *, training: bool) -> Tensor:
        return run(self.program, self.params, x, training=training)


def fit(
    bundle: Bundle,
    w: Floats,
    x: Floats,
    y: Targets,
    plan: FitPlan,
    *,
    anchor: Floats | None = None,
    shift: Floats | None = None,
    shared_x: Floats | None = None,
    teacher: Floats | None = None,
) -> Update:
    """Train from w [d] on raw samples x [n, *input_shape] with targets y as `plan` says.

    `anchor` [d] is where the proximal term pulls to, w itself without one; `shift` [d] is added to
    every gradient. Either may be of the shared part alone, [s]: personal layers are then pulled to
    where they began, and shifted by nothing. With `shared_x` [m, *input_shape] and a `teacher`
    [m, outputs] each step also learns what the teacher says of rows drawn from them.

    y is [n] class numbers, or [n, outputs] for a regression. The update's metrics are "loss" and
    the manifest's metric of the *given* weights over these rows (so that their mean over the
    federation judges the global model), and "fit_loss", the mean loss during the last epoch.
    Shared and personal layers learn together (FedPer, algorithm 2); the delta is of the former.
    The same arguments give the same update, unless noise is asked for. Raises TrainingError, also
    if the training diverges: an update that is not finite never leaves this function.
    """
    _check_plan(plan)
    model = Model.of(bundle, w)
    samples, targets = _tensors(bundle.manifest, x, y)
    metrics = _measure(model, samples, targets)
    if not np.isfinite(list(metrics.values())).all():
        raise TrainingError(f"the given weights have loss {metrics['loss']} on these samples")
    anchor = w if anchor is None else _whole(bundle.manifest, anchor, w)
    shift = None if shift is None else _whole(bundle.manifest, shift, np.zeros_like(w))
    step = _step_of(model, plan, anchor, shift)
    lesson = lesson_of(bundle.manifest, plan, shared_x, teacher)
    order = np.random.default_rng(plan.seed)
    steps, total = 0, 0.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)  # dropout
        for _ in range(plan.epochs):
            total = 0.0
            if plan.example_noise:
                steps += _private_epoch(model, step, samples, targets)
                continue
            for rows in _batches(order.permutation(len(samples)), plan.batch_size):
                output = model(samples[rows], training=True)
                loss = loss_of(bundle.manifest.loss, output, targets[rows])
                if lesson is not None:
                    loss = loss + lesson(model, order)
                gradients = torch.autograd.grad(loss, step.leaves, allow_unused=True)
                with torch.no_grad():
                    step(gradients)
                steps += 1
                total += loss.item() * len(rows)
            if not np.isfinite(total):
                raise _diverged(steps, plan)
    trained = model.flat.detach().numpy()
    if not np.isfinite(trained).all():
        raise _diverged(steps, plan)
    metrics["fit_loss"] = total / len(samples)
    shared = bundle.manifest.shared
    personal = trained[shared:] if shared < len(trained) else None
    return Update(trained[:shared] - w[:shared], len(samples), steps, metrics, personal)


def _whole(manifest: Manifest, vector: Floats, otherwise: Floats) -> Floats:
    """`vector` [d] as it is; one [s] followed by the personal part of `otherwise` [d]."""
    short = vector.shape == (manifest.shared,)
    return np.concatenate([vector, otherwise[manifest.shared :]]) if short else vector


def _step_of(model: Model, plan: FitPlan, anchor: Floats, shift: Floats | None) -> Step:
    """The step over a model's parameters. Raises TrainingError."""
    leaves = [tensor.requires_grad_() for tensor in model.params.values()]
    anchors = model.parts(anchor, "anchor") if plan.proximal else ()
    return Step(plan, leaves, anchors, () if shift is None else model.parts(shift, "shift"))


def _private_epoch(model: Model, step: Step, samples: Tensor, targets: Tensor) -> int:
    """As many steps as an epoch has minibatches, on rows drawn by chance; how many those were."""
    plan, manifest = step.plan, model.manifest
    count, share = private_steps(len(samples), plan.batch_size)
    for _ in range(count):
        rows = torch.from_numpy(poisson_rows(len(samples), share, system_entropy))
        x, y = samples[rows], targets[rows]
        clip, noise = plan.example_clip, plan.example_noise
        found = private_sum(
            model.program, manifest.loss, model.params, x, y, clip, noise, system_entropy
        )
        expected = share * len(samples)
        with torch.no_grad():
            step([found[name] / expected for name in model.params])
    return count


def evaluate(bundle: Bundle, w: Floats, x: Floats, y: Targets) -> dict[str, float]:
    """{"loss", the manifest's metric ("accuracy" or "rmse"), "n"} of w over raw samples x.

    What is not finite is infinite. Raises TrainingError.
    """
    samples, targets = _tensors(bundle.manifest, x, y)
    return {**_measure(Model.of(bundle, w), samples, targets), "n": float(len(samples))}


def predict(bundle: Bundle, w: Floats, x: Floats) -> Floats:
    """The model's outputs [n, outputs] (logits of a classification) for raw samples x.

    Raises TrainingError.
    """
    model = Model.of(bundle, w)
    with torch.no_grad():
        parts = [
            model(part, training=False) for part in torch.split(_samples(bundle.manifest, x), _ROWS)
        ]
    outputs: Floats = torch.cat(parts).numpy()
    return outputs


def _measure(model: Model, samples: Tensor, targets: Tensor) -> dict[str, float]:
    loss = metric = 0.0
    with torch.no_grad():
        for x, y in zip(torch.split(samples, _ROWS), torch.split(targets, _ROWS), strict=True):
            output = model(x, training=False)
            loss += loss_of(model.manifest.loss, output, y).item() * len(x)
            if model.manifest.metric == "accuracy":
                metric += (output.argmax(1) == y).sum().item()
            else:
                metric += (output - y).square().mean(1).sum().item()
    n = len(samples)
    value = metric / n if model.manifest.metric == "accuracy" else float(np.sqrt(metric / n))
    found = {"loss": loss / n, model.manifest.metric: value}
    return {name: each if np.isfinite(each) else float("inf") for name, each in found.items()}


def _batches(order: np.ndarray[tuple[int], np.dtype[np.int64]], size: int) -> Iterator[Tensor]:
    yield from torch.split(torch.from_numpy(order), size)


def _samples(manifest: Manifest, x: Floats) -> Tensor:
    expected = manifest.input_shape
    if x.ndim != 1 + len(expected) or x.shape[1:] != expected or len(x) == 0:
        raise TrainingError(f"samples of shape {x.shape}, expected (1 or more, *{expected})")
    if not np.isfinite(x).all():
        row = int(np.flatnonzero(~np.isfinite(x.reshape(len(x), -1)).all(axis=1))[0])
        raise TrainingError(f"sample {row} is not finite")
    return torch.from_numpy(np.ascontiguousarray(prepare(manifest, x), np.float32))


def _tensors(manifest: Manifest, x: Floats, y: Targets) -> tuple[Tensor, Tensor]:
    samples = _samples(manifest, x)
    outputs = len(manifest.outputs)
    if manifest.task == "classification":
        if y.shape != (len(x),) or y.dtype.kind not in "iu":
            raise TrainingError(f"targets {y.dtype} {y.shape}, expected integers ({len(x)},)")
        if y.min() < 0 or y.max() >= outputs:
            raise TrainingError(f"targets from {y.min()} to {y.max()}, expected 0 to {outputs - 1}")
        return samples, torch.from_numpy(y.astype(np.int64))
    if y.shape != (len(x), outputs) or y.dtype.kind != "f" or not np.isfinite(y).all():
        raise TrainingError(
            f"targets {y.dtype} {y.shape}, expected finite floats ({len(x)}, {outputs})"
        )
    return samples, torch.from_numpy(y.astype(np.float32))


def _check_plan(plan: FitPlan) -> None:
    if not 1 <= plan.epochs <= _MAX_EPOCHS:
        raise TrainingError(f"{plan.epochs} epochs, expected 1 to {_MAX_EPOCHS}")
    if plan.batch_size < 1:
        raise TrainingError(f"batch size {plan.batch_size}, expected 1 or more")
    if not (plan.learning_rate > 0 and np.isfinite(plan.learning_rate)):
        raise TrainingError(f"learning rate {plan.learning_rate}, expected above 0")
    if not 0 <= plan.momentum < 1:
        raise TrainingError(f"momentum {plan.momentum}, expected 0 to below 1")
    for name in ("weight_decay", "max_gradient_norm", "proximal", "distil"):
        value = getattr(plan, name)
        if not (value >= 0 and np.isfinite(value)):
            raise TrainingError(f"{name} {value}, expected 0 or more")
    if not 0 <= plan.seed < 2**63:
        raise TrainingError(f"seed {plan.seed}, expected 0 to 2^63 - 1")


def _diverged(steps: int, plan: FitPlan) -> TrainingError:
    return TrainingError(
        f"training diverged within {steps} steps at learning rate {plan.learning_rate:g}; "
        "lower it, or look for outliers in the samples"
    )
