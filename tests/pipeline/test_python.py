import asyncio
import threading
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from edgechoir.errors import OperatorError, SourceError
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.sources.python import AHEAD, PythonSource, polled


def collect(source: PythonSource) -> list[Sample]:
    async def run() -> list[Sample]:
        async with source:
            return [sample async for sample in source if isinstance(sample, Sample)]

    return asyncio.run(run())


def test_blocking_iterator_is_read_in_a_thread_in_order() -> None:
    threads: set[str] = set()

    def sensor(n: int) -> Iterator[list[int]]:
        for i in range(n):
            threads.add(threading.current_thread().name)
            yield [i]

    samples = collect(PythonSource(sensor, {"n": 1000}))
    assert [int(sample.x[0]) for sample in samples] == list(range(1000))
    assert threads == {"edgechoir-source"}


def test_async_iterator_is_read_in_the_loop() -> None:
    async def sensor() -> AsyncIterator[tuple[list[float], int]]:
        yield [0.5], 1
        await asyncio.sleep(0)
        yield [1.5], 0

    samples = collect(PythonSource(sensor, key="mine"))
    assert [(s.key, s.x.tolist(), s.y) for s in samples] == [("mine", [0.5], 1), ("mine", [1.5], 0)]


def test_items_may_be_values_pairs_or_samples() -> None:
    given = Sample("own", 7.0, as_values([1]), 2)
    items = [3.0, np.arange(2), ([1, 2], np.int64(4)), given]
    samples = collect(PythonSource(lambda: items))
    assert [sample.x.shape for sample in samples] == [(), (2,), (2,), (1,)]
    assert [sample.y for sample in samples] == [None, None, 4, 2]
    assert (samples[3].key, samples[3].time) == ("own", 7.0)


def test_item_that_is_no_sample_is_counted_and_dropped() -> None:
    wrong = Sample("own", 0.0, "words", 1)  # type: ignore[arg-type]  # as a user's code may do
    items = ["words", [[1], [1, 2]], ([1], "cat"), ([1], np.zeros(3)), object(), wrong, [5]]
    source = PythonSource(lambda: items)
    assert [sample.x.tolist() for sample in collect(source)] == [[5.0]]
    assert source.counts == {"malformed": 6}


def test_thread_reads_no_further_ahead_than_its_bound() -> None:
    read: list[int] = []
    waits = threading.Event()

    def sensor() -> Iterator[list[int]]:
        for i in range(10 * AHEAD):
            read.append(i)
            if len(read) == AHEAD + 1:
                waits.set()
            yield [i]

    async def run() -> int:
        async with PythonSource(sensor) as source:
            samples = aiter(source)
            await anext(samples)
            # One was taken, so one more than AHEAD may be read: and it is, while we take no other.
            await asyncio.to_thread(waits.wait, 30)
            return len(read)

    assert asyncio.run(run()) == AHEAD + 1


def test_source_that_hangs_does_not_hold_up_the_end() -> None:
    release = threading.Event()

    def sensor() -> Iterator[list[int]]:
        yield [1]
        release.wait(60)

    async def run() -> Sample | Block:
        async with PythonSource(sensor) as source:
            return await anext(aiter(source))

    assert asyncio.run(run()).x.tolist() == [1]
    release.set()


def test_source_that_fails_can_be_tried_again_and_one_that_is_none_cannot() -> None:
    def breaks() -> Iterator[list[int]]:
        yield [1]
        raise OSError("no such bus")

    def never() -> Iterator[list[int]]:
        raise OSError("no such device")

    for make, says in ((breaks, "no such bus"), (never, "no such device")):
        with pytest.raises(SourceError, match=says):
            collect(PythonSource(make))
    with pytest.raises(OperatorError, match="gave 5"):
        collect(PythonSource(lambda: 5))


def test_wrong_argument_is_the_operators_error() -> None:
    def sensor(pin: int) -> list[int]:
        return [pin]

    with pytest.raises(OperatorError, match="speed"):
        collect(PythonSource(sensor, {"speed": 3}))


def test_polled_function_is_called_on_a_grid_that_skips_what_it_ran_over() -> None:
    now = 100.0
    calls: list[float] = []
    takes = iter((0.03, 0.03, 0.25, 0.03, 0.03))

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def read() -> list[float]:
        nonlocal now
        calls.append(now)
        now += next(takes)
        return [now]

    readings = polled(read, 10.0, lambda: now, sleep)
    for _ in range(5):
        next(readings)
    assert calls == pytest.approx([100.0, 100.1, 100.2, 100.5, 100.6])


def test_polled_function_is_a_source() -> None:
    readings = iter(range(5))

    def read() -> list[int]:
        return [next(readings)]

    async def run() -> list[float]:
        async with PythonSource(lambda: polled(read, 1e6)) as source:
            samples = aiter(source)
            return [float((await anext(samples)).x.flat[0]) for _ in range(5)]

    assert asyncio.run(run()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("rate", [0.0, float("nan")])
def test_polling_needs_a_rate(rate: float) -> None:
    with pytest.raises(OperatorError, match="above 0"):
        polled(lambda: 1, rate)
