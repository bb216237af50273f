"""Devices with a model of their own: beside the global one, or in its place."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.errors import OperatorError
from edgechoir.learning.rules.ditto import DITTO
from edgechoir.store.vectors import KeptVectors
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.distil import OWN, read_shared
from edgechoir.tiers.ditto import ANSWERS, answering, keep_own

if TYPE_CHECKING:
    from pathlib import Path

    from tests.tiers.conftest import Federation, Running

    from edgechoir.config.tiers import DeviceConfig
    from edgechoir.types import Floats

TREE_S = 60.0
SMALL = """\
from torch import nn

META = {
    "name": "small",
    "task": "classification",
    "input": [64],
    "outputs": [str(i) for i in range(10)],
    "scale": 0.0625,
}


def model() -> nn.Module:
    return nn.Linear(64, 10)
"""
CENTRES = np.random.default_rng(1).uniform(0, 16, (10, 64))


def pictures(seed: int, labels: tuple[int, ...], n: int = 80) -> tuple[Floats, Any]:
    chance = np.random.default_rng(seed)
    y = chance.choice(labels, n)
    return (CENTRES[y] + chance.normal(0, 1.5, (n, 64))).clip(0, 16).astype(np.float32), y


def device(federation: Federation, i: int, x: Floats, y: Any, **values: Any) -> DeviceConfig:
    path = federation.folder / f"{i}.npz"
    np.savez(path, x=x, y=y)
    training = {"min_samples": len(x), **values.pop("training", {})}
    sensor = {"source": "replay", "path": str(path), "rate_hz": 2000.0}
    return federation.device(f"dev-{i}", sensor=sensor, training=training, **values)


async def ended(running: Running) -> None:
    await running.seen.until(lambda seen: any(m.final for m in seen.rounds), TREE_S, "the end")


def answers(bundle: Any, w: Floats, x: Floats) -> Any:
    from edgechoir.training.fit import predict

    return predict(bundle, w, x).argmax(1)


@pytest.mark.torch
def test_two_models_of_different_shape_learn_each_others_classes(federation: Federation) -> None:
    """Each device has half of the classes; of the others it hears through the teacher alone."""
    from edgechoir.bundle.build import build_bundle

    (federation.folder / "small.py").write_text(SMALL)
    small = federation.folder / "small"
    build_bundle(federation.folder / "small.py", small)
    shared = federation.folder / "shared.npz"
    np.savez(shared, x=pictures(9, tuple(range(10)), 200)[0])
    halves = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
    bundles = (federation.bundle, small)

    async def trial() -> None:
        cloud = federation.cloud(
            2,
            rounds=8,
            deadline=30.0,
            training={"epochs": 10, "learning_rate": 0.1},
            rule={"name": "distil", "shared": str(shared), "weight": 2.0},
            update={"clip": 30.0},
        )
        members = [
            device(
                federation,
                i,
                *pictures(i, labels),
                model={"bundle": str(bundle)},
                training={"shared": str(shared)},
            )
            for i, (labels, bundle) in enumerate(zip(halves, bundles, strict=True), 1)
        ]
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await ended(running)
            assert [metrics.outcome for metrics in running.seen.rounds] == ["done"] * 8
            await running.until(
                lambda seen: all(
                    (model := seen.statuses[f"dev-{i}"].model) is not None and model.version == 8
                    for i in (1, 2)
                ),
                "the last teacher on both",
            )
            for i in (1, 2):
                status = running.status(f"dev-{i}")
                assert status.drops == {}
                assert status.inference is not None
                assert status.inference.own

    asyncio.run(trial())
    with closing(ModelVersions(federation.folder / "cloud" / "state" / "models.db")) as versions:
        latest = versions.latest()
        assert latest is not None
        assert len(latest.params) == 200 * 10, "what travels is what is said of the shared set"
    for i, path in enumerate(bundles, 1):
        bundle = load_bundle(path)
        with closing(KeptVectors(federation.folder / f"dev-{i}" / "state" / "kept.db")) as kept:
            found = kept.get(OWN)
        assert found is not None
        own, x_y = found[0], pictures(20 + i, halves[2 - i], 200)
        foreign = (answers(bundle, own, x_y[0]) == x_y[1]).mean()
        assert foreign > 0.6, f"device {i} knows classes that it has no rows of: {foreign}"


@pytest.mark.torch
def test_under_ditto_a_device_unlike_the_others_answers_with_its_own_model(
    federation: Federation,
) -> None:
    """It calls the classes by other numbers, which no global model can make right for both."""

    async def trial() -> None:
        cloud = federation.cloud(
            2,
            rounds=6,
            deadline=30.0,
            training={"epochs": 10, "learning_rate": 0.1},
            rule={"name": "ditto", "pull": 0.01},
        )
        x, y = pictures(1, tuple(range(10)))
        other_x, other_y = pictures(2, tuple(range(10)))
        members = [device(federation, 1, x, y), device(federation, 2, other_x, 9 - other_y)]
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await ended(running)
            await running.until(
                lambda seen: all(
                    (at := seen.statuses[f"dev-{i}"].inference) is not None and at.own
                    for i in (1, 2)
                ),
                "own models answering",
            )
            await running.stop("dev-2")
            running.start("dev-2", federation.run_device(members[1]))
            await running.until(
                lambda seen: (at := seen.statuses["dev-2"].inference) is not None and at.own,
                "its own model after a restart",
            )

    asyncio.run(trial())
    bundle = load_bundle(federation.bundle)
    x, y = pictures(30, tuple(range(10)), 200)
    with closing(KeptVectors(federation.folder / "dev-2" / "state" / "kept.db")) as kept:
        own = answering(kept, bundle.manifest.size)
    assert own is not None
    with closing(ModelVersions(federation.folder / "cloud" / "state" / "models.db")) as versions:
        latest = versions.latest()
        assert latest is not None
    right = [(answers(bundle, w, x) == 9 - y).mean() for w in (own, latest.params)]
    assert right[0] > right[1] + 0.1


def test_the_own_model_answers_again_only_if_it_did_and_fits(tmp_path: Path) -> None:
    v = np.ones(3, np.float32)
    with closing(KeptVectors(tmp_path / "kept.db")) as kept:
        assert answering(kept, 3) is None
        keep_own(kept, v, True, 1)
        assert answering(kept, 4) is None
        found = answering(kept, 3)
        assert found is not None
        assert np.array_equal(found, v)
        keep_own(kept, v, False, 2)
        assert answering(kept, 3) is None
        assert kept.get(DITTO) is not None
        assert kept.get(ANSWERS) is None


@pytest.mark.parametrize(
    ("x", "expected"),
    [
        (np.zeros((3, 5)), r"shape \(3, 5\), expected 1 or more finite samples of \(4,\)"),
        (np.zeros((0, 4)), r"shape \(0, 4\)"),
        (np.full((2, 4), np.nan), "finite"),
    ],
)
def test_a_shared_set_that_does_not_fit_is_explained(tmp_path: Path, x: Any, expected: str) -> None:
    np.savez(tmp_path / "s.npz", x=x)
    with pytest.raises(OperatorError, match=expected):
        read_shared(tmp_path / "s.npz", (4,))


def test_a_file_that_is_no_shared_set_is_explained(tmp_path: Path) -> None:
    (tmp_path / "s.npz").write_text("x")
    with pytest.raises(OperatorError, match="no NPZ file with an array x"):
        read_shared(tmp_path / "s.npz", (4,))
