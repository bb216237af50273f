"""Trials run on a live federation, the best is found, and the run goes back to where it was."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir.errors import OperatorError
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.state import State
from edgechoir.monitor.records import Metrics
from edgechoir.store.rounds import NAME as ROUNDS
from edgechoir.store.rounds import RoundHistory
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.base import NAME, recover, save_base
from edgechoir.tiers.local_calls import request
from edgechoir.tiers.models import ROUNDS_DONE, memory_of
from edgechoir.tiers.tuning import Candidate, grid_of, with_settings

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation, Learner, Running

    from edgechoir.config.tiers import CloudConfig

GRID = [
    {"name": "off", "rule": {"name": "fedavg", "rate": 0.1}},
    {"name": "right", "rule": {"name": "fedavg", "rate": 1.0}, "training": {"momentum": 0.5}},
]


def start(federation: Federation, running: Running, cloud: CloudConfig) -> list[Learner]:
    """A cloud over two learners that count their rows right the better, the nearer the model's
    first weight is to 0.2 above where it began."""
    learners = [federation.learner(f"dev-{i}", delta=0.1) for i in (1, 2)]
    for learner in learners:
        exchange = learner.exchange

        def judged(model: Any, one: Learner = learner, inner: Any = exchange) -> None:
            inner(model)
            if one.held is not None:
                gone = float(one.held.weights[0] - federation.first[0])
                one.figures = Figures(100, round(100 * (1 - min(abs(0.2 - gone), 1))), 50.0)

        learner.exchange = judged  # type: ignore[method-assign]
    running.start("cloud", federation.aggregator(cloud))
    for learner in learners:
        running.start(str(learner.config.member), learner.run(federation.open_link))
    return learners


def ask(cloud: CloudConfig, lines: list[str], **wanted: Any) -> dict[str, Any]:
    return request(cloud.state, {"do": "tune", **wanted}, 60.0, lines.append)


def test_the_setting_that_does_best_is_chosen_and_the_run_is_as_before(
    federation: Federation,
) -> None:
    lines: list[str] = []

    async def trial() -> None:
        cloud = federation.cloud(2, 1)
        async with federation.running() as running:
            learners = start(federation, running, cloud)
            await running.until(lambda seen: any(m.final for m in seen.rounds), "the end")
            before = federation.first + np.float32(0.1)
            found = await asyncio.to_thread(ask, cloud, lines, rounds=1, trials=GRID)
            assert [row["name"] for row in found["trials"]] == ["right", "off"]
            assert found["rule"] == {"name": "fedavg", "rate": 1.0}
            assert found["training"]["momentum"] == 0.5
            assert found["trials"][0]["accuracy"] == pytest.approx(1.0)
            # The first version, that of the run, two of each trial with its start, and the base.
            for learner in learners:
                await learner.until(lambda one=learner: one.versions[-1] == 8)  # type: ignore[misc]
                assert learner.held is not None
                np.testing.assert_allclose(learner.held.weights, before, atol=1e-5)
            tried = [m for m in running.seen.rounds if m.trial]
            assert [m.trial for m in tried] == ["off", "off", "right", "right"]
        assert not (cloud.state / NAME).exists()
        with closing(ModelVersions(cloud.state / "models.db")) as versions:
            assert [version for version, _, _ in versions.history()] == [0]
            assert memory_of(versions)[ROUNDS_DONE].tolist() == [1.0]
        with closing(RoundHistory(cloud.state / ROUNDS)) as history:
            kept = [Metrics.from_json(document).trial for document in history.rounds()]
        assert kept == [None, "off", "off", "right", "right"]

    asyncio.run(trial())
    assert lines[0] == "2 settings, 4 rounds in all"
    assert any("right: accuracy" in line for line in lines)


def test_whoever_goes_away_leaves_the_run_as_it_was(federation: Federation) -> None:
    async def trial() -> None:
        cloud = federation.cloud(2, 1)
        async with federation.running() as running:
            learners = start(federation, running, cloud)
            await running.until(lambda seen: any(m.final for m in seen.rounds), "the end")
            reader, writer = await asyncio.open_unix_connection(cloud.state / "control")
            writer.write(b'{"do":"tune","rounds":1000}\n')
            await reader.readline()
            await running.until(lambda seen: any(m.trial for m in seen.rounds), "a trial")
            writer.close()
            for learner in learners:
                await learner.until(
                    lambda one=learner: (  # type: ignore[misc]
                        one.held is not None
                        and one.held.version > 2
                        and np.allclose(one.held.weights, federation.first + 0.1, atol=1e-5)
                    )
                )
            await running.until(
                lambda _: (
                    (at := running.status("cloud").round) is not None
                    and at.phase == "finished: 1 rounds done"
                ),
                "the end again",
            )

    asyncio.run(trial())


def test_what_cannot_be_tried_is_refused_before_anything_changes(federation: Federation) -> None:
    async def trial() -> None:
        cloud = federation.cloud(2, 1)
        async with federation.running() as running:
            start(federation, running, cloud)
            await running.until(lambda seen: any(m.final for m in seen.rounds), "the end")
            for trials, words in (
                ([{"rule": {"name": "scaffold"}}], "would not begin alike"),
                ([{"rule": {"name": "nothing"}}], "rule"),
                ([{"training": {"learning_rate": -1.0}}], "training.learning_rate"),
            ):
                with pytest.raises(OperatorError, match=words):
                    await asyncio.to_thread(ask, cloud, [], trials=trials)
            assert not any(m.trial for m in running.seen.rounds)

    asyncio.run(trial())


def test_the_default_grid_fits_every_configuration(federation: Federation) -> None:
    cloud = federation.cloud(
        2, 30, training={"learning_rate": 8.0, "schedule": "cosine"}, ends={"patience": 3}
    )
    candidates = grid_of(cloud)
    assert len({candidate.title() for candidate in candidates}) == len(candidates)
    for candidate in candidates:
        tried = with_settings(cloud, candidate)
        assert tried.training.schedule == "cosine"
        assert tried.rounds.patience is None
    assert with_settings(cloud, Candidate()).rule == cloud.rule


def test_a_process_that_ended_in_a_trial_goes_back_at_its_next_start(tmp_path: Path) -> None:
    base = State(np.arange(3, dtype=np.float32), {"mean": np.ones(2, np.float32)})
    save_base(
        tmp_path,
        base,
        {"privacy": np.array([1.5, 0.25], np.float32), ROUNDS_DONE: np.array([7], np.float32)},
    )
    with closing(ModelVersions(tmp_path / "models.db")) as versions:
        versions.put(
            4, np.zeros(3, np.float32), {}, 1.0, {"rule:privacy": np.array([9, 3], np.float32)}
        )
        recover(tmp_path, versions)
        newest = versions.latest()
        assert newest is not None
        assert newest.version == 5
        assert newest.params.tolist() == [0.0, 1.0, 2.0]
        assert newest.extra["mean"].tolist() == [1.0, 1.0]
        assert memory_of(versions)["privacy"].tolist() == [1.5, 3.0]
        assert memory_of(versions)[ROUNDS_DONE].tolist() == [7.0]
        recover(tmp_path, versions)
        assert versions.versions() == [4, 5]


def test_a_damaged_base_is_said_and_kept(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"nothing of the kind")
    with closing(ModelVersions(tmp_path / "models.db")) as versions:
        with pytest.raises(OperatorError, match="before `edgechoir tune`"):
            recover(tmp_path, versions)
        assert versions.versions() == []
    assert (tmp_path / NAME).exists()
