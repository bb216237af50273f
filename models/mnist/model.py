"""Handwritten digits of 28 x 28 pixels, 0..255."""

from torch import nn

META = {
    "name": "mnist",
    "task": "classification",
    "input": [784],
    "outputs": [str(digit) for digit in range(10)],
    "scale": 1 / 255,
}


def model() -> nn.Module:
    """784 pixels -> 10 logits; 50,890 parameters."""
    return nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
