"""Rules from the cloud's configuration to two real devices and back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.identity.envelope import Verifier
from edgechoir.learning.task import read_task
from edgechoir.monitor.records import Metrics

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation

    from edgechoir.config.tiers import DeviceConfig

pytestmark = pytest.mark.torch
TREE_S = 60.0


def pictures(path: Path, labels: tuple[int, ...], seed: int) -> Path:
    """Eighty pictures of some classes, alike in all files: a centre for each class, and noise."""
    centres = np.random.default_rng(1).uniform(0, 16, (10, 64))
    chance = np.random.default_rng(seed)
    y = chance.choice(labels, 80)
    x = (centres[y] + chance.normal(0, 1.5, (80, 64))).clip(0, 16).astype(np.float32)
    np.savez(path, x=x, y=y)
    return path


def devices(federation: Federation) -> list[DeviceConfig]:
    """Two that hold different classes."""
    halves = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
    return [
        federation.device(
            f"dev-{i}",
            sensor={
                "source": "replay",
                "path": str(pictures(federation.folder / f"{i}.npz", labels, i)),
                "rate_hz": 2000.0,
            },
            training={"min_samples": 80, "idle_timeout_s": 60.0},
        )
        for i, labels in enumerate(halves, 1)
    ]


async def run(
    federation: Federation, rounds: int, **values: Any
) -> tuple[list[Metrics], list[wire.Plan]]:
    """The rounds of a whole run under these sections of the cloud, and the plans a device saw."""
    cloud = federation.cloud(2, rounds, deadline=30.0, **values)
    members = devices(federation)
    async with (
        federation.running() as running,
        federation.overheard("dev-1", "edgechoir/v1/alps/cloud/cloud/down/dev-1") as heard,
    ):
        running.start("cloud", federation.aggregator(cloud))
        for config in members:
            running.start(str(config.member), federation.run_device(config))
        await running.seen.until(lambda seen: any(m.final for m in seen.rounds), TREE_S, "the end")
        assert running.status("cloud").drops == {}
        assert running.status("dev-1").drops == {}
        done = running.done
    root = federation.voice("cloud", "cloud").member.root
    verifier = Verifier(root, "alps", 1 << 24)
    calls = [verifier.open(blob, time.time()) for blob in heard]
    plans = [
        wire.decode_as(wire.Plan, wire.decode_as(wire.Call, call.body).plan)
        for call in calls
        if call.kind == wire.Call.KIND
    ]
    return done, plans


def test_local_options_and_the_schedule_reach_the_devices(federation: Federation) -> None:
    training = {
        "epochs": 5,
        "learning_rate": 0.1,
        "momentum": 0.5,
        "weight_decay": 0.001,
        "max_gradient_norm": 5.0,
        "schedule": "step",
        "decay": 0.5,
        "decay_every": 2,
    }
    rule = {"name": "fedprox", "mu": 0.1}
    done, plans = asyncio.run(
        run(federation, 5, training=training, rule=rule, update={"max_norm": 3.0})
    )
    assert read_task(plans[0].task).options == {
        "momentum": 0.5,
        "weight_decay": 0.001,
        "max_gradient_norm": 5.0,
        "proximal": 0.1,
        "max_norm": 3.0,
    }
    rates = [plan.learning_rate for plan in plans]
    assert sorted(set(rates), reverse=True) == pytest.approx([0.1, 0.05, 0.025])
    losses = [metrics.loss for metrics in done if metrics.loss is not None]
    assert losses[-1] < 0.8 * losses[0]
