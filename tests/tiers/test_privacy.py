"""Client-level privacy from the cloud's configuration to two devices that keep their account."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir.learning.privacy.budget import epsilon

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation, Running

    from edgechoir.config.tiers import DeviceConfig
    from edgechoir.monitor.status import PrivacyStatus

pytestmark = pytest.mark.torch
TREE_S = 60.0


def device(federation: Federation, name: str, **privacy: Any) -> DeviceConfig:
    """One with eighty labelled pictures, whose owner insists on what is given."""
    numbers = np.random.default_rng(7)
    path: Path = federation.folder / f"{name}.npz"
    np.savez(
        path, x=numbers.uniform(0, 16, (80, 64)).astype(np.float32), y=numbers.integers(0, 10, 80)
    )
    return federation.device(
        name,
        sensor={"source": "replay", "path": str(path), "rate_hz": 2000.0},
        training={"min_samples": 80, "idle_timeout_s": 60.0},
        privacy=privacy,
    )


def account_of(running: Running, name: str) -> PrivacyStatus:
    """What a member says of its privacy."""
    account = running.status(name).privacy
    assert account is not None
    return account


async def accounted(running: Running, name: str, rounds: int) -> PrivacyStatus:
    """The same, once it counts so many rounds."""
    await running.seen.until(
        lambda _: account_of(running, name).rounds == rounds, TREE_S, f"the account of {name}"
    )
    return account_of(running, name)


def test_the_run_ends_at_the_cap_and_each_device_has_counted_the_same(
    federation: Federation,
) -> None:
    async def trial() -> None:
        privacy = {"noise": 1.0, "bound": 1.0, "max_epsilon": 9.0}
        cloud = federation.cloud(2, 1000, deadline=30.0, privacy=privacy)
        careful = {"require": True, "max_epsilon": 100.0}
        members = [device(federation, "dev-1", **careful), device(federation, "dev-2")]
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await running.seen.until(
                lambda seen: any(m.final for m in seen.rounds), TREE_S, "the end"
            )
            rounds = len(running.done)
            assert epsilon(rounds / 2, 1e-5) <= 9.0 < epsilon((rounds + 1) / 2, 1e-5)
            assert running.status("cloud").drops == {}
            for name in ("cloud", "dev-1", "dev-2"):
                account = await accounted(running, name, rounds)
                spent = account.epsilon
                assert spent == pytest.approx(epsilon(rounds / 2, 1e-5), rel=1e-3)

    asyncio.run(trial())


def test_a_device_whose_owner_requires_noise_says_no_to_a_round_without(
    federation: Federation,
) -> None:
    async def trial() -> None:
        cloud = federation.cloud(2, 1000, deadline=30.0)
        careful = {"require": True, "max_epsilon": 100.0}
        members = [device(federation, "dev-1", **careful), device(federation, "dev-2")]
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await running.seen.until(
                lambda seen: any("without noise" in (m.reason or "") for m in seen.rounds),
                TREE_S,
                "the refusal",
            )
            account = account_of(running, "dev-1")
            assert (account.required, account.rounds) == (True, 0)

    asyncio.run(trial())


def test_a_device_at_its_own_cap_takes_no_part_any_more(federation: Federation) -> None:
    async def trial() -> None:
        cloud = federation.cloud(2, 1000, deadline=30.0, privacy={"noise": 1.0})
        members = [device(federation, "dev-1", max_epsilon=7.0), device(federation, "dev-2")]
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await running.seen.until(
                lambda seen: any("owner allows 7" in (m.reason or "") for m in seen.rounds),
                TREE_S,
                "the refusal",
            )
            account = await accounted(running, "dev-1", 1)
            assert account.epsilon is not None
            assert 0 < account.epsilon <= 7.0

    asyncio.run(trial())


def test_a_device_that_trains_with_dp_sgd_counts_its_rows_and_stops_at_its_cap(
    federation: Federation,
) -> None:
    pytest.importorskip("dp_accounting", reason="dp-accounting is not installed")

    async def trial() -> None:
        cloud = federation.cloud(2, 1000, deadline=30.0)
        careful = {"example_clip": 1.0, "example_noise": 1.5, "example_max_epsilon": 12.0}
        members = [device(federation, "dev-1", **careful), device(federation, "dev-2")]
        async with federation.running() as running:
            federation.start(running, cloud, members)
            await running.seen.until(
                lambda seen: any("owner allows 12" in (m.reason or "") for m in seen.rounds),
                TREE_S,
                "the refusal",
            )
            assert any(m.outcome == "done" for m in running.done)
            spent = account_of(running, "dev-1").example_epsilon
            assert spent is not None
            assert 0 < spent <= 12.0
            assert account_of(running, "dev-2").example_epsilon is None

    asyncio.run(trial())
