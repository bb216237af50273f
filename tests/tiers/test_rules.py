"""Rules from the cloud's configuration to two real devices and back."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.identity.envelope import Verifier
from edgechoir.learning.rules.scaffold import CONTROL
from edgechoir.learning.task import read_task
from edgechoir.monitor.records import Metrics
from edgechoir.store.samples import SampleStore
from edgechoir.store.vectors import KeptVectors
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.pending import RESIDUAL, pending, settle

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
        federation.start(running, cloud, members)
        await running.seen.until(lambda seen: any(m.final for m in seen.rounds), TREE_S, "the end")
        await running.until(
            lambda seen: all(
                (model := seen.statuses[str(each.member)].model) is not None
                and model.version == rounds
                for each in members
            ),
            "the last model on both devices",
        )
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


def test_under_scaffold_the_models_control_variate_is_the_mean_of_the_devices(
    federation: Federation,
) -> None:
    """Of those on their disks, weighted by their rows, after some rounds of a real run."""
    training = {"epochs": 5, "learning_rate": 0.1}
    done, _ = asyncio.run(run(federation, 4, training=training, rule={"name": "scaffold"}))
    losses = [metrics.loss for metrics in done if metrics.loss is not None]
    assert losses[-1] < 0.8 * losses[0]
    with closing(ModelVersions(federation.folder / "cloud" / "state" / "models.db")) as versions:
        latest = versions.latest()
        assert latest is not None
        c = latest.extra[CONTROL]
    total, weight, last = np.zeros(len(c)), 0, done[-1].round
    for name in ("dev-1", "dev-2"):
        state = federation.folder / name / "state"
        with closing(SampleStore(state / "samples.db", (64,))) as samples:
            n = len(samples.training_arrays()[0])
        with closing(KeptVectors(state / "kept.db")) as kept:
            own = kept.get(CONTROL)
            assert own is not None
            assert own[1] == last
        total += n * own[0]
        weight += n
    assert np.abs(c).max() > 0.01
    assert np.abs(total / weight - c).max() < 1e-4


def test_fednova_learns_through_the_tiers(federation: Federation) -> None:
    training = {"epochs": 5, "learning_rate": 0.1, "momentum": 0.5}
    rule = {"name": "fednova", "most": 500.0}
    done, _ = asyncio.run(run(federation, 4, training=training, rule=rule))
    losses = [metrics.loss for metrics in done if metrics.loss is not None]
    assert losses[-1] < 0.8 * losses[0]


def test_a_compressed_run_learns_and_keeps_the_rest_on_the_devices(
    federation: Federation,
) -> None:
    """From the cloud's configuration to both disks: 8 bits, rotated, half of the coordinates."""
    update = {
        "ring_bits": 8,
        "clip": 0.5,
        "max_samples": 80,
        "rotate": True,
        "sent_share": 0.5,
        "clipped_share": 0.01,
    }
    training = {"epochs": 5, "learning_rate": 0.05}
    done, plans = asyncio.run(run(federation, 5, training=training, update=update))
    d = len(federation.first)
    assert {(plan.bits, plan.dimension) for plan in plans} == {(8, -(-d // 2))}
    seeds = [read_task(plan.task).options["sketch_seed"] for plan in plans]
    assert len(set(seeds)) == len(done)
    assert min(plan.clip for plan in plans) < max(plan.clip for plan in plans) == 0.5
    losses = [metrics.loss for metrics in done if metrics.loss is not None]
    assert losses[-1] < losses[0]
    for name in ("dev-1", "dev-2"):
        with closing(KeptVectors(federation.folder / name / "state" / "kept.db")) as kept:
            rest = kept.get(RESIDUAL)
            assert rest is not None
            assert len(rest[0]) == d
            assert rest[1] == done[-1].round


VARIATE = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("made_by", "uploaded", "moved_on", "waits"),
    [
        (7, 7, True, False),  # the round that it was sent in made the model
        (8, 7, False, False),  # another did; this device's round was not counted, or unseen
        (7, 6, False, False),  # made without this device, whose work came too late to be sent
        (6, 7, False, True),  # an older model: its own is still to come
    ],
)
def test_a_control_variate_moves_on_only_with_the_model_of_its_round(
    tmp_path: Path, made_by: int, uploaded: int, moved_on: bool, waits: bool
) -> None:
    with closing(KeptVectors(tmp_path / "kept.db")) as kept:
        kept.put(CONTROL, 0 * VARIATE, 5)
        kept.put(pending(CONTROL), VARIATE, 7)
        settle(kept, made_by, uploaded)
        settle(kept, made_by, uploaded)
        own = kept.get(CONTROL)
        assert own is not None
        assert own[1] == (7 if moved_on else 5)
        assert (kept.get(pending(CONTROL)) is not None) is waits
