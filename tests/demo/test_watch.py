"""What the demo sees of its fleet, over the broker in memory."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from edgechoir.demo.watch import Seen, follow
from edgechoir.errors import OperatorError
from edgechoir.monitor.records import Metrics, PredictionRecord
from edgechoir.monitor.status import MemberState, Status
from edgechoir.transport.memory import MemoryBroker, MemoryLink

ROOT = "edgechoir/v1/digits"


def status(member: str, state: MemberState = MemberState.ONLINE) -> Status:
    return Status(
        federation="digits",
        tier="device",
        member=member,
        instance="ab",
        state=state,
        since=1.0,
        updated=2.0,
    )


def metrics(round_: int) -> Metrics:
    return Metrics(
        federation="digits", tier="cloud", member="cloud", round=round_, at=1.0, outcome="done"
    )


def watching(steps: Callable[[MemoryLink, Seen], Awaitable[None]]) -> list[int]:
    """Run `steps` while a monitor follows; gives the rounds it was told of."""
    told: list[int] = []

    async def trial() -> None:
        broker, seen = MemoryBroker(), Seen("digits")
        async with broker.link("eye") as eye, broker.link("fleet") as fleet:
            following = asyncio.create_task(follow(eye, seen, lambda m: told.append(m.round)))
            try:
                await steps(fleet, seen)
            finally:
                following.cancel()
                await asyncio.wait([following])

    asyncio.run(trial())
    return told


def test_statuses_rounds_and_predictions_are_taken_in() -> None:
    async def steps(link: MemoryLink, seen: Seen) -> None:
        record = PredictionRecord(
            federation="digits", tier="device", member="dev-1", at=1.0, version=0
        )
        for name in ("dev-1", "dev-2"):
            where = f"{ROOT}/device/{name}/status"
            await link.publish(where, status(name).to_json(), retain=True)
        await seen.until(lambda s: s.online("device") == 2, 10, "two devices")
        gone = status("dev-2", MemberState.LOST).to_json()
        await link.publish(f"{ROOT}/device/dev-2/status", gone, retain=True)
        await seen.until(lambda s: s.online("device") == 1, 10, "one device")
        for round_ in (1, 2):
            await link.publish(f"{ROOT}/cloud/cloud/metrics", metrics(round_).to_json())
        await link.publish(f"{ROOT}/device/dev-1/predictions", record.to_json())
        await seen.until(lambda s: s.predictions == 1, 10, "a prediction")
        assert [one.round for one in seen.rounds] == [1, 2]
        assert seen.online("node") == 0

    assert watching(steps) == [1, 2]


def test_what_cannot_be_read_is_passed_over() -> None:
    async def steps(link: MemoryLink, seen: Seen) -> None:
        for payload in (b"", b"{", b"{}", b"\xff", status("dev-9").to_json()):
            await link.publish(f"{ROOT}/device/dev-1/status", payload)
        await link.publish(f"{ROOT}/cloud/cloud/metrics", b"[]")
        await link.publish(f"{ROOT}/cloud/cloud/metrics", metrics(3).to_json())
        await seen.until(lambda s: bool(s.rounds), 10, "the round")
        assert seen.statuses == {}

    assert watching(steps) == [3]


def test_what_is_not_seen_in_time_is_named() -> None:
    async def steps(link: MemoryLink, seen: Seen) -> None:
        with pytest.raises(OperatorError, match=r"a miracle was not seen within 0.01 s"):
            await seen.until(lambda s: False, 0.01, "a miracle")

    watching(steps)
