import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence

import pytest

from edgechoir.errors import OperatorError
from edgechoir.inference.predictor import Predictor
from edgechoir.pipeline.declare import build_operators
from edgechoir.pipeline.run import Pipeline
from edgechoir.pipeline.sample import Check, Sample, as_values
from edgechoir.pipeline.sink import Answer
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.pipeline.sources.python import PythonSource

Linear = Callable[..., Predictor]


class Fixed:
    """A source that gives these samples and then waits for ever, or ends."""

    def __init__(self, samples: Iterable[Sample], *, ends: bool = True) -> None:
        self._samples, self._ends = samples, ends
        self.closed = False
        self.given_out = asyncio.Event()

    @property
    def counts(self) -> Mapping[str, int]:
        return {"late": 3}

    async def __aenter__(self) -> "Fixed":
        return self

    async def __aexit__(self, *error: object) -> None:
        self.closed = True

    async def __aiter__(self) -> AsyncIterator[Sample]:
        for sample in self._samples:
            yield sample
        self.given_out.set()
        if not self._ends:
            await asyncio.Event().wait()


def at(time: float, *x: float, y: int | None = None) -> Sample:
    return Sample("a", time, as_values(list(x)), y)


class Kept:
    """A sink that keeps its answers."""

    name = "kept"

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.closed = False

    async def write(self, answers: Sequence[Answer]) -> None:
        self.answers.extend(answers)

    async def close(self) -> None:
        self.closed = True


def test_samples_go_through_check_operators_and_model_to_sink_and_store(linear: Linear) -> None:
    stored: list[Sample] = []

    async def store(samples: Sequence[Sample]) -> None:
        stored.extend(samples)

    sink = Kept()
    samples = [at(0, 1, 1), at(1, 2, 2, y=1), at(2, 99, 0), at(3, 1), at(4, 3, 3), at(5, 3, 3, y=0)]
    operators = build_operators([{"op": "deadband", "width": 0.5}, {"op": "scale", "factor": 10.0}])
    pipeline = Pipeline(
        Fixed(samples), operators, linear((2,)), [sink], store, check=Check((2,), maximum=50.0)
    )
    asyncio.run(pipeline.run())
    assert [float(a.prediction.values[0]) for a in sink.answers] == [20, 40, 60]
    assert [(s.time, s.y, s.x.tolist()) for s in stored] == [(1, 1, [20, 20])]
    stats = pipeline.stats()
    assert (stats.read, stats.answered, stats.missed) == (6, 3, {})
    assert stats.dropped == {"out_of_range": 1, "wrong_shape": 1}
    assert stats.source == {"late": 3}
    assert [(s.name, s.taken, s.given) for s in stats.stages] == [
        ("deadband", 4, 3),
        ("scale", 3, 3),
    ]
    assert stats.sinks[0].written == 3
    assert stats.store is not None
    assert stats.store.written == 1
    assert stats.predictor.answered == 3
    assert sink.closed


def test_windows_feed_a_model_with_rows(linear: Linear) -> None:
    sink = Kept()
    operators = build_operators([{"op": "window", "count": 3, "step": 2}])
    pipeline = Pipeline(Fixed(at(i, i, 0) for i in range(8)), operators, linear((3, 2)), [sink])
    asyncio.run(pipeline.run())
    assert [float(a.prediction.values[0]) for a in sink.answers] == [3, 9, 15]


def test_operator_that_breaks_makes_dead_letters_and_the_stream_goes_on(linear: Linear) -> None:
    def fragile(sample: Sample) -> Sample:
        if sample.time == 1:
            raise ZeroDivisionError
        return sample

    sink = Kept()
    pipeline = Pipeline(
        Fixed(at(i, 1, 1) for i in range(4)), [("fragile", fragile)], linear((2,)), [sink]
    )
    asyncio.run(pipeline.run())
    assert [a.sample.time for a in sink.answers] == [0, 2, 3]
    assert pipeline.stats().stages[0].dead == {"ZeroDivisionError": 1}


def test_sample_that_the_model_cannot_answer_is_missed(linear: Linear) -> None:
    samples = [at(0, 1, 1), at(1, 1), at(2, float("nan"), 1), at(3, 1, 1)]
    pipeline = Pipeline(Fixed(samples), [], linear((2,)))
    asyncio.run(pipeline.run())
    stats = pipeline.stats()
    assert (stats.read, stats.answered) == (4, 2)
    assert stats.missed == {"wrong_shape": 1, "InferenceError": 1}
    assert stats.predictor.missed == 2


def test_sink_that_hangs_neither_delays_answers_nor_the_other_sink(linear: Linear) -> None:
    async def hangs(_: Answer) -> None:
        await asyncio.Event().wait()

    sink = Kept()

    async def run() -> Pipeline:
        enough = asyncio.Event()

        async def watch(answer: Answer) -> None:
            if answer.sample.time == 499:
                enough.set()

        pipeline = Pipeline(
            Fixed((at(i, 1, 1) for i in range(500)), ends=False),
            [],
            linear((2,)),
            [CallbackSink("stuck", hangs), CallbackSink("watch", watch), sink],
            queue=1000,
            drain=0.05,
        )
        task = asyncio.create_task(pipeline.run())
        await asyncio.wait_for(enough.wait(), 30)
        task.cancel()
        await asyncio.wait([task], timeout=30)
        assert task.cancelled()
        return pipeline

    stats = asyncio.run(run()).stats()
    assert stats.answered == 500
    assert (stats.sinks[0].written, stats.sinks[2].written) == (0, 500)


def test_slow_sink_loses_the_oldest_and_only_its_own(linear: Linear) -> None:
    source = Fixed(at(i, 1, 1) for i in range(300))

    async def slow(_: Answer) -> None:
        await source.given_out.wait()

    async def run() -> Pipeline:
        pipeline = Pipeline(source, [], linear((2,)), [CallbackSink("slow", slow)], queue=10)
        await pipeline.run()
        return pipeline

    stats = asyncio.run(run()).stats()
    assert stats.answered == 300
    assert stats.sinks[0].written + stats.sinks[0].dropped == 300
    assert stats.sinks[0].dropped >= 280


def test_cancel_writes_what_waits_and_closes_everything(linear: Linear) -> None:
    source, sink = Fixed((at(i, 1, 1) for i in range(50)), ends=False), Kept()

    async def run() -> set[str]:
        pipeline = Pipeline(source, [], linear((2,)), [sink])
        task = asyncio.create_task(pipeline.run())
        await source.given_out.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return {other.get_name() for other in asyncio.all_tasks()} - {
            asyncio.current_task().get_name()  # type: ignore[union-attr]  # we are in a task
        }

    assert asyncio.run(run()) == set()
    assert len(sink.answers) == 50
    assert sink.closed
    assert source.closed


def test_source_without_a_pause_leaves_time_for_others(linear: Linear) -> None:
    async def run() -> tuple[int, Pipeline]:
        turns = 0
        pipeline = Pipeline(Fixed(at(i, 1, 1) for i in range(20_000)), [], linear((2,)))
        task = asyncio.create_task(pipeline.run())
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return turns, pipeline

    turns, pipeline = asyncio.run(run())
    assert pipeline.stats().answered == 20_000
    assert turns > 5


def test_source_that_fails_is_the_operators_error_after_a_clean_stop(linear: Linear) -> None:
    def sensor() -> Iterable[list[float]]:
        yield [1.0, 2.0]
        raise OSError("no such bus")

    sink = Kept()
    pipeline = Pipeline(PythonSource(sensor), [], linear((2,)), [sink])
    with pytest.raises(OperatorError, match="no such bus"):
        asyncio.run(pipeline.run())
    assert len(sink.answers) == 1
    assert sink.closed
