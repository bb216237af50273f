"""Personal layers learn on each device and are seen by nobody else."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.load import Bundle
from edgechoir.bundle.personal import split
from edgechoir.store.vectors import KeptVectors
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.personal import PersonalLayers
from edgechoir.types import Floats

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation, Running

pytest.importorskip("torch", reason="training needs the extra 'train'")
pytestmark = pytest.mark.torch

MODEL = Path(__file__).parents[1] / "bundle" / "models" / "personal.py"
DEVICES = ("dev-1", "dev-2")


def kept(state: Path, bundle: Bundle) -> Floats:
    with closing(KeptVectors(state / "kept.db")) as vectors:
        return PersonalLayers(bundle, vectors).own


async def swaps(running: Running, name: str, count: int) -> None:
    await running.until(
        lambda seen: (
            (status := seen.statuses.get(name)) is not None
            and (inference := status.inference) is not None
            and (inference.swaps or 0) >= count
        ),
        f"{count} exchanges at {name}",
    )


def test_personal_layers_stay_on_their_device_and_outlast_it(
    federation: Federation, tmp_path: Path
) -> None:
    bundle = build_bundle(MODEL, tmp_path / "bundle")
    federation.bundle = tmp_path / "bundle"
    shared, first = split(bundle.manifest, bundle.params)
    configs = {}
    for seed, name in enumerate(DEVICES):
        chance = np.random.default_rng(seed)
        x = chance.normal(size=(60, 6)).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", x=x, y=(x[:, seed] > 0).astype(np.int64))
        configs[name] = federation.device(
            name,
            sensor={"source": "replay", "path": str(tmp_path / f"{name}.npz"), "rate_hz": 200.0},
            training={"min_samples": 40},
        )

    async def trial() -> None:
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(federation.cloud(2, rounds=3)))
            for name, config in configs.items():
                running.start(name, federation.run_device(config))
            await running.rounds(3)
            for name in DEVICES:
                await swaps(running, name, 5)
            for name in ("cloud", *DEVICES):
                await running.stop(name)
            mine = [kept(configs[name].state, bundle) for name in DEVICES]
            for layers in mine:
                assert layers.shape == first.shape
                assert not np.array_equal(layers, first)
            assert not np.array_equal(mine[0], mine[1])
            # What the cloud has, and all there ever was on the wire, is the shared part.
            versions = ModelVersions(federation.folder / "cloud" / "state" / "models.db")
            model = versions.latest()
            versions.close()
            assert model is not None
            assert model.params.shape == shared.shape
            assert not np.array_equal(model.params, shared)

            # It starts again with its layers, and a newer global model leaves them alone.
            before = running.status("dev-1")
            running.start("dev-1", federation.run_device(configs["dev-1"]))
            await running.until(
                lambda seen: seen.statuses["dev-1"].instance != before.instance, "the new process"
            )
            cloud = federation.voice("cloud", "cloud")
            newer = federation.model(model.version + 1, model.params * 2)
            await cloud.say("model", "", cloud.sign(newer), retain=True)
            await swaps(running, "dev-1", 1)
            await running.stop("dev-1")
            assert np.array_equal(kept(configs["dev-1"].state, bundle), mine[0])

    asyncio.run(trial())
