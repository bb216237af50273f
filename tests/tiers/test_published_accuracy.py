"""How the model does is shown for a cohort, and for a device only where its owner says so."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir.errors import ConfigError
from edgechoir.learning.fixed_point import Figures
from edgechoir.monitor.records import Metrics
from edgechoir.store.rounds import NAME, RoundHistory

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation

    from edgechoir.config.tiers import DeviceConfig

TREE_S = 60.0


def device(federation: Federation, name: str, publish: bool) -> DeviceConfig:
    numbers = np.random.default_rng(7)
    path: Path = federation.folder / f"{name}.npz"
    np.savez(
        path, x=numbers.uniform(0, 16, (80, 64)).astype(np.float32), y=numbers.integers(0, 10, 80)
    )
    return federation.device(
        name,
        sensor={"source": "replay", "path": str(path), "rate_hz": 2000.0},
        training={"min_samples": 80, "idle_timeout_s": 60.0, "publish_accuracy": publish},
    )


def test_a_node_shows_its_cohort_and_the_cloud_keeps_every_round(federation: Federation) -> None:
    async def trial() -> None:
        cloud = federation.cloud(2, 3)
        async with federation.running() as running:
            learners = [federation.learner(f"dev-{i}", "node-1") for i in (1, 2, 3)]
            learners.append(federation.learner("dev-4", "cloud"))
            for learner, right in zip(learners, (10, 10, 7, 1), strict=True):
                learner.figures = Figures(10, right, 5.0)
            running.start("cloud", federation.aggregator(cloud))
            running.start("node-1", federation.aggregator(federation.node("node-1", 3)))
            for learner in learners:
                running.start(str(learner.config.member), learner.run(federation.open_link))
            await running.until(lambda seen: any(m.final for m in seen.rounds), "the end")
            await running.until(
                lambda seen: all(
                    (model := seen.statuses[name].model) is not None
                    and model.measured_in == running.done[-1].round
                    for name in ("cloud", "node-1")
                ),
                "the figures of the last round",
            )
            node, root = running.status("node-1").model, running.status("cloud").model
            assert node is not None
            assert root is not None
            assert node.accuracy == pytest.approx(0.9)
            assert root.accuracy == pytest.approx(0.7)
            assert node.loss == pytest.approx(0.5, abs=1e-3)
            published = running.seen.rounds
        with closing(RoundHistory(cloud.state / NAME)) as history:
            kept = [Metrics.from_json(document) for document in history.rounds()]
            (settings,) = map(json.loads, history.settings())
        assert kept == published
        assert [metrics.rule for metrics in kept] == ["fedavg"] * 3
        assert settings["rule"] == {"name": "fedavg", "rate": 1.0}
        assert settings["model"]["name"] == "digits"

    asyncio.run(trial())


@pytest.mark.torch
def test_a_device_shows_its_own_accuracy_only_where_its_owner_says_so(
    federation: Federation,
) -> None:
    async def trial() -> None:
        members = [device(federation, "dev-1", True), device(federation, "dev-2", False)]
        async with federation.running() as running:
            federation.start(running, federation.cloud(2, 2, deadline=30.0), members)
            await running.seen.until(
                lambda seen: (
                    all(
                        (model := seen.statuses[name].model) is not None and model.version == 2
                        for name in ("dev-1", "dev-2")
                        if name in seen.statuses
                    )
                    and any(m.final for m in seen.rounds)
                ),
                TREE_S,
                "the last version on both",
            )
            open_, quiet = running.status("dev-1").model, running.status("dev-2").model
            assert open_ is not None
            assert open_.accuracy is not None
            assert open_.measured_in == running.done[-1].round
            assert quiet is not None
            assert (quiet.accuracy, quiet.loss, quiet.measured_in) == (None, None, None)

    asyncio.run(trial())


@pytest.mark.torch
def test_in_a_round_with_noise_no_device_shows_its_accuracy(federation: Federation) -> None:
    async def trial() -> None:
        members = [device(federation, f"dev-{i}", True) for i in (1, 2)]
        cloud = federation.cloud(2, 2, deadline=30.0, privacy={"noise": 1.0})
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await running.seen.until(
                lambda seen: all(
                    name in seen.statuses
                    and (model := seen.statuses[name].model) is not None
                    and model.version == 2
                    for name in ("dev-1", "dev-2")
                ),
                TREE_S,
                "the last version on both",
            )
            for name in ("dev-1", "dev-2"):
                model = running.status(name).model
                assert model is not None
                assert (model.accuracy, model.loss) == (None, None)
            assert [metrics.epsilon is not None for metrics in running.done] == [True, True]

    asyncio.run(trial())


def test_an_owner_cannot_ask_for_both_example_level_privacy_and_its_accuracy_shown(
    federation: Federation,
) -> None:
    with pytest.raises(ConfigError, match=r"gives away what privacy\.example_clip protects"):
        federation.device(
            "dev-1", training={"publish_accuracy": True}, privacy={"example_clip": 1.0}
        )
