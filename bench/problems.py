"""The real federated data sets as problems: whose rows, which model, and how it is judged.

They lie beside the project, in `../shared/data`, or where EDGECHOIR_DATA says; where they are
missing nothing is measured.
"""

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
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
    normalise: bool = True
    kept_back: str = "rows"
    """What a choice of settings is judged on: every fifth of each device's "rows", the last fifth
    of them ("tail"), or every fourth of the "devices", where rows of one device are alike."""


def available() -> bool:
    """Are the sets there?"""
    return (DATA / "load.py").is_file()


def missing() -> bool:
    """Are they not? Then say where they are looked for."""
    if available():
        return False
    print(f"no data sets in {DATA}: set EDGECHOIR_DATA to where they are", file=sys.stderr)
    return True


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


def _model(name: str) -> Path:
    return ROOT / "models" / name / "model.py"


def _each(client: np.ndarray, x: Floats, y: Targets) -> dict[str, Rows]:
    return {f"dev-{c:03d}": Rows(x[client == c], y[client == c]) for c in np.unique(client)}


def for_choosing(whole: Problem) -> Problem:
    """The same problem with training rows kept back in the place of the test rows."""
    names = sorted(whole.devices)
    if whole.kept_back == "devices":
        judged = {name: whole.devices[name] for name in names[::4]}
        devices = {name: whole.devices[name] for name in names if name not in judged}
    else:
        judged, devices = {}, {}
        for name, rows in whole.devices.items():
            at = np.arange(len(rows.x))
            back = at % 5 == 4 if whole.kept_back == "rows" else at >= 0.8 * len(at)
            judged[name] = Rows(rows.x[back], rows.y[back])
            devices[name] = Rows(rows.x[~back], rows.y[~back])
    return replace(
        whole, devices=devices, score=lambda outputs: _judge(outputs, list(judged.values()))
    )


def _judge(outputs: Outputs, judged: list[Rows]) -> float:
    """Accuracy (of few devices the mean of theirs), or RMSE in units of the target."""
    if judged[0].y.ndim == 1:
        shares = [float((outputs(rows.x).argmax(1) == rows.y).mean()) for rows in judged]
        sizes = [len(rows.y) if len(judged) > 4 else 1 for rows in judged]
        return float(np.average(shares, weights=sizes))
    x, y = (np.concatenate([getattr(rows, name) for rows in judged]) for name in "xy")
    return rmse(outputs(x), y)


def _accuracy(x: Floats, y: Targets) -> Callable[[Outputs], float]:
    return lambda outputs: float((outputs(x).argmax(1) == y).mean())


def heart(load: ModuleType) -> Problem:
    """Four hospitals; the mean of their accuracies."""
    d = load.load("fed_heart_disease")
    train, y = d["split"] == 0, d["y"].astype(np.int64)
    x = d["x"].astype(np.float32)
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
    x = load.har_features(w["x"]).astype(np.float32)
    return x, w["y"], w["client"], w["split"] == 0


def har(load: ModuleType) -> Problem:
    """21 persons; accuracy on the windows of nine others."""
    x, y, client, train = _har(load)
    devices = _each(client[train], x[train], y[train])
    score = _accuracy(x[~train], y[~train])
    return _persons("har", devices, score)


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
    return _persons("har-two", devices, score)


def _persons(name: str, devices: Mapping[str, Rows], score: Callable[[Outputs], float]) -> Problem:
    words = "accuracy, 9 unseen persons"
    return Problem(name, _model("har"), devices, score, words, True, kept_back="devices")


def turbofan(load: ModuleType) -> Problem:
    """100 single-engine devices under ten nodes; RMSE in cycles on 100 other engines."""
    w = load.cmapss_windows(load.load("cmapss_fd001"))
    train, test = w["train"], w["test"]
    flat = {k: w[k]["x"].reshape(len(w[k]["x"]), -1).astype(np.float32) for k in w}
    target = (train["y"] / 125)[:, None]
    devices = _each(train["client"], flat["train"], target.astype(np.float32))
    parents = {name: f"node-{i // 10}" for i, name in enumerate(sorted(devices))}
    return Problem(
        "turbofan",
        _model("turbofan"),
        devices,
        lambda outputs: rmse(np.clip(outputs(flat["test"])[:, 0] * 125, 0, 125), test["y"]),
        "RMSE in cycles",
        False,
        parents,
        kept_back="devices",
    )


def air(load: ModuleType) -> Problem:
    """12 stations; RMSE in ug/m3 over the test year of all."""
    w = load.beijing_forecast(load.load("beijing_air"))
    train, test = w["train"], w["test"]
    target = (train["y"] / 100).astype(np.float32)
    devices = _each(train["client"], train["x"], target[:, None])
    return Problem(
        "air",
        _model("air"),
        devices,
        lambda outputs: rmse(outputs(test["x"])[:, 0] * 100, test["y"]),
        "RMSE in ug/m3",
        False,
        kept_back="tail",
    )


def mnist(load: ModuleType) -> Problem:
    """20 devices with skewed labels; accuracy on 2,000 rows."""
    d = load.load("mnist_t10k")
    x, y = d["x"].reshape(-1, 784).astype(np.float32), d["y"].astype(np.int64)
    train = d["split"] == 0
    devices = _each(d["client"][train], x[train], y[train])
    score = _accuracy(x[~train], y[~train])
    words = "accuracy on 2,000 rows"
    return Problem("mnist", _model("mnist"), devices, score, words, True, normalise=False)


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
