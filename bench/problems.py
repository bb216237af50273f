"""The real federated data sets as problems: whose rows, which model, and how it is judged.

They lie beside the project, in `../shared/data`, or where EDGECHOIR_DATA says; where they are
missing nothing is measured.
"""

import importlib.util
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

import numpy as np

from bench.arena import Rows
from edgechoir.bundle.manifest import Targets
from edgechoir.types import Floats

ROOT: Final = Path(__file__).resolve().parent.parent
DATA: Final = Path(os.environ.get("EDGECHOIR_DATA", ROOT.parent / "shared" / "data"))
Outputs = Callable[[Floats], Floats]
"""Raw samples x -> the model's outputs [n, outputs]."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`devices` hold training rows alone; `score` judges a model on the test rows."""

    name: str
    model: Path
    devices: Mapping[str, Rows]
    score: Callable[[Outputs], float]
    metric: str
    higher_is_better: bool
    parents: Mapping[str, str] | None = None


def available() -> bool:
    """Are the sets there?"""
    return (DATA / "load.py").is_file()


def problem(name: str) -> Problem:
    """One of PROBLEMS. Raises KeyError."""
    return PROBLEMS[name](_loader())


def _loader() -> ModuleType:
    spec = importlib.util.spec_from_file_location("load", DATA / "load.py")
    if spec is None or spec.loader is None:
        raise FileNotFoundError(DATA / "load.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def standard(train: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of each column [d] over the rows [n, d]."""
    mean, std = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    return mean.astype(np.float32), np.where(std > 1e-6, std, 1.0).astype(np.float32)


def _model(name: str) -> Path:
    return ROOT / "models" / name / "model.py"


def _each(client: np.ndarray, x: Floats, y: Targets) -> dict[str, Rows]:
    return {f"dev-{c:03d}": Rows(x[client == c], y[client == c]) for c in np.unique(client)}


def _accuracy(x: Floats, y: Targets) -> Callable[[Outputs], float]:
    return lambda outputs: float((outputs(x).argmax(1) == y).mean())


def heart(load: ModuleType) -> Problem:
    """Four hospitals; the mean of their accuracies."""
    d = load.load("fed_heart_disease")
    train, y = d["split"] == 0, d["y"].astype(np.int64)
    mean, std = standard(d["x"][train])
    x = ((d["x"] - mean) / std).astype(np.float32)
    sites = [(x[m], y[m]) for c in range(4) if (m := ~train & (d["client"] == c)).any()]
    return Problem(
        "heart",
        _model("heart"),
        _each(d["client"][train], x[train], y[train]),
        lambda outputs: float(np.mean([_accuracy(*site)(outputs) for site in sites])),
        "mean accuracy of 4 hospitals",
        higher_is_better=True,
    )


def _har(load: ModuleType) -> tuple[Floats, Targets, np.ndarray, np.ndarray]:
    w = load.har_windows(load.load("hapt_har"))
    x, train = load.har_features(w["x"]), w["split"] == 0
    mean, std = standard(x[train])
    return ((x - mean) / std).astype(np.float32), w["y"], w["client"], train


def har(load: ModuleType) -> Problem:
    """21 persons; accuracy on the windows of nine others."""
    x, y, client, train = _har(load)
    devices = _each(client[train], x[train], y[train])
    score = _accuracy(x[~train], y[~train])
    return Problem("har", _model("har"), devices, score, "accuracy, 9 unseen persons", True)


def har_two(load: ModuleType) -> Problem:
    """The same, with two of the six activities for each person, drawn by a fixed seed."""
    x, y, client, train = _har(load)
    numbers = np.random.default_rng(0)
    keep = np.zeros(len(y), bool)
    for c in np.unique(client[train]):
        chosen = numbers.choice(6, 2, replace=False)
        keep |= train & (client == c) & np.isin(y, chosen)
    devices = _each(client[keep], x[keep], y[keep])
    score = _accuracy(x[~train], y[~train])
    return Problem("har-two", _model("har"), devices, score, "accuracy, 9 unseen persons", True)


def turbofan(load: ModuleType) -> Problem:
    """100 single-engine devices under ten nodes; RMSE in cycles on 100 other engines."""
    w = load.cmapss_windows(load.load("cmapss_fd001"))
    train, test = w["train"], w["test"]
    mean, std = standard(train["x"].reshape(-1, 14))
    flat = {k: ((w[k]["x"] - mean) / std).reshape(len(w[k]["x"]), -1) for k in ("train", "test")}
    target = (train["y"] / 125)[:, None]
    devices = _each(train["client"], flat["train"].astype(np.float32), target.astype(np.float32))
    parents = {name: f"node-{i // 10}" for i, name in enumerate(sorted(devices))}
    return Problem(
        "turbofan",
        _model("turbofan"),
        devices,
        lambda outputs: rmse(np.clip(outputs(flat["test"])[:, 0] * 125, 0, 125), test["y"]),
        "RMSE in cycles",
        False,
        parents,
    )


def air(load: ModuleType) -> Problem:
    """12 stations; RMSE in ug/m3 over the test year of all."""
    w = load.beijing_forecast(load.load("beijing_air"))
    train, test = w["train"], w["test"]
    mean, std = standard(train["x"])
    y_mean, y_std = float(train["y"].mean()), float(train["y"].std())
    x = ((train["x"] - mean) / std).astype(np.float32)
    x_test = ((test["x"] - mean) / std).astype(np.float32)
    devices = _each(train["client"], x, ((train["y"] - y_mean) / y_std)[:, None])
    return Problem(
        "air",
        _model("air"),
        devices,
        lambda outputs: rmse(outputs(x_test)[:, 0] * y_std + y_mean, test["y"]),
        "RMSE in ug/m3",
        False,
    )


def mnist(load: ModuleType) -> Problem:
    """20 devices with skewed labels; accuracy on 2,000 rows."""
    d = load.load("mnist_t10k")
    x, y = d["x"].reshape(-1, 784).astype(np.float32), d["y"].astype(np.int64)
    train = d["split"] == 0
    devices = _each(d["client"][train], x[train], y[train])
    score = _accuracy(x[~train], y[~train])
    return Problem("mnist", _model("mnist"), devices, score, "accuracy on 2,000 rows", True)


def rmse(found: Floats, true: Floats) -> float:
    """Root of the mean square error."""
    return float(np.sqrt(np.mean((found - true) ** 2, dtype=np.float64)))


PROBLEMS: Final[dict[str, Callable[[ModuleType], Problem]]] = {
    "heart": heart,
    "har": har,
    "har-two": har_two,
    "turbofan": turbofan,
    "air": air,
    "mnist": mnist,
}
