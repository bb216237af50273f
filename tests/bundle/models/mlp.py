"""Two layers with dropout, for a regression of two quantities."""

from torch import nn

META = {
    "name": "mlp",
    "task": "regression",
    "input": [6],
    "outputs": ["force", "torque"],
    "loss": "huber",
    "offset": [0.0, 1.0, 2.0, 3.0, 4.0, 5.0],
    "scale": 0.5,
}


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Dropout(0.2), nn.Linear(16, 2))
