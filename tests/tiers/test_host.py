"""The host by itself: one process a member, bounded queues, and order on the way out."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import OperatorError
from edgechoir.monitor.records import PredictionRecord
from edgechoir.monitor.status import MemberState
from edgechoir.monitor.summary import summarise
from edgechoir.rounds.endpoint import Outgoing
from edgechoir.tiers import own_status
from edgechoir.tiers.letters import MAX_WAITING
from edgechoir.transport.control import is_control
from edgechoir.transport.link import Link
from edgechoir.transport.memory import MemoryLink

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation, Learner, Running

WAIT_S = 20.0
UP = "edgechoir/v1/alps/+/+/up/cloud"


# ---- one process a member


def test_a_second_process_gives_way_and_leaves_no_trace(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(federation.cloud(2)))
            for name in ("dev-1", "dev-2"):
                running.start(name, federation.learner(name).run(federation.open_link))
            await running.rounds(1)
            first = federation.retained_status("cloud", "cloud")
            left = set(federation.broker.retained)
            second = federation.cloud(2, state="elsewhere")
            async with federation.statuses("cloud", "cloud") as said:
                with pytest.raises(OperatorError, match=first.instance):
                    await asyncio.wait_for(federation.aggregator(second), 15)
                assert {(status.instance, status.state) for status in said} == {
                    (first.instance, MemberState.ONLINE)
                }
            assert set(federation.broker.retained) == left
            await running.rounds(2)
            assert running.done[-1].devices == 2
            assert running.status("cloud").drops == {}

    asyncio.run(trial())


def test_a_process_waits_for_the_end_of_one_that_may_live(federation: Federation) -> None:
    """After a crash the broker says `online` until it notices; then its last will frees the id."""

    async def trial() -> None:
        voice = federation.voice("device", "dev-1")
        own = "edgechoir/v1/alps/device/dev-1/status"
        async with federation.running() as running:
            running.start("dev-1", federation.learner("dev-1").run(federation.open_link))
            await running.until(lambda seen: "dev-1" in seen.statuses, "dev-1")
            crashed = federation.retained_status("device", "dev-1")
            await running.stop("dev-1")
            await voice.publish_status(crashed)

            async with federation.statuses("device", "dev-1") as said:
                before = federation.subscribed["dev-1", own]
                running.start("dev-1", federation.learner("dev-1").run(federation.open_link))
                await federation.until(lambda: federation.subscribed["dev-1", own] > before)
                await voice.publish_status(crashed.model_copy(update={"state": MemberState.LOST}))
                await federation.until(lambda: len(said) > 2)
            old, state = crashed.instance, MemberState
            assert [(status.instance == old, status.state) for status in said[:3]] == [
                (True, state.ONLINE),
                (True, state.LOST),
                (False, state.ONLINE),
            ]

    asyncio.run(trial())


def test_a_status_of_nobody_alive_holds_the_id_for_a_while_only(federation: Federation) -> None:
    """Its broker may have lost the last will: one and a half keep-alives without a word do."""

    async def trial() -> None:
        voice = federation.voice("device", "dev-1")
        async with federation.running() as running:
            running.start("dev-1", federation.learner("dev-1").run(federation.open_link))
            await running.until(lambda seen: "dev-1" in seen.statuses, "dev-1")
            left = federation.retained_status("device", "dev-1")
            await running.stop("dev-1")
            await voice.publish_status(left)
            second = federation.learner("dev-1")
            second.keep_alive = 0.0
            running.start("dev-1", second.run(federation.open_link))
            await running.until(
                lambda seen: seen.statuses["dev-1"].instance != left.instance, "the new one"
            )

    asyncio.run(trial())


def test_a_claim_on_this_id_is_counted_and_answered(federation: Federation) -> None:
    async def trial() -> None:
        cloud = federation.voice("cloud", "cloud")
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(federation.cloud(2)))
            await running.until(lambda seen: "cloud" in seen.statuses, "the cloud")
            ours = running.status("cloud")
            claim = ours.model_copy(update={"instance": "ab" * 8})
            await cloud.publish_status(claim)
            await running.until(
                lambda seen: (
                    (now := seen.statuses["cloud"]).instance == ours.instance
                    and now.drops == {"duplicate_identity": 1}
                ),
                "the first process saying that it is here",
            )
            farewell = claim.model_copy(update={"state": MemberState.STOPPED})
            await cloud.publish_status(farewell)
            await running.until(
                lambda seen: seen.statuses["cloud"].instance == ours.instance, "the same again"
            )
            assert running.status("cloud").drops == {"duplicate_identity": 1}

    asyncio.run(trial())


def test_a_status_under_anothers_name_is_malformed(federation: Federation) -> None:
    async def trial() -> None:
        cloud = federation.voice("cloud", "cloud")
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(federation.cloud(2)))
            learner = federation.learner("dev-1")
            running.start("dev-1", learner.run(federation.open_link))
            await running.until(lambda seen: len(seen.statuses) == 2, "both")
            await cloud.publish_status(federation.retained_status("device", "dev-1"), retain=False)
            await running.dropped("dev-1", "malformed")

    asyncio.run(trial())


# ---- the way out


async def keyed(federation: Federation, running: Running) -> tuple[Learner, Learner]:
    """A cloud and two learners that have done a round; the first gets work and does not answer."""
    config = federation.cloud(2, deadline=3600.0)
    running.start("cloud", federation.aggregator(config))
    one, two = federation.learner("dev-1"), federation.learner("dev-2")
    running.start("dev-1", one.run(federation.open_link))
    running.start("dev-2", two.run(federation.open_link))
    await running.rounds(1)
    before = len(one.asked)
    one.idle = True
    await one.until(lambda: len(one.asked) > before)
    return one, two


def test_a_round_is_written_down_before_its_upload_leaves(federation: Federation) -> None:
    async def trial() -> None:
        written: list[bytes | None] = []
        async with federation.running() as running:
            one, _ = await keyed(federation, running)

            def on_write(member: str, where: str) -> None:
                if member == "dev-1" and where.endswith("up/cloud"):
                    journal = one.host.journal
                    place = (journal.last_epoch("alps"), journal.last_round("alps"), 0)
                    written.append(journal.stored_upload("alps", *place))

            where = "edgechoir/v1/alps/device/dev-1/up/cloud"
            async with federation.overheard("cloud", where, controls=True) as heard:
                federation.on_write = on_write
                one.idle = False
                one.answer()
                await running.rounds(3)
            cloud = federation.voice("cloud", "cloud")
            uploads = [
                (opened.body, stored)
                for data, stored in zip(heard, written, strict=False)
                if not is_control(data)
                if (opened := cloud.open(data)).kind == wire.Upload.KIND
            ]
            assert len(uploads) >= 3
            assert all(body == stored for body, stored in uploads)

    asyncio.run(trial())


@pytest.mark.parametrize("others", [MAX_WAITING - 2, MAX_WAITING - 1, MAX_WAITING])
def test_no_upload_leaves_unwritten_when_the_queue_overflows(
    federation: Federation, others: int
) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            one, _ = await keyed(federation, running)
            round_ = one.asked[-1].round
            federation.cut("dev-1")
            one.host.letters.put(Outgoing("up", "", b"first"))
            one.answer()
            for number in range(others):
                one.host.letters.put(Outgoing("up", "", b"%d" % number))
            async with federation.overheard("cloud", UP) as heard:
                federation.mend("dev-1")
                await federation.until(lambda: b"%d" % (others - 1) in heard)
            cloud = federation.voice("cloud", "cloud")
            left = [
                opened
                for opened in (cloud.open(data) for data in heard if data[:2] == b"EC")
                if opened.kind == wire.Upload.KIND and opened.sender.member == "dev-1"
            ]
            assert len(left) == (others < MAX_WAITING)
            assert (one.host.journal.last_round("alps") == round_) == bool(left)

    asyncio.run(trial())


def test_a_queue_that_is_full_loses_its_oldest_and_counts_them(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            one, _ = await keyed(federation, running)
            federation.cut("dev-1")
            last = MAX_WAITING + 10
            for number in range(last):
                one.host.letters.put(Outgoing("up", "", b"%d" % number))
            async with federation.overheard("cloud", UP) as heard:
                federation.mend("dev-1")
                await federation.until(lambda: b"%d" % (last - 1) in heard)
            own = [int(data) for data in heard if data.isdigit()]
            assert own == list(range(own[0], last))
            assert 10 <= own[0] < 20  # what it says when it is back goes into the same queue
            await running.dropped("dev-1", "outbox_full", own[0])

    asyncio.run(trial())


def test_a_model_on_its_way_holds_up_no_message_and_only_the_latest_follows_it(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trial() -> None:
        slow, third = asyncio.Event(), asyncio.Event()
        models: list[bytes] = []
        publish = MemoryLink.publish

        async def publish_slowly(link: MemoryLink, where: str, payload: bytes, **how: Any) -> None:
            if "/dev-1/model/" in where:
                models.append(payload[-1:])
                if payload.endswith(b"3"):
                    third.set()
                await slow.wait()
                return
            await publish(link, where, payload, **how)

        monkeypatch.setattr(MemoryLink, "publish", publish_slowly)
        async with federation.running() as running:
            one, _ = await keyed(federation, running)
            async with federation.overheard("cloud", UP) as heard:
                for name in (b"1", b"2", b"3"):
                    one.host.letters.put(Outgoing("model", "", name))
                    one.host.letters.put(Outgoing("up", "", b"beside " + name))
                    await federation.until(lambda name=name: b"beside " + name in heard)  # type: ignore[misc]
                assert models == [b"1"]
                slow.set()
                async with asyncio.timeout(WAIT_S):
                    await third.wait()
            assert models == [b"1", b"3"]

    asyncio.run(trial())


def test_the_status_says_how_far_a_slow_transfer_is(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            one, _ = await keyed(federation, running)
            federation.cut("cloud")
            one.host.letters.put(Outgoing("up", "", bytes(1_000_000)))
            where = "edgechoir/v1/alps/device/dev-1/up/cloud"
            async with federation.overheard("cloud", where, controls=True) as heard:
                await federation.until(lambda: bool(heard))  # its offer
                assert one.host.status(MemberState.ONLINE).transfers is None
                monkeypatch.setattr(own_status, "SLOW_S", 0.0)
                status = one.host.status(MemberState.ONLINE)
            assert status.transfers is not None
            (way,) = status.transfers
            assert (way.sender, way.receiver) == ("dev-1", "cloud")
            assert (way.arrived, way.total) == (0, 1_000_000)
            assert "0.0 of 1.0 MB to cloud" in summarise(status).notes

    asyncio.run(trial())


def test_what_the_broker_refuses_is_counted_and_the_host_goes_on(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(federation.cloud(2, deadline=0.5)))
            for name in ("dev-1", "dev-2"):
                running.start(name, federation.learner(name).run(federation.open_link))
            await running.rounds(1)
            federation.refused.add("edgechoir/v1/alps/device/dev-1/up/cloud")
            await running.dropped("dev-1", "unsent")
            await running.until(
                lambda seen: any("dev-1 had not uploaded" in (m.reason or "") for m in seen.rounds),
                "a round that failed for want of it",
            )
            federation.refused.clear()
            await running.rounds(2)

    asyncio.run(trial())


# ---- a broker that loses what it has acknowledged


def test_no_round_fails_where_the_broker_loses_one_message_in_ten(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def trial() -> None:
        route = federation.broker._route
        lost: Counter[str] = Counter()
        seen: Counter[str] = Counter()

        def lose_some(topic: str, payload: bytes, *, retain: bool, qos: int) -> None:
            channel = topic.split("/")[5]
            seen[channel] += 1
            if channel in ("up", "down") and seen[channel] % 10 == 9:
                lost[channel] += 1
                return
            route(topic, payload, retain=retain, qos=qos)

        monkeypatch.setattr(federation.broker, "_route", lose_some)
        async with federation.running() as running:
            running.start("cloud", federation.aggregator(federation.cloud(2, deadline=30.0)))
            for name in ("dev-1", "dev-2"):
                running.start(name, federation.learner(name).run(federation.open_link))
            await running.rounds(3)
            assert [metrics.outcome for metrics in running.seen.rounds] == ["done"] * 3
            assert all(metrics.devices == 2 for metrics in running.done)
            assert min(lost["up"], lost["down"]) > 0
            for name in ("cloud", "dev-1", "dev-2"):
                assert running.status(name).drops == {}

    asyncio.run(trial())


# ---- predictions that wait


def test_predictions_made_while_the_broker_is_away_are_published_when_it_is_back(
    federation: Federation, tmp_path: Path
) -> None:
    """The samples end while the link is cut, and the process with them: the next one publishes."""

    async def trial() -> None:
        count = 60
        x = np.arange(count * 64, dtype=np.float32).reshape(count, 64) % 16
        np.savez(tmp_path / "samples.npz", x=x, y=np.zeros(count, np.int64))
        config = federation.device(
            "dev-1",
            sensor={
                "source": "replay",
                "path": str(tmp_path / "samples.npz"),
                "rate_hz": 30.0,
                "loop": False,
            },
            training={"enabled": False},
            predictions={"max_rate_hz": 10_000.0, "keep_offline": True},
        )
        heard: list[PredictionRecord] = []
        arrived = asyncio.Event()
        federation.identity("monitor", "eye-2")

        async def listen(link: Link) -> None:
            async for message in link.messages():
                heard.append(PredictionRecord.from_json(message.payload))
                arrived.set()

        async def until(number: int) -> None:
            async with asyncio.timeout(WAIT_S):
                while len(heard) < number:
                    arrived.clear()
                    await arrived.wait()

        async with federation.running() as running, federation.broker.link("eye-2") as eye:
            await eye.subscribe("edgechoir/v1/alps/+/+/predictions")
            listening = running.group.create_task(listen(eye))
            first = running.group.create_task(federation.run_device(config))
            await until(1)
            federation.cut("dev-1")
            async with asyncio.timeout(WAIT_S):
                await first
            before = len(heard)
            assert before < count
            second = running.group.create_task(federation.run_device(config))
            await until(count)
            times = [record.at for record in heard[:count]]
            assert times == sorted(times)
            assert len(set(times)) == count
            second.cancel()
            listening.cancel()

    asyncio.run(trial())
