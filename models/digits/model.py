"""Handwritten digits, 8 x 8 pixels of 0..16, as in scikit-learn's load_digits."""

from torch import nn

META = {
    "name": "digits",
    "task": "classification",
    "input": [64],
    "outputs": [str(digit) for digit in range(10)],
    "scale": 1 / 16,
}


def model() -> nn.Module:
    """64 pixels -> 10 logits; 2,410 parameters."""
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
