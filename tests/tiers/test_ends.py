"""How runs of real devices end: at an error, with the best version, after a divergence."""

from __future__ import annotations

import asyncio
import math
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.tiers.aggregator_process import versions_of

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation, Running

    from edgechoir.config.tiers import DeviceConfig

pytestmark = pytest.mark.torch
TREE_S = 60.0
LINE = """\
from torch import nn

META = {"name": "line", "task": "regression", "input": [3], "outputs": ["y"], "loss": "huber"}


def model() -> nn.Module:
    return nn.Linear(3, 1)
"""


def device(federation: Federation, i: int, x: Any, y: Any) -> DeviceConfig:
    path = federation.folder / f"{i}.npz"
    np.savez(path, x=x.astype(np.float32), y=y)
    return federation.device(
        f"dev-{i}",
        sensor={"source": "replay", "path": str(path), "rate_hz": 2000.0},
        training={"min_samples": len(x)},
    )


def pictures(federation: Federation) -> list[DeviceConfig]:
    """Two devices with the same classes."""
    centres = np.random.default_rng(1).uniform(0, 16, (10, 64))
    configs = []
    for i in (1, 2):
        chance = np.random.default_rng(i)
        y = chance.integers(0, 10, 80)
        configs.append(device(federation, i, centres[y] + chance.normal(0, 1.5, (80, 64)), y))
    return configs


async def ended(running: Running) -> None:
    await running.seen.until(lambda seen: any(m.final for m in seen.rounds), TREE_S, "the end")


async def holding(running: Running, version: int) -> None:
    await running.until(
        lambda seen: all(
            (model := seen.statuses[name].model) is not None and model.version == version
            for name in ("dev-1", "dev-2")
        ),
        f"version {version} on both devices",
    )


def test_a_regression_reports_its_rmse_and_ends_at_its_target(federation: Federation) -> None:
    """Trained with the Huber loss, measured by the squared error."""
    from edgechoir.bundle.build import build_bundle

    (federation.folder / "line.py").write_text(LINE)
    build_bundle(federation.folder / "line.py", federation.folder / "line")
    federation.bundle = federation.folder / "line"

    async def trial() -> None:
        members = []
        for i in (1, 2):
            chance = np.random.default_rng(i)
            x = chance.normal(0, 1, (100, 3))
            y = x @ [3.0, -2.0, 1.0] + 4.0 + chance.normal(0, 0.1, 100)
            members.append(device(federation, i, x, y))
        cloud = federation.cloud(
            2,
            rounds=60,
            deadline=30.0,
            ends={"target_rmse": 0.5},
            training={"epochs": 5, "learning_rate": 0.1},
            update={"clip": 5.0},
        )
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await ended(running)
            first, last = running.done[0], running.done[-1]
            assert first.rmse is not None
            assert last.rmse is not None
            assert first.rmse > 3 > 0.5 >= last.rmse
            assert all(each.accuracy is None for each in running.done)
            assert last.loss is not None
            assert last.rmse == pytest.approx(math.sqrt(last.loss))
            await running.until(
                lambda seen: (
                    (at := seen.statuses["cloud"].round) is not None
                    and at.phase.startswith("finished: RMSE")
                ),
                "why it is over",
            )
            model = running.status("cloud").model
            assert model is not None
            assert model.rmse == last.rmse
        with closing(versions_of(cloud.state, load_bundle(federation.bundle))) as versions:
            best = versions.best()
            assert best is not None
            assert best.metrics["rmse"] == pytest.approx(last.rmse)

    asyncio.run(trial())


def test_the_best_version_is_released_and_its_measures_are_kept(federation: Federation) -> None:
    async def trial() -> None:
        cloud = federation.cloud(
            2,
            rounds=3,
            deadline=30.0,
            ends={"release": "best"},
            training={"epochs": 5, "learning_rate": 0.1},
        )
        members = pictures(federation)
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await ended(running)
            await holding(running, 4)
        with closing(versions_of(cloud.state, load_bundle(federation.bundle))) as versions:
            history = {version: figures for version, figures, _ in versions.history()}
            assert sorted(history) == [0, 1, 2, 3]
            best = versions.best()
            assert best is not None
            assert best.metrics["accuracy"] == max(each["accuracy"] for each in history.values())
            released = versions.get(4)
            assert released is not None
            assert released.digest in {
                kept.digest
                for version, figures in history.items()
                if figures["accuracy"] == best.metrics["accuracy"]
                and (kept := versions.get(version)) is not None
            }

    asyncio.run(trial())


def test_a_run_that_diverges_is_noticed_and_goes_back(
    federation: Federation, tmp_path: Path
) -> None:
    async def trial() -> None:
        cloud = federation.cloud(
            2,
            deadline=30.0,
            training={"epochs": 5, "learning_rate": 0.1},
            rule={"name": "fedavg", "rate": 100.0},
        )
        members = pictures(federation)
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await running.seen.until(
                lambda seen: any(m.outcome == "diverged" for m in seen.rounds), TREE_S, "diverged"
            )
            (bad, *_) = [m for m in running.seen.rounds if m.outcome == "diverged"]
            assert bad.reason is not None
            assert "going on from version 0" in bad.reason
            assert bad.version is not None
            await running.until(
                lambda seen: (
                    (model := seen.statuses["cloud"].model) is not None
                    and (model.rollbacks or 0) >= 1
                ),
                "the rollback in the status",
            )
            await running.stop("cloud")
        with closing(versions_of(cloud.state, load_bundle(federation.bundle))) as versions:
            back = versions.get(bad.version + 1)
            assert back is not None
            np.testing.assert_array_equal(back.params, federation.first)

    asyncio.run(trial())
