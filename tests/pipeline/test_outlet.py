import asyncio
from collections.abc import Sequence

from edgechoir.pipeline.outlet import Outlet


def test_items_are_written_oldest_first_and_the_rest_on_close() -> None:
    written: list[int] = []

    async def write(items: Sequence[int]) -> None:
        written.extend(items)

    async def run() -> Outlet[int]:
        outlet = Outlet("all", write)
        for item in range(200):
            outlet.offer(item)
        outlet.close()
        await outlet.run()
        return outlet

    stats = asyncio.run(run()).stats()
    assert written == list(range(200))
    assert (stats.written, stats.dropped, stats.waiting) == (200, 0, 0)


def test_full_queue_drops_the_oldest() -> None:
    written: list[int] = []

    async def write(items: Sequence[int]) -> None:
        written.extend(items)

    async def run() -> Outlet[int]:
        outlet = Outlet("small", write, size=3)
        for item in range(10):
            outlet.offer(item)
        outlet.close()
        await outlet.run()
        return outlet

    assert asyncio.run(run()).stats().dropped == 7
    assert written == [7, 8, 9]


def test_write_that_fails_or_hangs_costs_its_own_batch() -> None:
    written: list[int] = []
    calls = iter(("fail", "hang", "go"))

    async def write(items: Sequence[int]) -> None:
        match next(calls):
            case "fail":
                raise OSError("disk full")
            case "hang":
                await asyncio.Event().wait()
            case _:
                written.extend(items)

    async def run() -> Outlet[int]:
        outlet = Outlet("bad", write, deadline=0.01)
        for item in range(64 + 64 + 5):
            outlet.offer(item)
        outlet.close()
        await outlet.run()
        return outlet

    stats = asyncio.run(run()).stats()
    assert stats.failed == {"OSError": 64, "TimeoutError": 64}
    assert written == list(range(128, 133))
    assert stats.written == 5
