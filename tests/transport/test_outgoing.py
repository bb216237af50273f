"""The queue of publishes: who goes first, who is dropped, and that nobody is left without an
answer."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import LinkError
from edgechoir.transport.link import Priority
from edgechoir.transport.outgoing import MAX_WAITING, CrowdedOutError, Outgoing, Publish

CONTROL, DOCUMENT, BULK = Priority


@dataclass(slots=True)
class Wire:
    """A connection that acknowledges when told."""

    window: int = 16
    congested: bool = False
    sent: list[Publish] = field(default_factory=list)

    def publish(self, publish: Publish) -> int:
        self.sent.append(publish)
        return len(self.sent)


def publish(priority: Priority, name: str = "t", qos: int = 1) -> Publish:
    return Publish(name, b"", qos, False, priority, asyncio.Future())


async def _in_loop(priorities: list[Priority], window: int) -> None:
    outgoing, wire = Outgoing(), Wire(window)
    given = [publish(priority) for priority in priorities]
    for one in given:
        outgoing.add(one)
    acknowledged = 0
    while acknowledged < len(given):
        outgoing.pump(wire)
        assert len(wire.sent) - acknowledged <= window
        assert len(wire.sent) > acknowledged, "it waits for nothing"
        acknowledged += 1
        assert outgoing.answered(acknowledged, None)
    assert wire.sent == sorted(given, key=lambda one: one.priority)
    assert all(one.done.done() for one in given)


@given(st.lists(st.sampled_from(Priority), max_size=60), st.integers(1, 20))
def test_what_waits_goes_by_priority_and_then_in_order(
    priorities: list[Priority], window: int
) -> None:
    asyncio.run(_in_loop(priorities, window))


def test_a_window_full_of_bulk_has_room_for_documents_and_one_full_of_those_for_control() -> None:
    async def run() -> None:
        outgoing, wire = Outgoing(), Wire(16)
        for priority, expected in ((BULK, 12), (DOCUMENT, 14), (CONTROL, 16)):
            for _ in range(20):
                outgoing.add(publish(priority))
            outgoing.pump(wire)
            assert len(wire.sent) == expected

    asyncio.run(run())


def test_bulk_is_not_given_to_a_socket_that_has_not_taken_what_was_before() -> None:
    async def run() -> None:
        outgoing, wire = Outgoing(), Wire(congested=True)
        for priority in (BULK, DOCUMENT, CONTROL):
            outgoing.add(publish(priority))
        outgoing.pump(wire)
        assert [one.priority for one in wire.sent] == [CONTROL, DOCUMENT]
        wire.congested = False
        outgoing.pump(wire)
        assert [one.priority for one in wire.sent] == [CONTROL, DOCUMENT, BULK]

    asyncio.run(run())


def test_beyond_the_bound_the_oldest_of_the_lowest_priority_is_dropped_and_told() -> None:
    async def run() -> None:
        outgoing = Outgoing()
        bulk = [publish(BULK, f"bulk/{n}") for n in range(2)]
        documents = [publish(DOCUMENT, f"document/{n}") for n in range(MAX_WAITING - 2)]
        for one in (*bulk, *documents):
            outgoing.add(one)
        assert outgoing.crowded_out == 0
        for first in (bulk[0], bulk[1], documents[0]):
            outgoing.add(publish(CONTROL))
            with pytest.raises(CrowdedOutError, match=first.topic):
                await first.done
        last = publish(BULK, "too late")
        outgoing.add(last)
        with pytest.raises(CrowdedOutError, match="too late"):
            await last.done
        assert outgoing.crowded_out == 4
        assert not any(one.done.done() for one in documents[1:])

    asyncio.run(run())


def test_what_was_in_flight_goes_again_in_its_order_and_qos_0_is_told() -> None:
    async def run() -> None:
        outgoing, wire = Outgoing(), Wire()
        first = [publish(p, str(n)) for n, p in enumerate((BULK, CONTROL, BULK, CONTROL))]
        hint = publish(CONTROL, "hint", qos=0)
        for one in (*first, hint):
            outgoing.add(one)
        outgoing.pump(wire)
        outgoing.connection_lost("the connection was lost")
        with pytest.raises(LinkError, match="not sent to hint"):
            await hint.done
        again = Wire()
        outgoing.pump(again)
        assert [one.topic for one in again.sent] == ["1", "3", "0", "2"]

    asyncio.run(run())
