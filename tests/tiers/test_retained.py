"""Asking by name for what a broker does not give to a wildcard."""

import asyncio

import pytest

from edgechoir.errors import Malformed
from edgechoir.tiers.retained import ByName
from edgechoir.transport.blobs import split
from edgechoir.transport.topics import Topic, parse

MODEL, PLAN = (f"edgechoir/v1/alps/node/node-1/{channel}" for channel in ("model", "plan"))
CHUNKS = list(split(bytes(9000), limit=4096))


def chunk(index: int) -> tuple[Topic, bytes]:
    return parse(f"{MODEL}/{index}"), CHUNKS[index]


def test_only_what_has_said_nothing_is_asked_for() -> None:
    asked: list[str] = []

    async def subscribe(pattern: str) -> None:
        asked.append(pattern)

    by_name = ByName(subscribe, wait=0)
    assert not by_name.hear(*chunk(0))
    asyncio.run(by_name.run([MODEL, PLAN]))
    assert asked == [f"{PLAN}/0"]
    assert not by_name.hear(*chunk(1))


def test_the_first_chunk_says_how_many_more_to_ask_for_and_each_is_asked_for_once() -> None:
    asked: list[str] = []

    async def subscribe(pattern: str) -> None:
        asked.append(pattern)

    async def run() -> None:
        by_name = ByName(subscribe, wait=0)
        await by_name.run([MODEL])
        await by_name.ask(MODEL, by_name.hear(*chunk(0)))
        for index in range(len(CHUNKS)):
            assert not by_name.hear(*chunk(index))

    asyncio.run(run())
    assert len(CHUNKS) > 2
    assert asked == [f"{MODEL}/{index}" for index in range(len(CHUNKS))]


def test_what_is_no_chunk_is_refused() -> None:
    async def subscribe(pattern: str) -> None:
        return None

    by_name = ByName(subscribe, wait=0)
    asyncio.run(by_name.run([MODEL]))
    with pytest.raises(Malformed):
        by_name.hear(parse(f"{MODEL}/0"), b"EB")
