"""A tree of cloud, node and learners: sums come up, models go down, and each fault has its end."""

from __future__ import annotations

import asyncio
import sqlite3
import struct
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import OperatorError
from edgechoir.monitor.status import MemberState
from edgechoir.store.journal import RoundJournal
from edgechoir.store.versions import ModelVersions
from edgechoir.transport.blobs import DONE_KEPT
from edgechoir.types import Floats

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation, Learner, Running


def start_tree(federation: Federation, running: Running, rounds: int = 1000) -> list[Learner]:
    """A cloud over a node with two learners and over one learner of its own."""
    learners = [
        federation.learner("dev-1", "node-1", delta=0.01, n=10),
        federation.learner("dev-2", "node-1", delta=-0.03, n=30),
        federation.learner("dev-3", "cloud", delta=0.05, n=20),
    ]
    running.start("cloud", federation.aggregator(federation.cloud(2, rounds)))
    running.start("node-1", federation.aggregator(federation.node("node-1", 2)))
    for learner in learners:
        running.start(str(learner.config.member), learner.run(federation.open_link))
    return learners


def start_star(federation: Federation, running: Running, deadline: float = 10.0) -> list[Learner]:
    """A cloud over three learners."""
    learners = [federation.learner(f"dev-{i}") for i in (1, 2, 3)]
    running.start("cloud", federation.aggregator(federation.cloud(3, deadline=deadline)))
    for learner in learners:
        running.start(str(learner.config.member), learner.run(federation.open_link))
    return learners


def test_sums_come_up_a_tree_and_the_model_goes_down_to_everyone(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            learners = start_tree(federation, running, rounds=3)
            await running.until(lambda seen: any(m.final for m in seen.rounds), "the end")
            assert [metrics.devices for metrics in running.done] == [3, 3, 3]
            assert [metrics.samples for metrics in running.done] == [60, 60, 60]
            step = (0.01 * 10 - 0.03 * 30 + 0.05 * 20) / 60
            for learner in learners:
                await learner.until(lambda one=learner: 3 in one.versions)  # type: ignore[misc]
                assert learner.held is not None
                np.testing.assert_allclose(
                    learner.held.weights, federation.first + 3 * step, atol=1e-5
                )
            await running.until(
                lambda seen: all(
                    seen.statuses[name].model is not None and seen.statuses[name].model.version == 3  # type: ignore[union-attr]
                    for name in ("cloud", "node-1")
                ),
                "version 3 in the statuses",
            )
            phase = running.status("cloud").round
            assert phase is not None
            assert phase.phase == "finished: 3 rounds done"
            for name in ("cloud", "node-1", "dev-1", "dev-2", "dev-3"):
                assert running.status(name).drops == {}
        versions = ModelVersions(federation.folder / "node-1" / "state" / "models.db")
        assert 3 in versions.versions()
        versions.close()

    asyncio.run(trial())


def test_every_status_says_who_where_and_how_it_is_going(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            start_tree(federation, running, rounds=2)
            await running.rounds(2)
            await running.until(
                lambda seen: (
                    len(seen.statuses) == 5
                    and (at := seen.statuses["node-1"].round) is not None
                    and at.last_outcome == "done"
                    and at.number >= 2
                ),
                "five statuses",
            )
            node = running.status("node-1")
            assert (node.federation, node.tier, node.parent) == ("alps", "node", "cloud")
            assert node.state is MemberState.ONLINE
            assert node.round is not None
            assert (node.round.members, node.round.epoch) == (2, 1)
            assert node.round.reason is None
            assert running.status("cloud").parent is None
            assert node.health is not None
            assert node.updated >= node.since

    asyncio.run(trial())


def test_every_member_stopped_in_order_says_so(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            start_tree(federation, running)
            await running.rounds(1)
            instance = running.status("node-1").instance
            for name in ("dev-1", "node-1", "cloud"):
                await running.stop(name)
                await running.until(
                    lambda seen, n=name: seen.statuses[n].state is MemberState.STOPPED,  # type: ignore[misc]
                    f"{name} stopped",
                )
            assert running.status("node-1").instance == instance

    asyncio.run(trial())


def test_a_lost_child_is_left_out_of_its_round_and_comes_back(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            learners = start_star(federation, running, deadline=3600.0)
            await running.rounds(1)
            learners[1].idle = True
            before = len(learners[1].asked)
            await learners[1].until(lambda: len(learners[1].asked) > before)
            last = running.done[-1].round
            federation.cut("dev-2")
            await running.rounds(2)
            without = next(metrics for metrics in running.done if metrics.round > last)
            assert (without.devices, without.members, without.round) == (2, 2, last + 1)
            assert running.status("dev-2").state is MemberState.LOST

            learners[1].idle = False
            federation.mend("dev-2")
            await running.until(lambda _: running.done[-1].devices == 3, "dev-2 taking part again")
            assert all(metrics.outcome == "done" for metrics in running.seen.rounds)

    asyncio.run(trial())


def test_a_round_with_too_few_left_fails_by_name_before_its_deadline(
    federation: Federation,
) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(federation.cloud(2, deadline=3600.0)))
            one, two = federation.learner("dev-1"), federation.learner("dev-2")
            running.start("dev-1", one.run(federation.open_link))
            running.start("dev-2", two.run(federation.open_link))
            await running.rounds(1)
            two.idle = True
            before = len(two.asked)
            await two.until(lambda: len(two.asked) > before)
            federation.cut("dev-2")
            await running.until(lambda seen: seen.rounds[-1].outcome == "failed", "a failed round")
            assert "dev-2 was lost" in (running.seen.rounds[-1].reason or "")
            await running.until(
                lambda seen: (
                    (at := seen.statuses["cloud"].round) is not None
                    and at.last_outcome == "failed"
                    and "dev-2 was lost" in (at.reason or "")
                ),
                "the reason in the status",
            )
            two.idle = False
            federation.mend("dev-2")
            await running.rounds(1)
            assert running.done[-1].devices == 2

    asyncio.run(trial())


def test_the_cloud_goes_on_where_its_process_before_stopped(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            learners = start_star(federation, running)
            await running.rounds(2)
            await running.stop("cloud")
            rounds, versions = len(running.done), learners[0].versions[-1]
            last = max(metrics.round for metrics in running.seen.rounds)
            journal = RoundJournal(federation.folder / "cloud" / "state" / "journal.db")
            assert journal.last_round("alps") >= last
            journal.close()
            running.start("cloud", federation.aggregator(federation.cloud(3)))
            await running.rounds(2)
            later = running.done[rounds:]
            assert later[0].round > last
            assert [metrics.devices for metrics in later[:2]] == [3, 3]
            assert all(learner.versions[-1] > versions for learner in learners)
            for learner in learners:
                assert learner.versions == sorted(set(learner.versions))
                name = str(learner.config.member)
                assert running.status(name).drops == {}

    asyncio.run(trial())


def test_a_version_that_the_cloud_cannot_keep_goes_to_nobody(federation: Federation) -> None:
    """A cloud that had forgotten it could never go on: no member takes an older one."""

    async def trial() -> None:
        async with federation.running() as running:
            config = federation.cloud(2)
            cloud = asyncio.create_task(federation.aggregator(config))
            learners = [federation.learner(name) for name in ("dev-1", "dev-2")]
            for learner in learners:
                running.start(str(learner.config.member), learner.run(federation.open_link))
            await running.rounds(1)
            with closing(sqlite3.connect(config.state / "models.db")) as database:
                database.execute("BEGIN IMMEDIATE")  # as unwritable as a full disk
                (kept,) = database.execute("SELECT max(version) FROM versions").fetchone()
                with pytest.raises(OperatorError, match=f"model version {kept + 1} cannot be kept"):
                    await asyncio.wait_for(cloud, 20)
                for learner in learners:
                    assert learner.held is not None
                    assert learner.held.version <= kept

    asyncio.run(trial())


def test_a_bad_cohort_is_left_out_where_the_configuration_says_so(federation: Federation) -> None:
    """Three nodes with two devices each; those of the last send what would throw the model over."""
    deltas = {"node-1": 0.02, "node-2": 0.03, "node-3": -0.9}
    robust: dict[str, object] = {"estimate": "median", "bad_share": 0.3}

    async def trial() -> None:
        async with federation.running() as running:
            cloud = federation.cloud(3, 2, robust=robust)
            running.start("cloud", federation.aggregator(cloud))
            for node, delta in deltas.items():
                running.start(node, federation.aggregator(federation.node(node, 2)))
                for i in (1, 2):
                    learner = federation.learner(f"{node}-{i}", node, delta=delta)
                    running.start(f"{node}-{i}", learner.run(federation.open_link))
            await running.until(lambda seen: any(m.final for m in seen.rounds), "the end")
            assert [metrics.devices for metrics in running.done] == [6, 6]

    asyncio.run(trial())
    with closing(ModelVersions(federation.folder / "cloud" / "state" / "models.db")) as versions:
        latest = versions.latest()
        assert latest is not None
        assert np.abs(latest.params - federation.first - 2 * 0.02).max() < 1e-5


def test_a_node_that_restarts_is_joined_anew_by_its_children(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            start_tree(federation, running)
            await running.rounds(1)
            await running.stop("node-1")
            running.start("node-1", federation.aggregator(federation.node("node-1", 2)))
            await running.until(
                lambda seen: (
                    running.done[-1].devices == 3
                    and (at := seen.statuses["node-1"].round) is not None
                    and at.last_outcome == "done"
                ),
                "all three devices again",
            )

    asyncio.run(trial())


def test_a_whole_fleet_that_restarts_takes_up_its_rounds(federation: Federation) -> None:
    """All forget their epoch but what the journal says, and no pad may be used again."""

    async def trial() -> None:
        async with federation.running() as running:
            start_star(federation, running)
            await running.rounds(1)
            for _ in (1, 2):  # each return of a member begins an epoch
                await running.stop("dev-1")
                running.start("dev-1", federation.learner("dev-1").run(federation.open_link))
                await running.until(
                    lambda seen: seen.statuses["dev-1"].state is MemberState.ONLINE, "dev-1"
                )
                await running.rounds(2)
            await running.until(
                lambda seen: (
                    (at := seen.statuses["cloud"].round) is not None and (at.epoch or 0) > 2
                ),
                "a third epoch",
            )
            names = ("cloud", "dev-1", "dev-2", "dev-3")
            for name in reversed(names):
                await running.stop(name)
            last = max(metrics.round for metrics in running.seen.rounds)
            start_star(federation, running)
            await running.rounds(3)
            assert running.done[-3].round > last
            await running.until(
                lambda seen: all(seen.statuses[n].state is MemberState.ONLINE for n in names),
                "all of them",
            )
            for name in names:
                assert running.status(name).drops == {}

    asyncio.run(trial())


def test_a_device_that_comes_after_the_broker_forgot_everything_takes_part(
    federation: Federation,
) -> None:
    """A broker without persistence comes back empty: what is retained is its owners' to restore."""

    async def trial() -> None:
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(federation.cloud(2)))
            for name in ("dev-1", "dev-2"):
                running.start(name, federation.learner(name).run(federation.open_link))
            await running.rounds(1)
            await running.stop("dev-2")  # no round can be run by one device alone
            for name in ("cloud", "dev-1"):
                federation.cut(name)
            federation.broker.retained.clear()
            for name in ("cloud", "dev-1"):
                federation.mend(name)
            late = federation.learner("dev-3")
            running.start("dev-3", late.run(federation.open_link))
            await late.until(lambda: late.held is not None)
            await running.rounds(2)
            assert running.done[-1].devices == 2

    asyncio.run(trial())


def nan_at(weights: Floats, at: int) -> Floats:
    out = weights.copy()
    out[at] = np.nan
    return out


def test_a_node_refuses_every_bad_model_and_hands_on_none(federation: Federation) -> None:
    async def trial() -> None:
        cloud, node = federation.voice("cloud", "cloud"), federation.voice("node", "node-1")
        good, first = federation.model, federation.first
        async with federation.running() as running:
            running.start("node-1", federation.aggregator(federation.node("node-1", 2)))
            await running.until(lambda seen: "node-1" in seen.statuses, "node-1")
            await cloud.say("model", "", cloud.sign(good(5)), retain=True)
            await running.until(
                lambda seen: (
                    (model := seen.statuses["node-1"].model) is not None and model.version == 5
                ),
                "version 5",
            )
            handed_on = federation.broker.retained["edgechoir/v1/alps/node/node-1/model/0"]
            for data in (
                cloud.sign(good(6, digest=bytes(32))),
                cloud.sign(good(6, nan_at(first, 7))),
                cloud.sign(good(6, first[:-1])),
                cloud.sign(good(4)),
                cloud.sign(good(5, first + 1)),
                node.sign(good(6)),
            ):
                await cloud.say("model", "", data, retain=True)
            await running.dropped("node-1", "bad_model", 4)
            await running.dropped("node-1", "replayed", 2)
            status = running.status("node-1")
            assert status.drops == {"bad_model": 4, "replayed": 2}
            assert status.model is not None
            assert status.model.version == 5
            now = federation.broker.retained["edgechoir/v1/alps/node/node-1/model/0"]
            assert now == handed_on

            await cloud.say("model", "", cloud.sign(good(6, first * 2)), retain=True)
            await running.until(
                lambda seen: (
                    (model := seen.statuses["node-1"].model) is not None and model.version == 6
                ),
                "version 6",
            )

    asyncio.run(trial())


def test_what_no_member_may_say_is_counted_and_rounds_go_on(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            start_star(federation, running)
            await running.rounds(1)
            intruder = federation.voice("device", "dev-9")
            async with federation.overheard("cloud", "edgechoir/v1/alps/+/+/up/cloud") as heard:
                await running.rounds(1)
            real = next(data for data in heard if data[3] == wire.Upload.KIND)
            join = wire.Join("node-7", b"", 1, 0, 0, 0)
            forged = bytearray(real)
            forged[-1] ^= 1
            before = running.status("cloud").drops
            for data in (
                b"no envelope at all",
                real[: len(real) // 2],
                real[:-64],
                real,
                bytes(forged),
                real[:-64] + bytes(64),
                intruder.sign(wire.Abort(1, 1, "no")),
                intruder.sign(join),
            ):
                await intruder.say("up", "cloud", data)
            async with federation.broker.link("dev-9#raw") as link:
                where = "edgechoir/v1/alps/device/dev-9/up/cloud"
                await link.publish(where, b"not even a chunk")
                await link.publish(where, struct.pack(">2sBB32sIIQ", b"EB", 1, 0, b"", 5, 3, 9))
            counts = {"malformed": 5, "replayed": 1, "bad_signature": 2}
            for reason, count in {**counts, "unknown_member": 1, "policy": 1}.items():
                await running.dropped("cloud", reason, before.get(reason, 0) + count)
            await running.rounds(2)
            assert running.done[-1].devices == 3

    asyncio.run(trial())


def test_what_the_broker_gives_again_is_not_taken_for_a_replay(federation: Federation) -> None:
    """As after every new connection over MQTT 3.1.1, however much came in between."""

    async def trial() -> None:
        cloud = federation.voice("cloud", "cloud")
        async with federation.running() as running:
            start_star(federation, running)
            await running.rounds(1)
            stored = {
                where: payload
                for where, payload in federation.broker.retained.items()
                if "/cloud/cloud/roster" in where
            }
            assert stored
            for number in range(DONE_KEPT + 1):
                await cloud.say("model", "", b"%d" % number)
            async with federation.broker.link("cloud#again") as link:
                for where, payload in stored.items():
                    await link.publish(where, payload, retain=True)
            await running.rounds(2)
            for name in ("dev-1", "dev-2", "dev-3"):
                await running.dropped(name, "malformed", DONE_KEPT + 1)
                assert running.status(name).drops == {"malformed": DONE_KEPT + 1}

    asyncio.run(trial())


def test_a_broker_whose_rules_shut_a_member_out_is_named(federation: Federation) -> None:
    async def trial() -> None:
        config = federation.cloud(2)
        federation.forget("cloud")
        with pytest.raises(OperatorError, match=r"refused .* check the broker's access list"):
            await asyncio.wait_for(federation.aggregator(config), 10)

    asyncio.run(trial())
