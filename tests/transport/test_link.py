"""What every link promises, tried on the one in memory and on a real broker."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import pytest

from edgechoir.errors import LinkError, LocalError
from edgechoir.transport.blobs import Assembler, send_blob
from edgechoir.transport.link import Link, LinkState, Message, Will


class Trial(Protocol):
    def link(self, member: str, will: Will | None = None) -> Link: ...
    def cut(self, member: str) -> None: ...
    def mend(self, member: str) -> None: ...


class OpenTrial(Protocol):
    def __call__(self) -> AbstractAsyncContextManager[Trial]: ...


async def some(messages: AsyncIterator[Message], count: int) -> list[Message]:
    async with asyncio.timeout(20):
        return [await anext(messages) for _ in range(count)]


async def state_of(states: AsyncIterator[LinkState], connected: bool) -> LinkState:
    async with asyncio.timeout(20):
        async for state in states:
            if state.connected is connected:
                return state
    raise AssertionError("the link was closed")


def test_a_message_arrives_as_it_was_sent(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a, trial.link("b") as b:
            await b.subscribe("open/x")
            payload = os.urandom(100_000)
            await a.publish("open/x", payload)
            assert await some(b.messages(), 1) == [Message("open/x", payload, False)]
            assert a.counters.messages_up == b.counters.messages_down == 1
            assert min(a.counters.bytes_up, b.counters.bytes_down) >= 100_000

    asyncio.run(run())


def test_messages_of_one_sender_keep_their_order(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a, trial.link("b") as b:
            await b.subscribe("open/#")
            sent = [bytes([n]) for n in range(200)]
            async with asyncio.TaskGroup() as group:
                for payload in sent:
                    group.create_task(a.publish("open/x", payload))
                got = await some(b.messages(), len(sent))
            assert [message.payload for message in got] == sent

    asyncio.run(run())


def test_only_what_the_filter_covers_arrives(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a, trial.link("b") as b:
            await b.subscribe("open/+/up")
            for topic in ("open/1/down", "open/1/up/2", "open/up", "open/1/up"):
                await a.publish(topic, b"x")
            assert [m.topic for m in await some(b.messages(), 1)] == ["open/1/up"]

    asyncio.run(run())


def test_a_retained_message_waits_for_the_subscriber_until_cleared(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a:
            await a.publish("open/state", b"1", retain=True)
            async with trial.link("b") as b:
                await b.subscribe("open/state")
                messages = b.messages()
                assert await some(messages, 1) == [Message("open/state", b"1", True)]
                await a.publish("open/state", b"", retain=True)
                assert await some(messages, 1) == [Message("open/state", b"", False)]
            async with trial.link("c") as c:
                await c.subscribe("open/#")
                await a.publish("open/mark", b"m")
                assert [m.topic for m in await some(c.messages(), 1)] == ["open/mark"]

    asyncio.run(run())


def test_the_will_is_published_for_a_lost_member_and_not_after_a_goodbye(
    open_trial: OpenTrial,
) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("watcher") as watcher:
            await watcher.subscribe("open/wills/#")
            messages = watcher.messages()
            async with trial.link("a", Will("open/wills/a", b"lost", False)) as a:
                await a.connected(10)
            async with trial.link("b", Will("open/wills/b", b"lost", False)) as b:
                await b.connected(10)
                trial.cut("b")
                assert [m.topic for m in await some(messages, 1)] == ["open/wills/b"]

    asyncio.run(run())


def test_nothing_is_lost_over_a_cut_connection(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a, trial.link("b") as b:
            await b.subscribe("open/#")
            states, messages = b.changes(), b.messages()
            await state_of(states, True)
            trial.cut("b")
            lost = await state_of(states, False)
            assert lost.reason
            waiting = asyncio.create_task(b.publish("open/from-b", b"late"))
            for n in range(30):
                await a.publish("open/to-b", bytes([n]))
            trial.mend("b")
            await state_of(states, True)
            await waiting
            got = await some(messages, 31)
            assert sorted(m.payload for m in got if m.topic == "open/to-b") == [
                bytes([n]) for n in range(30)
            ]
            assert b.counters.reconnects == 1

    asyncio.run(run())


def test_publishing_while_cut_off_ends_at_the_deadline(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a:
            await a.connected(10)
            trial.cut("a")
            await state_of(a.changes(), False)
            with pytest.raises(LinkError):
                await a.publish("open/x", b"x", timeout=0.05)
            with pytest.raises(LinkError):
                await a.subscribe("open/x", timeout=0.05)
            with pytest.raises(LinkError):
                await a.connected(0.05)

    asyncio.run(run())


def test_a_message_against_the_access_list_is_refused_by_name(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a:
            with pytest.raises(LinkError, match="refused a message of a"):
                await a.publish("closed/x", b"x")
            await a.publish("open/x", b"x")

    asyncio.run(run())


@pytest.mark.parametrize("topic", ["", "open/#", "open/+/x"])
def test_a_topic_that_cannot_be_published_to_is_our_fault(
    open_trial: OpenTrial, topic: str
) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a:
            with pytest.raises(LocalError):
                await a.publish(topic, b"x")
            with pytest.raises(LocalError):
                await a.subscribe("open/x", qos=2)

    asyncio.run(run())


def test_closing_a_link_ends_its_streams_and_refuses_more(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial:
            async with trial.link("a") as a:
                await a.connected(10)
                reader = asyncio.create_task(anext(a.messages(), None))
                states = [a.changes()]
                await state_of(states[0], True)
            async with asyncio.timeout(5):
                assert await reader is None
                assert [state.connected async for state in states[0]] == [False]
            with pytest.raises(LinkError, match="closed"):
                await a.publish("open/x", b"x")

    asyncio.run(run())


def test_a_blob_of_many_chunks_arrives_whole(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a, trial.link("b") as b:
            await b.subscribe("open/#")
            data = os.urandom(1_000_000)
            assembler = Assembler(2_000_000)
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(send_blob(a, "open/up", data))
                got = await some(b.messages(), 8)
            blobs = [assembler.feed(m.topic, m.payload, 0.0) for m in got]
            assert blobs == [None] * 7 + [data]
            assert sending.result() == 8

    asyncio.run(run())


def test_a_retained_blob_waits_in_chunks_and_a_shorter_one_replaces_it(
    open_trial: OpenTrial,
) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a:
            old = await send_blob(
                a, "open/model", bytes(500_000), retain=True, per_chunk_topic=True
            )
            new = os.urandom(200_000)
            await send_blob(
                a, "open/model", new, retain=True, per_chunk_topic=True, stale_chunks=old
            )
            async with trial.link("b") as b:
                await b.subscribe("open/model/#")
                await a.publish("open/model/end", b"")
                got = await some(b.messages(), 3)
                assert sorted(m.topic for m in got[:2]) == ["open/model/0", "open/model/1"]
                assembler = Assembler(1_000_000)
                assert [assembler.feed("k", m.payload, 0.0) for m in got] == [None, new, None]
            await send_blob(a, "open/model", b"", retain=True, per_chunk_topic=True, stale_chunks=2)

    asyncio.run(run())


def test_a_late_subscriber_gets_a_retained_model_of_several_megabytes(
    open_trial: OpenTrial,
) -> None:
    async def run() -> None:
        model = os.urandom(6 << 20)
        async with open_trial() as trial, trial.link("a") as a:
            count = await send_blob(a, "open/big", model, retain=True, per_chunk_topic=True)
            async with trial.link("b") as b, asyncio.timeout(20):
                await b.subscribe("open/big/+")
                assembler = Assembler(8 << 20)
                async for message in b.messages():
                    assert message.retained
                    blob = assembler.feed("big", message.payload, 0.0)
                    if blob is not None:
                        break
                assert blob == model
            await send_blob(
                a, "open/big", b"", retain=True, per_chunk_topic=True, stale_chunks=count
            )

    asyncio.run(run())


def test_a_blob_that_is_refused_says_so_once(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial, trial.link("a") as a:
            with pytest.raises(LinkError, match="blob of 900000 bytes to closed/x"):
                await send_blob(a, "closed/x", bytes(900_000))
            with pytest.raises(LocalError):
                await send_blob(a, "open/#", b"x")

    asyncio.run(run())


def test_no_task_outlives_a_link_that_is_cancelled(open_trial: OpenTrial) -> None:
    async def run() -> None:
        async with open_trial() as trial:
            entered = asyncio.Event()

            async def hold() -> None:
                async with trial.link("a") as a:
                    await a.connected(10)
                    entered.set()
                    async for _ in a.messages():
                        pass

            before = asyncio.all_tasks()
            task = asyncio.create_task(hold())
            await entered.wait()
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            names = {t.get_name() for t in asyncio.all_tasks() - before}
            assert not {name for name in names if name.startswith("mqtt-link")}

    asyncio.run(run())
