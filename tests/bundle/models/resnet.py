"""A residual network with GroupNorm over small images."""

import torch
from torch import nn
from torch.nn import functional

META = {
    "name": "resnet",
    "task": "classification",
    "input": [3, 12, 12],
    "outputs": [f"class-{n}" for n in range(5)],
}


class Block(nn.Module):
    """Two convolutions and a way around them."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(4, after)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(4, after)
        self.around = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(h)) + self.around(x))


class ResNet(nn.Module):
    """[batch, 3, 12, 12] -> [batch, 5]."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(3, 8, 1), Block(8, 16, 2))
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.blocks(x).mean((2, 3)))
        return out


def model() -> nn.Module:
    return ResNet()
