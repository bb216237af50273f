"""Statistics of a federation whose devices are the real ones, with their stores and trainers."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.trees import build_trees
from edgechoir.config.rules import TreesRule
from edgechoir.config.training import CloudTraining
from edgechoir.errors import Malformed, OperatorError
from edgechoir.fleet.audit_check import records
from edgechoir.store.samples import SampleStore
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.consent import approve, read_asked, withdraw
from edgechoir.tiers.local_calls import request
from edgechoir.tiers.models import latest

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation

    from edgechoir.config.tiers import DeviceConfig

WAIT_S = 30.0
NAMES = ("dev-0", "dev-1", "dev-2")
HEART = Path(__file__).parents[2] / "models" / "heart" / "model.py"


def patient_devices(federation: Federation, count: int) -> list[DeviceConfig]:
    """Devices with forty rows each in odd units, the label in the first column."""
    chance = np.random.default_rng(1)
    configs = []
    for i in range(count):
        y = chance.integers(0, 2, 40)
        x = chance.normal(size=(40, 13)) * np.geomspace(1e-3, 1e3, 13) + 100.0 * i
        x[:, 0] = 1e-3 * y
        x[::7, 5] = np.nan  # a sensor with gaps
        path = federation.folder / f"patients-{i}.npz"
        np.savez(path, x=x.astype(np.float32), y=y)
        config = federation.device(
            f"dev-{i}",
            sensor={
                "source": "replay",
                "path": str(path),
                "rate_hz": 400.0,
                "check": {"missing": "keep"},
            },
            training={"min_samples": 40},
        )
        configs.append(config)
    return configs


def stored(federation: Federation, name: str, held_out: bool = False) -> np.ndarray:
    path = federation.folder / name / "state" / "samples.db"
    store = SampleStore(path, (13,), gaps=True)
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
        cloud = federation.cloud(children=3)
        cloud = cloud.model_copy(
            update={"training": CloudTraining(normalise=True, learning_rate=0.5, epochs=5)}
        )
        devices = patient_devices(federation, 3)
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(cloud))
            for config in devices:
                running.start(str(config.member), federation.run_device(config))
            await running.rounds(4)
            for name in (*NAMES, "cloud"):
                await running.stop(name)
            # The label stands in a column of a thousandth's size: only normalised it is learnt.
            assert running.done[-1].accuracy is not None
            assert running.done[-1].accuracy > 0.9
        x = np.concatenate([stored(federation, name) for name in NAMES])
        for name in (*NAMES, "cloud"):
            versions = ModelVersions(federation.folder / name / "state" / "models.db")
            held = latest(versions)
            versions.close()
            assert held is not None
            assert held.aux["mean"] == pytest.approx(
                np.nanmean(x, 0, np.float64), rel=1e-4, abs=1e-3
            )
            assert held.aux["scale"] == pytest.approx(1 / np.nanstd(x, 0, np.float64), rel=1e-2)

    asyncio.run(trial())


def test_a_bundle_that_scales_its_samples_itself_is_not_normalised_again(
    federation: Federation,
) -> None:
    cloud = federation.cloud(children=2)  # of the digits, which are scaled by 1/16
    cloud = cloud.model_copy(update={"training": CloudTraining(normalise=True)})
    with pytest.raises(OperatorError, match=r"training\.normalise"):
        asyncio.run(federation.aggregator(cloud))


@pytest.mark.torch
def test_queries_are_answered_after_training_and_owners_decide(
    federation: Federation, tmp_path: Path
) -> None:
    async def trial() -> None:
        build_bundle(HEART, tmp_path / "heart")
        federation.bundle = tmp_path / "heart"
        cloud = federation.cloud(children=3, rounds=1)
        cloud = cloud.model_copy(update={"training": CloudTraining(normalise=True)})
        said: list[str] = []

        async def query(kind: str, **options: object) -> dict[str, Any]:
            document = {"do": "query", "kind": kind, **options}
            return await asyncio.to_thread(request, cloud.state, document, WAIT_S, said.append)

        async with federation.running() as running:
            running.start("cloud", federation.aggregator(cloud))
            for config in patient_devices(federation, 3):
                running.start(str(config.member), federation.run_device(config))
            await running.rounds(1)

            # What takes part in training agrees to is answered at once.
            mean = await query("mean")
            rows = [stored(federation, n, h) for n in NAMES for h in (False, True)]
            x = np.concatenate(rows).astype(np.float64)
            assert (mean["samples"], mean["devices"]) == (120, 3)
            assert [c["mean"] for c in mean["columns"]] == pytest.approx(
                np.nanmean(x, 0), rel=1e-4, abs=1e-3
            )
            missing = [c["missing"] for c in mean["columns"]]
            assert missing == pytest.approx(np.isnan(x).mean(0), abs=1e-4)
            assert said[0].startswith("round 1: spread")
            found = await query("evaluate", source="stored")
            assert 0 <= found["accuracy"] <= 1
            assert np.sum(found["confusion"]) == pytest.approx(1)

            # The rest waits for the owners, who see it and say yes.
            with pytest.raises(OperatorError, match="has not approved histogram"):
                await query("counts")
            states = [federation.folder / name / "state" for name in NAMES]
            for state in states:
                (asked,) = [q for q in read_asked(state).questions if q.kind == "histogram"]
                assert asked.decision == "declined"
                approve(state, asked.hash[:12])
            counts = await query("counts")
            assert sum(c["rows"] for c in counts["classes"]) == 120

            # Another task has another hash, and what happens now needs a yes of its own.
            with pytest.raises(OperatorError, match="has not approved histogram"):
                await query("histogram", bins=7)
            with pytest.raises(OperatorError, match="has not approved recent"):
                await query("mean", source="recent")

            # Withdrawn means withdrawn, without a restart.
            withdraw(states[0], True)
            with pytest.raises(OperatorError, match="2 devices answered"):
                await query("mean")
            withdraw(states[0], False)
            assert (await query("mean"))["devices"] == 3

            with pytest.raises(OperatorError, match="column 13"):
                await query("mean", columns=[13])
            with pytest.raises(OperatorError, match="kind"):
                await query("everything")
            for name in (*NAMES, "cloud"):
                await running.stop(name)
        kinds = [
            line.fields.get("reason")
            for _, _, line in records(states[1] / "audit")
            if not isinstance(line, Malformed) and line.kind == "consent"
        ]
        assert any(reason and "not approved histogram" in reason for reason in kinds)
        asked_of_cloud = [
            line.kind
            for _, _, line in records(cloud.state / "audit")
            if not isinstance(line, Malformed) and line.kind.startswith("query")
        ]
        assert asked_of_cloud.count("query_answered") == 4
        assert asked_of_cloud.count("query_failed") >= 4

    asyncio.run(trial())


@pytest.mark.torch
def test_devices_without_torch_grow_trees_and_answer_with_them(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trial() -> None:
        build_trees(tmp_path / "trees", "heart", "classification", 13, ("none", "disease"), 4, 2)
        federation.bundle = tmp_path / "trees"
        monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed
        cloud = federation.cloud(children=3)
        cloud = cloud.model_copy(update={"rule": TreesRule(rate=0.5, bins=8)})
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(cloud))
            for config in patient_devices(federation, 3):
                running.start(str(config.member), federation.run_device(config))
            await running.rounds(8)
            await running.until(
                lambda seen: all(
                    (model := seen.statuses[name].model) is not None and model.version == 9
                    for name in NAMES
                ),
                "the whole forest on every device",
            )
            status = running.status("cloud").round
            assert status is not None
            assert status.phase == "finished: 4 trees are grown"
            found = await asyncio.to_thread(
                request, cloud.state, {"do": "query", "kind": "evaluate"}, WAIT_S, print
            )
            assert found["accuracy"] == 1  # the label stands in the first column
            for name in (*NAMES, "cloud"):
                await running.stop(name)

    asyncio.run(trial())


def test_a_forest_and_its_rule_go_together(federation: Federation, tmp_path: Path) -> None:
    cloud = federation.cloud(children=2)
    cloud = cloud.model_copy(update={"rule": TreesRule()})
    with pytest.raises(OperatorError, match="is no forest"):
        asyncio.run(federation.aggregator(cloud))
