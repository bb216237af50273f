"""What a person does, from 114 features of a 2.56 s window of a phone's inertial sensors."""

from torch import nn

META = {
    "name": "har",
    "task": "classification",
    "input": [114],
    "outputs": ["walking", "upstairs", "downstairs", "sitting", "standing", "laying"],
}


def model() -> nn.Module:
    """114 standardised features -> 6 logits; 7,750 parameters."""
    return nn.Sequential(nn.Linear(114, 64), nn.ReLU(), nn.Linear(64, 6))
