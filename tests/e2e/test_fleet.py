"""A whole tree from its start to its end: what it learns, what it says, and what it leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgechoir.monitor.status import MemberState, Status, parse_at
from edgechoir.transport.topics import parse

if TYPE_CHECKING:
    from tests.e2e.conftest import Fleet, FleetOf, LeftRunning

    from edgechoir.monitor.records import Metrics

pytestmark = [pytest.mark.e2e, pytest.mark.torch, pytest.mark.timeout(180)]

ROUNDS = 8
TREE = (
    ("cloud", "cloud", None),
    ("edge-cloud", "edge-1", "cloud"),
    ("node", "node-1", "edge-1"),
    ("device", "dev-1", "node-1"),
    ("device", "dev-2", "node-1"),
    ("device", "dev-3", "edge-1"),
    ("device", "dev-4", "cloud"),
)
MEMBERS = [member for _, member, _ in TREE]
DEVICES = [member for tier, member, _ in TREE if tier == "device"]


@pytest.fixture
def fleet(make_fleet: FleetOf, tmp_path: Path) -> Iterator[Fleet]:
    with make_fleet(tmp_path, TREE, ROUNDS) as fleet:
        yield fleet


def test_a_tree_learns_tells_a_monitor_and_stops_without_a_trace(
    fleet: Fleet, left_running: LeftRunning
) -> None:
    async def trial() -> None:
        async with fleet.view() as view:
            with fleet.overheard(
                fleet.identity("monitor"), "-v", "-t", "edgechoir/v1/+/+/+/status"
            ) as statuses:
                fleet.start(*MEMBERS)
                await view.until(
                    lambda: any(m.final for m in view.seen.rounds), "the last round", 120
                )
                await view.until(
                    lambda: all(
                        (model := view.status(name).model) is not None and model.version == ROUNDS
                        for name in MEMBERS
                    ),
                    "the last model on every member",
                )
                check_learning(view.done)
                check_answers([view.status(name) for name in DEVICES])
                # A fleet without a fault refuses nothing.
                assert not any(view.status(name).drops for name in MEMBERS)
                stopped = await asyncio.to_thread(fleet.stop, *MEMBERS)
                assert stopped == dict.fromkeys(MEMBERS, 0)
                for name in MEMBERS:
                    await view.is_state(name, MemberState.STOPPED)
        check_documents(statuses.read_bytes().splitlines())

    asyncio.run(trial())
    assert fleet.stop("broker") == {"broker": 0}
    assert left_running(str(fleet.folder)) == []


def check_learning(done: Sequence[Metrics]) -> None:
    """Every round has everyone, and what they learn shows on what they held out."""
    assert [metrics.devices for metrics in done] == [len(DEVICES)] * ROUNDS
    first, last = done[0].accuracy, done[-1].accuracy
    assert first is not None
    assert last is not None
    assert first < 0.4
    assert last > first + 0.2


def check_answers(statuses: Sequence[Status]) -> None:
    """Each device has answered every sample, trained every round and exchanged every model."""
    for status in statuses:
        assert status.inference is not None
        assert status.inference.answered > 20
        assert status.inference.missed == 0
        assert status.inference.swaps is not None
        assert status.inference.swaps >= ROUNDS
        assert status.training is not None
        assert status.training.fits == ROUNDS


def check_documents(lines: Sequence[bytes]) -> None:
    """What any MQTT client could read: JSON after the published schema, `stopped` at the end."""
    last: dict[str, Status] = {}
    for line in lines:
        where, _, document = line.partition(b" ")
        json.loads(document, parse_constant=pytest.fail)  # no NaN: other languages have none
        status = parse_at(parse(where.decode()), document)
        last[status.member] = status
    assert {name: status.state for name, status in last.items()} == dict.fromkeys(
        MEMBERS, MemberState.STOPPED
    )
