"""One local step: the gradient of the loss, what the round's rule adds to it, and momentum.

    g  <- gradient of the minibatch's mean loss, scaled down to `max_gradient_norm` where longer
    g  <- g + shift + proximal * (w - anchor) + weight_decay * w
    u  <- momentum * u + g
    w  <- w - learning_rate * u

`shift` is SCAFFOLD's c - c_i (Karimireddy et al. 2020, algorithm 1), the proximal term FedProx's
(Li et al. 2020) or Ditto's (Li et al. 2021). u begins each round as 0: nothing is carried over.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgechoir.types import FitPlan


@dataclass(frozen=True, slots=True)
class Step:
    """`leaves` are the parameters, `anchors` and `shifts` the parts that belong to each, or none.

    A parameter that the loss does not depend on is left as it is.
    """

    plan: FitPlan
    leaves: Sequence[Tensor]
    anchors: Sequence[Tensor] = ()
    shifts: Sequence[Tensor] = ()
    velocities: dict[int, Tensor] = field(default_factory=dict)

    def __call__(self, gradients: Sequence[Tensor | None]) -> None:
        """Take one step. The gradients themselves are not written: torch may share them."""
        plan = self.plan
        scale = _scale([g for g in gradients if g is not None], plan.max_gradient_norm)
        for at, (leaf, gradient) in enumerate(zip(self.leaves, gradients, strict=True)):
            if gradient is None:
                continue
            g = gradient if scale is None else gradient * scale
            if self.shifts:
                g = g + self.shifts[at]
            if plan.proximal:
                g = g + plan.proximal * (leaf - self.anchors[at])
            if plan.weight_decay:
                g = g + plan.weight_decay * leaf
            if plan.momentum:
                if at in self.velocities:
                    g = g + plan.momentum * self.velocities[at]
                self.velocities[at] = g
            leaf.sub_(g, alpha=plan.learning_rate)


def _scale(gradients: Sequence[Tensor], most: float) -> Tensor | None:
    """What brings their joint L2 norm down to `most`; None where nothing must. A norm that is not
    finite is left for the check on the result to find."""
    if not most:
        return None
    norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(())))
    return most / norm if torch.isfinite(norm) and norm > most else None
