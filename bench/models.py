"""Bundles of several kinds and sizes for the benchmarks, built where torch is already loaded."""

import subprocess
import sys
from pathlib import Path
from typing import Final

from edgechoir.bundle.load import Bundle, load_bundle

HEAD: Final = """\
from torch import Tensor, nn

META = {{
    "name": "{name}",
    "task": "classification",
    "input": {shape},
    "outputs": ["a", "b", "c", "d", "e", "f"],
}}

"""
DENSE: Final = """\
def model() -> nn.Module:
    return nn.Sequential(
        nn.Linear({inputs}, {width}), nn.ReLU(), nn.Linear({width}, {width}), nn.ReLU(),
        nn.Linear({width}, 6),
    )
"""
RECURRENT: Final = """\
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(6, 64, batch_first=True)
        self.head = nn.Linear(64, 6)

    def forward(self, x: Tensor) -> Tensor:
        z, _ = self.gru(x)
        return self.head(z[:, -1])


def model() -> nn.Module:
    return Net()
"""
CONVOLUTION: Final = """\
def model() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(6, 32, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(32, 32, 5, padding=2), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
        nn.Linear(32, 6),
    )
"""
SOURCES: Final = {
    "mlp-85k": HEAD.format(name="mlp-85k", shape="[64]") + DENSE.format(inputs=64, width=256),
    "mlp-1m": HEAD.format(name="mlp-1m", shape="[64]") + DENSE.format(inputs=64, width=964),
    "gru-14k": HEAD.format(name="gru-14k", shape="[50, 6]") + RECURRENT,
    "cnn-6k": HEAD.format(name="cnn-6k", shape="[6, 128]") + CONVOLUTION,
}


def bundle_of(name: str, folder: Path) -> Bundle:
    """Build one of `SOURCES` in `folder`."""
    source = folder / f"{name}.py"
    source.write_text(SOURCES[name])
    command = [sys.executable, "-m", "edgechoir", "bundle", "build"]
    subprocess.run([*command, source, folder / name], check=True, stdout=subprocess.DEVNULL)
    return load_bundle(folder / name)
