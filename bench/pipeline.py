"""What the stream adds to a sample: each stage, the whole way to the answer, and the time it waits.

The plain loops do the same work on the same samples, without counting, timing, checking or sinks.
Per event it is processor time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Final

import numpy as np

from bench.figures import Figure, in_turn, quantile
from bench.inference import predictor_of, raw_call
from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.manifest import preparation
from edgechoir.demo.show import bundle_path
from edgechoir.demo.split import digits
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.operators import Operator, filtered, scaled, within
from edgechoir.pipeline.run import Pipeline
from edgechoir.pipeline.sample import Check, Sample
from edgechoir.pipeline.sink import Answer
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.pipeline.stage import Stage
from edgechoir.types import Floats

SAMPLES: Final = 5000
TURNS: Final = 9
RATE_HZ: Final = 1000.0
PACED_S: Final = 3.0


def measure() -> list[Figure]:
    rows = digits().x
    samples = [Sample("bench", 1.0, rows[i % len(rows)], 3) for i in range(SAMPLES)]
    trivial, loop = in_turn(TURNS, lambda: _three_stages(samples), lambda: _three_loops(samples))
    whole, plain = in_turn(TURNS, lambda: _pipeline(samples), _plain(samples))
    waits = _paced(samples)
    return [
        Figure("three stages that do nothing", trivial, "us/event", "us, generators", loop),
        Figure("source to answer, three operators", whole, "us/event", "us, plain loop", plain),
        Figure(f"sample to sink at {RATE_HZ:g} Hz, median", median(waits) * 1e3, "ms"),
        Figure(f"sample to sink at {RATE_HZ:g} Hz, p99", quantile(waits, 0.99) * 1e3, "ms"),
    ]


def _three_stages(samples: Sequence[Sample]) -> float:
    """Microseconds a sample through three stages."""
    stages = [Stage(f"stage-{i}", lambda sample: sample) for i in range(3)]
    began = time.thread_time()
    for sample in samples:
        given: Sample | None = sample
        for stage in stages:
            given = None if given is None else stage(given)
    return (time.thread_time() - began) / len(samples) * 1e6


def _three_loops(samples: Sequence[Sample]) -> float:
    """The same through three generators, as one would write it by hand."""

    def through(given: Iterator[Sample], call: Operator) -> Iterator[Sample]:
        for sample in given:
            result = call(sample)
            if result is not None:
                yield result

    stream = iter(samples)
    for _ in range(3):
        stream = through(stream, lambda sample: sample)
    began = time.thread_time()
    for _ in stream:
        pass
    return (time.thread_time() - began) / len(samples) * 1e6


class Given:
    """A source that has its samples already; `rate` a second, or as fast as they are taken."""

    def __init__(self, samples: Sequence[Sample], rate: float | None = None) -> None:
        self._samples, self._rate = samples, rate

    @property
    def counts(self) -> Mapping[str, int]:
        return {}

    async def __aenter__(self) -> "Given":
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[Sample]:
        began = time.perf_counter()
        for tick, sample in enumerate(self._samples):
            if self._rate is not None:
                await asyncio.sleep(max(0.0, began + tick / self._rate - time.perf_counter()))
                sample = Sample(sample.key, Clock().now(), sample.x, sample.y)
            yield sample


def _operators() -> list[tuple[str, Operator]]:
    return [
        ("scale", scaled(0.0, 1.0)),
        ("range", within(0.0, 16.0)),
        ("filter", filtered(lambda sample: sample.y is not None)),
    ]


def _pipeline(samples: Sequence[Sample]) -> float:
    """Microseconds a sample: check, three operators, model, sink."""
    predictor = predictor_of(load_bundle(bundle_path()))

    async def drop(answer: Answer) -> None:
        return None

    async def run() -> float:
        pipeline = Pipeline(
            Given(samples),
            _operators(),
            predictor,
            [CallbackSink("drop", drop)],
            check=Check((64,), 0.0, 16.0),
        )
        began = time.thread_time()
        await pipeline.run()
        return time.thread_time() - began

    return asyncio.run(run()) / len(samples) * 1e6


def _plain(samples: Sequence[Sample]) -> Callable[[], float]:
    bundle = load_bundle(bundle_path())
    call, prepare = raw_call(bundle), preparation(bundle.manifest)
    low, high = np.float32(0.0), np.float32(16.0)

    def run() -> float:
        began = time.thread_time()
        for sample in samples:
            x: Floats = (sample.x - low) * np.float32(1.0)
            if (x >= low).all() and (x <= high).all() and sample.y is not None:
                int(call(prepare(x[None]))[0].argmax())
        return (time.thread_time() - began) / len(samples) * 1e6

    return run


def _paced(samples: Sequence[Sample]) -> list[float]:
    """Seconds from each reading to its answer in a sink, at a steady rate."""
    predictor = predictor_of(load_bundle(bundle_path()))
    clock, waits = Clock(), []

    async def arrive(answer: Answer) -> None:
        waits.append(clock.now() - answer.sample.time)

    source = Given(samples[: int(PACED_S * RATE_HZ)], RATE_HZ)
    sinks = [CallbackSink("arrive", arrive)]
    asyncio.run(Pipeline(source, _operators(), predictor, sinks).run())
    return waits
