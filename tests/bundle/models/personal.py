"""A classifier whose first layer and head stay on the device; the middle travels."""

from torch import Tensor, nn

META = {
    "name": "personal",
    "task": "classification",
    "input": [6],
    "outputs": ["low", "high", "odd"],
    "personal": ["calibration.*", "head.?eight", "head.bias"],
}


class Net(nn.Module):
    """Personal parameters stand first and last, the shared ones between."""

    def __init__(self) -> None:
        super().__init__()
        self.calibration = nn.Linear(6, 6)
        self.body = nn.Linear(6, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [batch, 3] of x [batch, 6]."""
        z = self.body(self.calibration(x)).relu()
        out: Tensor = self.head(z)
        return out


def model() -> nn.Module:
    return Net()
