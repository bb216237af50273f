"""Statistics of a federation whose devices are the real ones, with their stores and trainers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir.bundle.build import build_bundle
from edgechoir.config.sections import CloudTraining
from edgechoir.errors import OperatorError
from edgechoir.store.samples import SampleStore
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.models import latest

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation

    from edgechoir.config.tiers import DeviceConfig

HEART = Path(__file__).parents[2] / "models" / "heart" / "model.py"


def patient_devices(federation: Federation, count: int) -> list[DeviceConfig]:
    """Devices with forty rows each in odd units, the label in the first column."""
    chance = np.random.default_rng(1)
    configs = []
    for i in range(count):
        y = chance.integers(0, 2, 40)
        x = chance.normal(size=(40, 13)) * np.geomspace(1e-3, 1e3, 13) + 100.0 * i
        x[:, 0] = 1e-3 * y
        path = federation.folder / f"patients-{i}.npz"
        np.savez(path, x=x.astype(np.float32), y=y)
        config = federation.device(
            f"dev-{i}",
            sensor={"source": "replay", "path": str(path), "rate_hz": 400.0},
            training={"min_samples": 40},
        )
        configs.append(config)
    return configs


def stored(federation: Federation, name: str, held_out: bool = False) -> np.ndarray:
    store = SampleStore(federation.folder / name / "state" / "samples.db", (13,))
    x, _ = store.hold_out_arrays() if held_out else store.training_arrays()
    store.close()
    return x


@pytest.mark.torch
def test_devices_train_and_answer_with_mean_and_deviation_of_all_their_rows(
    federation: Federation, tmp_path: Path
) -> None:
    async def trial() -> None:
        build_bundle(HEART, tmp_path / "heart")
        federation.bundle = tmp_path / "heart"
        cloud = federation.cloud(children=2)
        cloud = cloud.model_copy(
            update={"training": CloudTraining(normalise=True, learning_rate=0.5, epochs=5)}
        )
        devices = patient_devices(federation, 2)
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(cloud))
            for config in devices:
                running.start(str(config.member), federation.run_device(config))
            await running.rounds(4)
            for name in ("dev-0", "dev-1", "cloud"):
                await running.stop(name)
            # The label stands in a column of a thousandth's size: only normalised it is learnt.
            assert running.done[-1].accuracy is not None
            assert running.done[-1].accuracy > 0.9
        x = np.concatenate([stored(federation, "dev-0"), stored(federation, "dev-1")])
        for name in ("cloud", "dev-0", "dev-1"):
            versions = ModelVersions(federation.folder / name / "state" / "models.db")
            held = latest(versions)
            versions.close()
            assert held is not None
            assert held.aux["mean"] == pytest.approx(x.mean(0, np.float64), rel=1e-4, abs=1e-3)
            assert held.aux["scale"] == pytest.approx(1 / x.std(0, dtype=np.float64), rel=1e-2)

    asyncio.run(trial())


def test_a_bundle_that_scales_its_samples_itself_is_not_normalised_again(
    federation: Federation,
) -> None:
    cloud = federation.cloud(children=2)  # of the digits, which are scaled by 1/16
    cloud = cloud.model_copy(update={"training": CloudTraining(normalise=True)})
    with pytest.raises(OperatorError, match=r"training\.normalise"):
        asyncio.run(federation.aggregator(cloud))
