"""What privacy costs: accuracy against epsilon, of private rounds and of DP-SGD.

    python -m bench.private [heart har crowd rows] [--seeds N]

Through the protocol (`bench/arena.py`). `heart` has four hospitals, `har` 21 persons and a logistic
model; `crowd` shares the rows of MNIST, shrunk to 7 x 7 pixels, out over 300 devices under ten
nodes, also with a logistic model; `rows` trains har's devices with DP-SGD instead.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Final

import numpy as np
import torch

from bench.arena import Arena, Rows
from bench.attacks import unaccounted
from bench.figures import Figure
from bench.problems import DATA, available, missing, problem
from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.load import Bundle
from edgechoir.learning.privacy.budget import epsilon
from edgechoir.learning.privacy.examples import Steps, private_steps, with_steps
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.private import Private, make_private
from edgechoir.rounds.schedule import Course
from edgechoir.tiers.desk import Examples
from edgechoir.training.account import available as accountable
from edgechoir.training.account import epsilon_of
from edgechoir.training.fit import predict
from edgechoir.types import Floats

DELTA: Final = 1e-5
ZS: Final = (None, 0.5, 1.0, 2.0, 4.0)
SOURCE: Final = """from torch import nn

META = {{"name": "logistic", "task": "classification", "input": [{inputs}], "outputs": {outputs}}}


def model():
    return nn.Sequential(nn.Linear({inputs}, {classes}))
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """Scaled rows of devices under `parents`, test rows, and how they are learned; `bound` is the
    norm that updates are clipped to at first."""

    words: str
    devices: Mapping[str, Rows]
    test: Rows
    course: Course
    bound: float
    parents: Mapping[str, str] | None = None


def _scaled(name: str) -> tuple[Mapping[str, Rows], Floats, Floats]:
    """Devices' rows as they are, and the mean and deviation of all columns."""
    devices = problem(name).devices
    x = np.concatenate([rows.x for rows in devices.values()])
    return devices, x.mean(0), np.maximum(x.std(0), 1e-6)


def _trial(name: str) -> Trial:
    if name == "crowd":
        return _crowd()
    devices, mean, deviation = _scaled(name)
    moved = {k: Rows((r.x - mean) / deviation, r.y) for k, r in devices.items()}
    kept = sorted(moved)[:: 4 if len(moved) > 4 else 1]
    if len(moved) > 4:  # every fourth person is judged on, and does not train
        test = [moved.pop(k) for k in kept]
    else:  # of each hospital every fifth row
        test = [Rows(moved[k].x[::5], moved[k].y[::5]) for k in kept]
        back = {k: np.arange(len(r.x)) % 5 != 0 for k, r in moved.items()}
        moved = {k: Rows(r.x[back[k]], r.y[back[k]]) for k, r in moved.items()}
    judged = Rows(np.concatenate([r.x for r in test]), np.concatenate([r.y for r in test]))
    rounds, rate = (15, 0.05) if name == "heart" else (30, 0.05)
    course = Course(rounds, 1e6, batch_size=16, learning_rate=rate, clip=5.0, max_samples=1)
    words = f"{name}: {len(moved)} devices"
    return Trial(words, moved, judged, course, 0.3 if name == "heart" else 1.0)


CROWD: Final = 300
NODES: Final = 10


def _crowd() -> Trial:
    devices = problem("mnist").devices.values()
    x = np.concatenate([rows.x for rows in devices]).reshape(-1, 7, 4, 7, 4)
    x = (x.mean((2, 4)).reshape(-1, 49) / 255).astype(np.float32)
    y = np.concatenate([rows.y for rows in devices])
    order = np.random.default_rng(0).permutation(len(x))
    x, y = x[order], y[order]
    judged, x, y = Rows(x[:2000], y[:2000]), x[2000:], y[2000:]
    shares = np.array_split(np.arange(len(x)), CROWD)
    held = {f"dev-{i:03}": Rows(x[at], y[at]) for i, at in enumerate(shares)}
    parents = {name: f"node-{i % NODES}" for i, name in enumerate(held)}
    course = Course(15, 1e6, epochs=2, batch_size=5, learning_rate=0.2, clip=5.0, max_samples=1)
    return Trial(f"crowd: {CROWD} devices under {NODES} nodes", held, judged, course, 1.0, parents)


def _bundle(rows: Rows, seed: int) -> Bundle:
    classes = int(rows.y.max()) + 1
    outputs, inputs = [str(i) for i in range(classes)], rows.x.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.py"
        source.write_text(SOURCE.format(inputs=inputs, outputs=outputs, classes=classes))
        return build_bundle(source, Path(folder) / "bundle", seed)


def _accuracy(arena: Arena, test: Rows) -> float:
    outputs = predict(arena.bundle, arena.state.weights, test.x)
    return float((outputs.argmax(1) == test.y).mean())


def private_rounds(trial: Trial, z: float | None, seed: int) -> tuple[float, float]:
    """(epsilon, accuracy) with noise z in every round, or with none."""
    inner = make_rule("fedavg", {})
    rule = inner if z is None else make_private(inner, {"z": z, "bound": trial.bound})
    arena = Arena(_bundle(trial.test, seed), trial.devices, trial.course, rule, trial.parents)
    arena.run(trial.course.rounds)
    last = arena.schedule.rule
    spent = epsilon(last.spent, DELTA) if isinstance(last, Private) else np.inf
    return spent, _accuracy(arena, trial.test)


def private_rows(trial: Trial, z: float | None, seed: int) -> tuple[float, float]:
    """(epsilon of a row of the device with the fewest, accuracy) with DP-SGD of noise z."""
    examples = None if z is None else Examples(1.0, z, unaccounted)
    rule = make_rule("fedavg", {})
    arena = Arena(_bundle(trial.test, seed), trial.devices, trial.course, rule, examples=examples)
    arena.run(trial.course.rounds)
    course, fewest = trial.course, min(len(rows.x) for rows in trial.devices.values())
    if z is None or not accountable():
        return np.inf, _accuracy(arena, trial.test)
    count, share = private_steps(fewest, course.batch_size)
    account = with_steps((), Steps(z, share, count * course.epochs * course.rounds))
    return epsilon_of(account, DELTA), _accuracy(arena, trial.test)


NAMES: Final = ("heart", "har", "crowd", "rows")


def measure() -> list[Figure]:
    """The four hospitals, with and without noise."""
    if not available():
        print(f"private: no data sets in {DATA}; nothing is measured")
        return []
    torch.set_num_threads(1)
    trial = _trial("heart")
    (_, plain), (spent, noisy) = (private_rounds(trial, z, 0) for z in (None, 1.0))
    return [Figure(f"heart, epsilon {spent:.3g}: accuracy", noisy, "", "without noise", plain)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.private", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seeds", type=int, default=2, metavar="N", help="seeds (2)")
    options = parser.parse_args()
    if set(options.names) - set(NAMES):
        parser.error(f"no such trial; there are {', '.join(NAMES)}")
    if missing():
        return 2
    torch.set_num_threads(1)
    began = time.monotonic()
    print("| trial | " + " | ".join("no noise" if z is None else f"z = {z:g}" for z in ZS) + " |")
    print("|---|" + "---|" * len(ZS))
    for name in options.names or NAMES:
        trial = _trial("har" if name == "rows" else name)
        run = private_rows if name == "rows" else private_rounds
        cells = []
        for z in ZS:
            found = [run(trial, z, seed) for seed in range(options.seeds)]
            accuracy = f"{fmean(right for _, right in found):.3f}"
            cells.append(accuracy if z is None else f"{accuracy} ({found[0][0]:.3g})")
        words = f"{trial.words}, DP-SGD" if name == "rows" else trial.words
        print(f"| {words}, {trial.course.rounds} rounds | " + " | ".join(cells) + " |", flush=True)
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
