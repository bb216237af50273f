"""A device by itself: it answers from the first sample on, whatever becomes of the rest."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.errors import OperatorError
from edgechoir.inference.of_bundle import predictor_of
from edgechoir.monitor.records import PredictionRecord
from edgechoir.monitor.status import InferenceStatus
from edgechoir.store.cipher import RowCipher, load_key
from edgechoir.store.samples import SampleStore
from edgechoir.types import Floats

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation, Running

    from edgechoir.config.tiers import DeviceConfig


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    """Forty random pictures with labels."""
    chance = np.random.default_rng(1)
    path = tmp_path / "samples.npz"
    x = chance.uniform(0, 16, (40, 64)).astype(np.float32)
    np.savez(path, x=x, y=chance.integers(0, 10, 40))
    return path


@pytest.fixture
def config(federation: Federation, samples: Path) -> DeviceConfig:
    """A device that answers 200 samples a second and does not train."""
    return federation.device(
        "dev-1",
        sensor={"source": "replay", "path": str(samples), "rate_hz": 200.0},
        training={"enabled": False},
    )


def inference(running: Running) -> InferenceStatus:
    status = running.status("dev-1").inference
    assert status is not None
    return status


async def version(running: Running, wanted: int) -> None:
    await running.until(
        lambda seen: (
            (model := seen.statuses["dev-1"].model) is not None and model.version == wanted
        ),
        f"version {wanted}",
    )


async def answering(running: Running, count: int) -> None:
    """Wait until so many samples have been answered."""
    await running.until(
        lambda seen: "dev-1" in seen.statuses and inference(running).answered >= count,
        f"{count} answers",
    )


def test_a_device_without_torch_answers_and_takes_no_part(
    federation: Federation, samples: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)  # as where it is not installed

    async def trial() -> None:
        federation.identity("cloud", "cloud")
        config = federation.device(
            "dev-1",
            sensor={"source": "replay", "path": str(samples), "rate_hz": 200.0},
            training={"min_samples": 10},
        )
        async with (
            federation.running() as running,
            federation.overheard("cloud", "edgechoir/v1/alps/+/+/up/cloud") as heard,
        ):
            running.start("dev-1", federation.run_device(config))
            await answering(running, 100)
            status = running.status("dev-1")
            assert status.training is not None
            assert (status.training.available, status.training.state) == (False, "off")
            assert status.round is not None
            assert status.round.phase == "idle"
            assert inference(running).missed == 0
            assert heard == []

    asyncio.run(trial())


def nan_at(weights: Floats, at: int) -> Floats:
    out = weights.copy()
    out[at] = np.nan
    return out


def test_a_good_model_is_exchanged_and_a_bad_one_leaves_the_live_one(
    federation: Federation, config: DeviceConfig
) -> None:
    async def trial() -> None:
        cloud, device = federation.voice("cloud", "cloud"), federation.voice("device", "dev-9")
        good, first = federation.model, federation.first
        async with federation.running() as running:
            running.start("dev-1", federation.run_device(config))
            await answering(running, 1)
            await cloud.say("model", "", cloud.sign(good(0, first * 0.5)), retain=True)
            await running.until(lambda _: inference(running).swaps == 1, "the first model")
            await cloud.say("model", "", cloud.sign(good(1, first * 2)), retain=True)
            await version(running, 1)
            sha256 = running.status("dev-1").model
            for data in (
                cloud.sign(good(2, digest=bytes(32))),
                cloud.sign(good(2, nan_at(first, 5))),
                cloud.sign(good(2, first[:-1])),
                cloud.sign(good(2, np.full_like(first, 3e38))),  # finite, its answers are not
                cloud.sign(good(0)),
                cloud.sign(good(1, first * 3)),
                device.sign(good(2)),
            ):
                await cloud.say("model", "", data, retain=True)
            await running.dropped("dev-1", "bad_model", 5)
            await running.dropped("dev-1", "replayed", 2)
            assert running.status("dev-1").model == sha256
            assert running.status("dev-1").drops == {"bad_model": 5, "replayed": 2}
            assert inference(running).swaps == 2

            await cloud.say("model", "", cloud.sign(good(2, first * 2)), retain=True)
            await version(running, 2)
            assert (inference(running).swaps, inference(running).missed) == (3, 0)

    asyncio.run(trial())


def test_a_first_model_of_another_shape_than_the_bundle_is_refused(
    federation: Federation, config: DeviceConfig
) -> None:
    async def trial() -> None:
        cloud = federation.voice("cloud", "cloud")
        async with federation.running() as running:
            running.start("dev-1", federation.run_device(config))
            await answering(running, 1)
            model = federation.model(0, np.zeros(7, np.float32))
            await cloud.say("model", "", cloud.sign(model))
            await running.dropped("dev-1", "bad_model")
            assert inference(running).swaps == 0

    asyncio.run(trial())


def test_a_device_starts_again_with_the_model_that_it_had(
    federation: Federation, config: DeviceConfig
) -> None:
    async def trial() -> None:
        cloud = federation.voice("cloud", "cloud")
        async with federation.running() as running:
            running.start("dev-1", federation.run_device(config))
            await answering(running, 1)
            await cloud.say("model", "", cloud.sign(federation.model(4)))
            await version(running, 4)
            before = running.status("dev-1")
            await running.stop("dev-1")
            running.start("dev-1", federation.run_device(config))
            await running.until(
                lambda seen: seen.statuses["dev-1"].instance != before.instance, "the new process"
            )
            assert running.status("dev-1").model == before.model
            await cloud.say("model", "", cloud.sign(federation.model(3)))
            await running.dropped("dev-1", "replayed")

    asyncio.run(trial())


def test_a_model_that_cannot_be_kept_is_used_all_the_same(
    federation: Federation, config: DeviceConfig, caplog: pytest.LogCaptureFixture
) -> None:
    async def trial() -> None:
        cloud = federation.voice("cloud", "cloud")
        async with federation.running() as running:
            running.start("dev-1", federation.run_device(config))
            await answering(running, 1)
            with closing(sqlite3.connect(config.state / "models.db")) as database:
                database.execute("BEGIN IMMEDIATE")  # as unwritable as a full disk
                await cloud.say("model", "", cloud.sign(federation.model(4)))
                await version(running, 4)
            assert inference(running).missed == 0

    asyncio.run(trial())
    assert "model version 4 cannot be kept" in caplog.text


def test_answers_are_published_at_the_rate_allowed_and_without_the_sample(
    federation: Federation, samples: Path
) -> None:
    async def trial() -> None:
        config = federation.device(
            "dev-1",
            sensor={"source": "replay", "path": str(samples), "rate_hz": 400.0},
            training={"enabled": False},
            predictions={"max_rate_hz": 20.0},
        )
        async with (
            federation.running() as running,
            federation.broker.link("eye#predictions") as link,
        ):
            await link.subscribe("edgechoir/v1/alps/device/dev-1/predictions")
            running.start("dev-1", federation.run_device(config))
            records: list[PredictionRecord] = []
            async with asyncio.timeout(20):
                async for message in link.messages():
                    assert len(message.payload) < 400
                    records.append(PredictionRecord.from_json(message.payload))
                    if len(records) == 10:
                        break
            assert all(record.member == "dev-1" and record.label is not None for record in records)
            assert all(0 < (record.confidence or 0) <= 1 for record in records)
            # Ten answers at 20 a second; one came at once.
            assert records[-1].at - records[0].at > 0.4
            await answering(running, 100)

    asyncio.run(trial())


def test_answers_go_on_while_the_broker_is_away(
    federation: Federation, config: DeviceConfig
) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            running.start("dev-1", federation.run_device(config))
            await answering(running, 20)
            before = inference(running)
            federation.cut("dev-1")
            await running.until(lambda seen: seen.statuses["dev-1"].inference is None, "the will")
            federation.mend("dev-1")
            await running.until(
                lambda seen: seen.statuses["dev-1"].inference is not None, "it being back"
            )
            assert inference(running).answered > before.answered
            assert inference(running).missed == 0
            broker = running.status("dev-1").broker
            assert broker is not None
            assert broker.reconnects == 1

    asyncio.run(trial())


@pytest.mark.torch
@pytest.mark.parametrize("rate", [1000.0, 20.0])
def test_a_device_ends_with_its_source_though_it_never_had_enough_to_train(
    federation: Federation, samples: Path, rate: float
) -> None:
    """At the high rate before it has said that it is there, at the low one after."""

    async def trial() -> None:
        config = federation.device(
            "dev-1",
            sensor={"source": "replay", "path": str(samples), "rate_hz": rate, "loop": False},
            training={"min_samples": 1000},
        )
        await asyncio.wait_for(federation.run_device(config), 20)

    asyncio.run(trial())


def test_samples_out_of_range_are_counted_and_not_stored(
    federation: Federation, samples: Path
) -> None:
    async def trial() -> None:
        with np.load(samples) as arrays:
            x, y = arrays["x"].copy(), arrays["y"]
        x[:10, 3] = 99.0
        x[10:15, 3] = np.nan
        np.savez(samples, x=x, y=y)
        config = federation.device(
            "dev-1",
            sensor={
                "source": "replay",
                "path": str(samples),
                "rate_hz": 400.0,
                "check": {"min": 0.0, "max": 16.0},
            },
            training={"enabled": False},
        )
        async with federation.running() as running:
            running.start("dev-1", federation.run_device(config))
            await answering(running, 100)
            assert inference(running).missed >= 15
            await running.stop("dev-1")
        store = SampleStore(federation.folder / "dev-1" / "state" / "samples.db", (64,))
        rows = [*store.training_arrays()[0], *store.hold_out_arrays()[0]]
        store.close()
        assert len(rows) == 25  # each once, though the replay came round several times
        assert np.max(rows) <= 16

    asyncio.run(trial())


@pytest.mark.torch
def test_samples_that_come_again_do_not_make_enough_to_train_on(
    federation: Federation, samples: Path
) -> None:
    """Of two devices with forty samples each, only the one that asks for forty takes part."""

    async def trial() -> None:
        federation.identity("cloud", "cloud")
        async with federation.running() as running:
            for name, enough in (("dev-1", 41), ("dev-2", 40)):
                config = federation.device(
                    name,
                    sensor={"source": "replay", "path": str(samples), "rate_hz": 400.0},
                    training={"min_samples": enough},
                )
                running.start(name, federation.run_device(config))
            await answering(running, 100)  # the replay has come round twice
            await running.until(
                lambda seen: (
                    "dev-2" in seen.statuses
                    and (at := seen.statuses["dev-2"].round) is not None
                    and at.phase == "joining"
                ),
                "dev-2 joining",
            )
            at = running.status("dev-1").round
            assert at is not None
            assert at.phase == "idle"

    asyncio.run(trial())


def test_a_model_that_does_much_worse_here_is_held_but_does_not_answer(
    federation: Federation, tmp_path: Path
) -> None:
    chance = np.random.default_rng(1)
    x = chance.uniform(0, 16, (400, 64)).astype(np.float32)
    bundle = load_bundle(federation.bundle)
    labels = [p.label for p in predictor_of(bundle).predict_batch(x)]
    path = tmp_path / "right.npz"
    np.savez(path, x=x, y=np.array(labels))
    config = federation.device(
        "dev-1",
        sensor={"source": "replay", "path": str(path), "rate_hz": 2000.0},
        training={"enabled": False},
    )

    async def trial() -> None:
        cloud = federation.voice("cloud", "cloud")
        async with federation.running() as running:
            running.start("dev-1", federation.run_device(config))
            await answering(running, 800)  # all are stored: a replay keeps each sample once
            await cloud.say("model", "", cloud.sign(federation.model(1, -bundle.params)))
            await version(running, 1)
            seen = inference(running)
            assert (seen.held_back, seen.swaps, seen.version) == (1, 0, 0)
            # One that is as good as ever takes its turn.
            await cloud.say("model", "", cloud.sign(federation.model(2, bundle.params)))
            await version(running, 2)
            seen = inference(running)
            assert (seen.held_back, seen.swaps, seen.version) == (1, 1, 2)

    asyncio.run(trial())


def test_samples_can_be_encrypted_under_a_key_beside_the_identity(
    federation: Federation, samples: Path
) -> None:
    config = federation.device(
        "dev-1",
        sensor={
            "source": "replay",
            "path": str(samples),
            "rate_hz": 400.0,
            "store": {"encrypt": True, "balanced": True, "keep": "reservoir", "rows": 30},
        },
        training={"enabled": False},
    )
    key = config.identity / "samples.key"

    async def trial() -> None:
        async with federation.running() as running:
            running.start("dev-1", federation.run_device(config))
            await running.until(
                lambda seen: (
                    "dev-1" in seen.statuses
                    and (training := seen.statuses["dev-1"].training) is not None
                    and training.samples == 30
                ),
                "thirty samples kept",
            )
            await running.stop("dev-1")

    try:
        asyncio.run(trial())
        cipher = RowCipher(load_key(key, make=False))
        store = SampleStore(config.state / "samples.db", (64,), cipher=cipher)
        kept = len(store.training_arrays()[0]) + len(store.hold_out_arrays()[0])
        store.close()
        assert kept == 30
        key.rename(key.with_name("elsewhere"))
        with pytest.raises(OperatorError, match="put the key back"):
            asyncio.run(federation.run_device(config))
    finally:
        key.unlink(missing_ok=True)  # the identity is that of other tests too
        key.with_name("elsewhere").unlink(missing_ok=True)
