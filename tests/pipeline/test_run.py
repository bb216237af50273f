import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pytest

from edgechoir.errors import OperatorError
from edgechoir.inference.predictor import Predictor
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.check import Check
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.declare import declare_steps
from edgechoir.pipeline.flow import Flow, Outflow, Step
from edgechoir.pipeline.labels import LateLabels
from edgechoir.pipeline.operators import Operator
from edgechoir.pipeline.run import Pipeline
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.sink import Sink
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.pipeline.source import Source
from edgechoir.pipeline.sources.python import PythonSource

Linear = Callable[..., Predictor]


class Hands(Protocol):
    time: float
    slept: list[float]

    def clock(self) -> Clock: ...


def straight(
    source: Source,
    steps: Sequence[Mapping[str, object] | tuple[str, Operator]],
    predictor: Predictor,
    sinks: Sequence[Sink] = (),
    store: Callable[[Sequence[Sample]], Awaitable[None]] | None = None,
    *,
    check: Check | None = None,
    **bounds: Any,
) -> Pipeline:
    """One source, steps in a row, the model, its sinks."""
    flow = Flow(store=store)
    flow.source("sensor", source, check=check)
    before = "sensor"
    declared: list[Mapping[str, object]] = []
    for step in steps:
        if isinstance(step, tuple):
            before = flow.step(Step(step[0], "own", step[1], (before,))).name
        else:
            declared.append(step)
    declared = (
        [{"input": before, **declared[0]}, *declared[1:]]
        if declared
        else [{"op": "infer", "input": before}]
    )
    model = declare_steps(flow, declared, predictor)
    for sink in sinks:
        flow.sink(Outflow(sink, (model,)))
    return Pipeline(flow, **bounds)


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
        self.answers: list[Sample] = []
        self.closed = False

    @property
    def values(self) -> list[float]:
        return [float(s.answer.values[0]) for s in self.answers if s.answer is not None]

    async def write(self, samples: Sequence[Sample]) -> None:
        self.answers.extend(samples)

    async def close(self) -> None:
        self.closed = True


def test_samples_go_through_check_operators_and_model_to_sink_and_store(linear: Linear) -> None:
    stored: list[Sample] = []

    async def store(samples: Sequence[Sample]) -> None:
        stored.extend(samples)

    sink = Kept()
    samples = [at(0, 1, 1), at(1, 2, 2, y=1), at(2, 99, 0), at(3, 1), at(4, 3, 3), at(5, 3, 3, y=0)]
    operators = [{"op": "deadband", "width": 0.5}, {"op": "scale", "factor": 10.0}]
    pipeline = straight(
        Fixed(samples), operators, linear((2,)), [sink], store, check=Check((2,), maximum=50.0)
    )
    asyncio.run(pipeline.run())
    assert sink.values == [20, 40, 60]
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
    assert sink.closed


def test_windows_feed_a_model_with_rows(linear: Linear) -> None:
    sink = Kept()
    operators = [{"op": "window", "count": 3, "step": 2}]
    pipeline = straight(Fixed(at(i, i, 0) for i in range(8)), operators, linear((3, 2)), [sink])
    asyncio.run(pipeline.run())
    assert sink.values == [3, 9, 15]


def test_operator_that_breaks_makes_dead_letters_and_the_stream_goes_on(linear: Linear) -> None:
    def fragile(sample: Sample) -> Sample:
        if sample.time == 1:
            raise ZeroDivisionError
        return sample

    sink = Kept()
    pipeline = straight(
        Fixed(at(i, 1, 1) for i in range(4)), [("fragile", fragile)], linear((2,)), [sink]
    )
    asyncio.run(pipeline.run())
    assert [a.time for a in sink.answers] == [0, 2, 3]
    assert pipeline.stats().stages[0].dead == {"ZeroDivisionError": 1}


def test_sample_that_the_model_cannot_answer_is_missed(linear: Linear) -> None:
    samples = [at(0, 1, 1), at(1, 1), at(2, float("nan"), 1), at(3, 1, 1)]
    pipeline = straight(Fixed(samples), [], linear((2,)))
    asyncio.run(pipeline.run())
    stats = pipeline.stats()
    assert (stats.read, stats.answered) == (4, 2)
    assert stats.missed == {"wrong_shape": 1, "InferenceError": 1}


def test_sink_that_hangs_neither_delays_answers_nor_the_other_sink(linear: Linear) -> None:
    async def hangs(_: Sample) -> None:
        await asyncio.Event().wait()

    sink = Kept()

    async def run() -> Pipeline:
        enough = asyncio.Event()

        async def watch(answer: Sample) -> None:
            if answer.time == 499:
                enough.set()

        pipeline = straight(
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

    async def slow(_: Sample) -> None:
        await source.given_out.wait()

    async def run() -> Pipeline:
        pipeline = straight(source, [], linear((2,)), [CallbackSink("slow", slow)], queue=10)
        await pipeline.run()
        return pipeline

    stats = asyncio.run(run()).stats()
    assert stats.answered == 300
    assert stats.sinks[0].written + stats.sinks[0].dropped == 300
    assert stats.sinks[0].dropped >= 280


def test_cancel_writes_what_waits_and_closes_everything(linear: Linear) -> None:
    source, sink = Fixed((at(i, 1, 1) for i in range(50)), ends=False), Kept()

    async def run() -> set[str]:
        pipeline = straight(source, [], linear((2,)), [sink])
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
        pipeline = straight(Fixed(at(i, 1, 1) for i in range(20_000)), [], linear((2,)))
        task = asyncio.create_task(pipeline.run())
        while not task.done():
            await asyncio.sleep(0)
            turns += 1
        return turns, pipeline

    turns, pipeline = asyncio.run(run())
    assert pipeline.stats().answered == 20_000
    assert turns > 5


def test_source_that_fails_is_opened_again_after_a_pause_that_doubles(
    linear: Linear, hands: Hands
) -> None:
    tries = iter(range(1, 20))

    def sensor() -> Iterable[list[float]]:
        if next(tries) < 5:
            raise OSError("no such bus")
        yield [1.0, 2.0]

    sink = Kept()
    pipeline = straight(PythonSource(sensor), [], linear((2,)), [sink], clock=hands.clock())
    asyncio.run(pipeline.run())
    assert sink.values == [3]
    assert hands.slept == [0.5, 1, 2, 4]
    assert pipeline.stats().source == {"SourceError": 4}


def test_pause_is_short_again_after_a_good_reading(linear: Linear, hands: Hands) -> None:
    passes = iter(range(4))

    def sensor() -> Iterable[list[float]]:
        if next(passes) == 3:
            return
        yield [1.0, 2.0]
        raise OSError("unplugged")

    sink = Kept()
    pipeline = straight(PythonSource(sensor), [], linear((2,)), [sink], clock=hands.clock())
    asyncio.run(pipeline.run())
    assert sink.values == [3, 3, 3]
    assert hands.slept == [0.5, 0.5, 0.5]


def test_source_that_cannot_work_as_declared_stops_cleanly(linear: Linear) -> None:
    sink = Kept()
    pipeline = straight(PythonSource(lambda: 5), [], linear((2,)), [sink])
    with pytest.raises(OperatorError, match="expected an iterator"):
        asyncio.run(pipeline.run())
    assert sink.closed


def test_blocks_are_answered_like_their_samples(linear: Linear) -> None:
    rows = as_values([[i, 1] for i in range(50)] + [[1e9, 0]])
    block = Block("a", np.arange(51.0), rows, np.arange(51))
    sink, stored = Kept(), list[Sample]()

    async def store(samples: Sequence[Sample]) -> None:
        stored.extend(samples)

    steps: list[dict[str, object]] = [
        {"op": "scale", "factor": 2.0},
        {"op": "window", "count": 2, "step": 3, "summary": ["last"]},
    ]
    check = Check((2,), maximum=1000.0)
    pipeline = straight(
        PythonSource(lambda: [block]), steps, linear((2,)), [sink], store, check=check
    )
    asyncio.run(pipeline.run())
    assert sink.values == [2 * (i + 1) for i in range(1, 50, 3)]
    assert [s.y for s in stored] == list(range(1, 50, 3))
    stats = pipeline.stats()
    assert (stats.read, stats.answered, stats.dropped) == (51, 17, {"out_of_range": 1})


def test_split_union_and_join_make_a_graph(linear: Linear) -> None:
    hot, cold, both = Kept(), Kept(), Kept()
    hot.name, cold.name, both.name = "hot", "cold", "both"
    flow = Flow()
    readings = flow.source("sensor", Fixed(at(i, i) for i in range(6)))
    above, below = readings.split(lambda s: "up" if s.x[0] > 2 else "down", ["up", "down"])
    above.sink(hot)
    below.scale(0.0, -1.0).sink(cold)
    above.union(below).join_latest(readings).infer(linear((2,))).sink(both)
    asyncio.run(Pipeline(flow).run())
    assert [s.x.tolist() for s in hot.answers] == [[3], [4], [5]]
    assert [s.x.tolist() for s in cold.answers] == [[0], [-1], [-2]]
    # The split comes first, so a sample meets the one before it.
    assert both.values == [1, 3, 5, 7, 9]


def test_two_sources_run_beside_each_other_until_both_have_ended(linear: Linear) -> None:
    sink = Kept()
    flow = Flow()
    first = flow.source("one", Fixed(at(i, 1) for i in range(30)))
    second = flow.source("two", Fixed(at(i, 2) for i in range(20)))
    first.union(second).infer(linear((1,))).sink(sink)
    pipeline = Pipeline(flow)
    asyncio.run(pipeline.run())
    assert sorted(sink.values) == [1] * 30 + [2] * 20
    assert pipeline.stats().read == 50


def test_what_steps_hold_goes_on_when_the_source_ends(linear: Linear) -> None:
    sink = Kept()
    samples = [at(t, t) for t in (0, 2, 1, 4, 3)]
    steps: list[dict[str, object]] = [
        {"op": "reorder", "seconds": 30},
        {"op": "relief", "size": 10},
    ]
    asyncio.run(straight(Fixed(samples), steps, linear((1,)), [sink]).run())
    assert sink.values == [0, 1, 2, 3, 4]


def test_relief_keeps_the_newest_and_holds_nobody_up(linear: Linear) -> None:
    sink = Kept()
    flow = Flow()
    flow.source("sensor", Fixed(at(i, i) for i in range(100))).relief(3).infer(linear((1,))).sink(
        sink
    )
    pipeline = Pipeline(flow)
    asyncio.run(pipeline.run())
    row = next(row for row in pipeline.rows() if row.name == "relief")
    assert row.dropped + len(sink.values) == 100
    assert sink.values[-3:] == [97, 98, 99]


def test_late_label_brings_its_sample_into_the_store(linear: Linear, hands: Hands) -> None:
    stored: list[Sample] = []

    async def store(samples: Sequence[Sample]) -> None:
        stored.extend(samples)

    async def run() -> Pipeline:
        parts = Fixed([Sample("p1", 0.0, as_values([1])), Sample("p2", 1.0, as_values([2]))])

        async def results() -> AsyncIterator[Sample]:
            await parts.given_out.wait()
            yield Sample("p2", 9.0, as_values([]), 1)
            yield Sample("p9", 9.0, as_values([]), 1)

        flow = Flow(store=store)
        flow.source("line", parts).infer(linear((1,)))
        flow.label_from(flow.source("results", PythonSource(results)), LateLabels())
        pipeline = Pipeline(flow, clock=hands.clock())
        await pipeline.run()
        return pipeline

    pipeline = asyncio.run(run())
    assert [(s.key, s.x.tolist(), s.y) for s in stored] == [("p2", [2], 1)]
    late = pipeline.flow.late
    assert late is not None
    assert (late.labelled, late.unmatched, len(late)) == (1, 1, 1)


def running(pipeline: Pipeline, source: Fixed, then: Callable[[], Awaitable[None]]) -> None:
    """Run the pipeline, do `then` when the source has given everything, and stop."""

    async def run() -> None:
        task = asyncio.create_task(pipeline.run())
        await asyncio.wait_for(source.given_out.wait(), 30)
        await then()
        task.cancel()
        await asyncio.wait([task], timeout=30)

    asyncio.run(run())


def test_paused_step_holds_back_and_counts(linear: Linear) -> None:
    sink = Kept()
    source = Fixed((at(i, 1) for i in range(10)), ends=False)
    pipeline = straight(source, [{"op": "scale"}], linear((1,)), [sink])
    pipeline.pause("scale")
    with pytest.raises(OperatorError, match="only sensor, scale, infer, kept"):
        pipeline.pause("scael")

    async def nothing() -> None:
        return None

    running(pipeline, source, nothing)
    rows = {row.name: row for row in pipeline.rows()}
    assert (rows["scale"].taken, rows["scale"].given, rows["scale"].paused) == (10, 0, True)
    assert not sink.answers


def test_update_exchanges_steps_and_keeps_what_is_declared_as_before(linear: Linear) -> None:
    gate, first, second = asyncio.Event(), Kept(), Kept()
    second.name = "second"

    async def sensor() -> AsyncIterator[Sample]:
        for i in range(3):
            yield at(i, 1)
        gate.set()
        await halfway.wait()
        for i in range(3, 6):
            yield at(i, 1)

    halfway = asyncio.Event()
    predictor = linear((1,))
    window = {"op": "window", "count": 4, "summary": ["count"]}

    def flow_with(steps: Sequence[Mapping[str, object]], sink: Sink, source: Source) -> Flow:
        flow = Flow()
        flow.source("sensor", source)
        flow.sink(Outflow(sink, (declare_steps(flow, steps, predictor),), {"sink": sink.name}))
        return flow

    async def run() -> Pipeline:
        source = PythonSource(sensor)
        pipeline = Pipeline(flow_with([window], first, source))
        task = asyncio.create_task(pipeline.run())
        await gate.wait()
        steps = [window, {"op": "scale", "factor": 10.0}]
        pipeline.update(flow_with(steps, second, source))
        halfway.set()
        await task
        return pipeline

    pipeline = asyncio.run(run())
    # The window had three samples before the update and went on counting.
    assert (first.values, first.closed) == ([], True)
    assert (second.values, second.closed) == ([40, 40, 40], True)
    assert [row.taken for row in pipeline.rows()] == [6, 6, 3, 3, 3]
    other = Flow()
    other.source("camera", PythonSource(sensor))
    with pytest.raises(OperatorError, match="at a restart"):
        pipeline.update(other)


def test_dead_letters_can_be_looked_at_and_are_few(linear: Linear) -> None:
    pipeline = straight(Fixed(at(i, i, 1) for i in range(50)), [], linear((1,)))
    asyncio.run(pipeline.run())
    letters = pipeline.letters("infer")
    assert len(letters) == 8
    assert (letters[-1].key, letters[-1].time, letters[-1].values) == ("a", 49, (49, 1))
    assert letters[-1].error.startswith("WrongShape: the sample is (2,)")
