"""The losses that a bundle may name, as means over a batch."""

from torch import Tensor
from torch.nn import functional as losses

from edgechoir.bundle.manifest import LossName


def loss_of(name: LossName, output: Tensor, target: Tensor) -> Tensor:
    """The mean loss of a batch's outputs."""
    match name:
        case "cross_entropy":
            return losses.cross_entropy(output, target)
        case "mse":
            return losses.mse_loss(output, target)
        case "huber":
            return losses.huber_loss(output, target)
