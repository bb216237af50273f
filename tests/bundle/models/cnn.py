"""A small 1-D convolution over a window of three channels."""

from torch import nn

META = {
    "name": "cnn",
    "task": "classification",
    "input": [3, 32],
    "outputs": ["idle", "walk", "run", "fall"],
    "scale": [1.0, 0.5, 0.25],
    "axis": 0,
}


def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(3, 8, 5, padding=2),
        nn.GroupNorm(2, 8),
        nn.SiLU(),
        nn.MaxPool1d(2),
        nn.Conv1d(8, 12, 3, padding="same"),
        nn.LeakyReLU(0.1),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(12, 4),
    )
