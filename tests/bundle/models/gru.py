"""A GRU over twelve steps of four features; its last output is read."""

import torch
from torch import nn

META = {"name": "gru", "task": "classification", "input": [12, 4], "outputs": ["a", "b", "c"]}


class Recurrent(nn.Module):
    """[batch, 12, 4] -> [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(4, 8, num_layers=2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        steps, _ = self.cell(x)
        out: torch.Tensor = self.head(steps[:, -1])
        return out


def model() -> nn.Module:
    return Recurrent()
