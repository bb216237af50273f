"""Remaining life of a turbofan, as a share of 125 cycles, from 30 cycles of 14 sensors."""

from torch import nn

META = {
    "name": "turbofan",
    "task": "regression",
    "input": [420],
    "outputs": ["remaining life / 125"],
}


def model() -> nn.Module:
    """420 standardised values -> 1; 29,057 parameters."""
    return nn.Sequential(
        nn.Linear(420, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 1)
    )
