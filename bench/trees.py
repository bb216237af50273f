"""Federated trees on real data, through the whole protocol, against scikit-learn on pooled rows."""

import tempfile
import time
from pathlib import Path
from typing import Final

import numpy as np

from bench.arena import Arena, Rows
from bench.figures import Figure
from bench.problems import DATA, available, rmse
from bench.problems import _loader as loader
from edgechoir.bundle.trees import build_trees
from edgechoir.learning.rules.trees import Trees
from edgechoir.rounds.schedule import Course
from edgechoir.tiers.trees import layout_of
from edgechoir.types import Floats

HEART: Final = (60, 3)
AIR: Final = (100, 5)
"""Trees, and their depth."""
EVERY: Final = 4
"""Every so many hours of a station are trained on, by both."""


def measure() -> list[Figure]:
    """Nothing without the data."""
    if not available():
        print(f"no data in {DATA}: trees are not measured")
        return []
    return [*heart(), *air()]


def heart() -> list[Figure]:
    """Mean accuracy of four hospitals."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    d = loader().load("fed_heart_disease")
    train, y, x = d["split"] == 0, d["y"].astype(np.int64), d["x"].astype(np.float32)
    sites = [~train & (d["client"] == c) for c in range(4)]
    rows = {
        f"dev-{c}": Rows(x[m], y[m]) for c in range(4) if (m := train & (d["client"] == c)).any()
    }
    arena, seconds = _grow("classification", ("none", "disease"), rows, HEART)
    said = arena.sees(x).argmax(1)
    pooled = HistGradientBoostingClassifier(random_state=0).fit(x[train], y[train]).predict(x)
    found, reference = (
        float(np.mean([(s[m] == y[m]).mean() for m in sites])) for s in (said, pooled)
    )
    return [
        Figure("trees, heart: accuracy, mean of 4", found, "", "pooled scikit-learn", reference),
        Figure("  a round", seconds / len(arena.results), "s"),
    ]


def air() -> list[Figure]:
    """RMSE of the next hour's PM2.5 over 12 stations."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    module = loader()
    w = module.beijing_forecast(module.load("beijing_air"))
    train, test = w["train"], w["test"]
    rows: dict[str, Rows] = {}
    for c in np.unique(train["client"]):
        m = np.flatnonzero(train["client"] == c)[::EVERY]
        rows[f"dev-{c:02}"] = Rows(train["x"][m], train["y"][m][:, None].astype(np.float32))
    arena, seconds = _grow("regression", ("pm25",), rows, AIR)
    x = np.concatenate([r.x for r in rows.values()])
    y = np.concatenate([r.y for r in rows.values()])[:, 0]
    pooled = HistGradientBoostingRegressor(random_state=0, early_stopping=False).fit(x, y)
    found = rmse(arena.sees(test["x"])[:, 0], test["y"])
    reference = rmse(pooled.predict(test["x"]), test["y"])
    return [
        Figure("trees, air: RMSE in ug/m3", found, "", "pooled scikit-learn", reference),
        Figure("  a round", seconds / len(arena.results), "s"),
    ]


class _Grown(Arena):
    """An arena whose model is a forest."""

    def sees(self, x: Floats) -> Floats:
        """The forest's outputs [n, k]."""
        layout = layout_of(self.bundle.manifest)
        return layout.sees(self.state.weights, x).astype(np.float32)


def _grow(
    task: str, outputs: tuple[str, ...], rows: dict[str, Rows], size: tuple[int, int]
) -> tuple[_Grown, float]:
    columns = next(iter(rows.values())).x.shape[1]
    with tempfile.TemporaryDirectory() as folder:
        regression = task == "regression"
        bundle = build_trees(
            Path(folder) / "trees",
            "trees",
            "regression" if regression else "classification",
            columns,
            outputs,
            *size,
        )
    rule = Trees().of(layout_of(bundle.manifest))
    arena = _Grown(bundle, rows, Course(rounds=1_000_000), rule)
    began = time.perf_counter()
    while not arena.schedule.finished:
        arena.run(1)
    return arena, time.perf_counter() - began
