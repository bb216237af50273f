"""What the stream costs: a step, a whole pipeline, and the way from a broker to a broker.

The plain loops do the same work on the same samples, without counting, timing, checking or sinks.
Per event it is processor time. Over MQTT a process of its own runs the pipeline; this one publishes
and listens, and first measures the broker alone.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np

from bench.brokers import broker
from bench.figures import Figure, in_turn, quantile
from bench.inference import predictor_of, raw_call
from bench.memory import memory
from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.manifest import preparation
from edgechoir.demo.show import bundle_path
from edgechoir.demo.split import digits
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.check import Check
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.flow import Flow, Stream
from edgechoir.pipeline.operators import Operator
from edgechoir.pipeline.run import Pipeline
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.tiers.sensor import INBOX
from edgechoir.transport.mqtt import MqttLink, MqttSettings
from edgechoir.types import Floats

SAMPLES: Final = 5000
BLOCK: Final = 1000
TURNS: Final = 9
RATE_HZ: Final = 1000.0
FAST_HZ: Final = 5000.0
PACED_S: Final = 3.0
MQTT_S: Final = 8.0
MANY: Final = 1_000_000
WAIT_S: Final = 20.0


def measure() -> list[Figure]:
    rows = digits().x
    samples = [Sample("bench", 1.0, rows[i % len(rows)], 3) for i in range(SAMPLES)]
    few = [Sample("bench", 1.0, rows[i % len(rows), 20:26], 3) for i in range(SAMPLES)]
    trivial, loop = in_turn(
        TURNS, lambda: _through(few, _nothing), lambda: _three_loops(few, lambda sample: sample)
    )
    real, blocks = in_turn(
        TURNS, lambda: _through(few, _three), lambda: _through(_blocks(few), _three)
    )
    whole, plain = in_turn(TURNS, lambda: _pipeline(samples), _plain(samples))
    waits = _paced(samples)
    with tempfile.TemporaryDirectory() as folder, broker(Path(folder)) as served:
        over_mqtt = asyncio.run(_over_mqtt(served.plain))
    return [
        Figure("three steps that do nothing", trivial, "us/event", "us, generators", loop),
        Figure("scale, range, scale: one by one", real, "us/event"),
        Figure(f"scale, range, scale: blocks of {BLOCK:,}", blocks, "us/event"),
        Figure("source to answer, three operators", whole, "us/event", "us, plain loop", plain),
        Figure(f"sample to sink at {RATE_HZ:g} Hz, median", median(waits) * 1e3, "ms"),
        Figure(f"sample to sink at {RATE_HZ:g} Hz, p99", quantile(waits, 0.99) * 1e3, "ms"),
        *over_mqtt,
        *_growth(rows),
    ]


def _through(items: Sequence[Sample | Block], steps: Callable[[Stream], Stream]) -> float:
    """Microseconds a sample from the source through steps and no further."""

    async def run() -> float:
        flow = Flow()
        steps(flow.source("sensor", Given(items)))
        began = time.thread_time()
        await Pipeline(flow).run()
        return time.thread_time() - began

    n = sum(len(item) if isinstance(item, Block) else 1 for item in items)
    return asyncio.run(run()) / n * 1e6


def _nothing(stream: Stream) -> Stream:
    for _ in range(3):
        stream = stream.through("step", lambda sample: sample)
    return stream


def _three(stream: Stream) -> Stream:
    return stream.scale(1.0, 0.5).range(-100.0, 100.0).scale(0.0, 2.0)


def _blocks(samples: Sequence[Sample]) -> list[Block]:
    return [
        Block(
            "bench",
            np.array([sample.time for sample in samples[i : i + BLOCK]]),
            np.stack([sample.x for sample in samples[i : i + BLOCK]]),
        )
        for i in range(0, len(samples), BLOCK)
    ]


def _three_loops(samples: Sequence[Sample], call: Operator) -> float:
    """The same through three generators, as one would write it by hand."""

    def through(given: Iterator[Sample]) -> Iterator[Sample]:
        for sample in given:
            result = call(sample)
            if isinstance(result, Sample):
                yield result

    stream = iter(samples)
    for _ in range(3):
        stream = through(stream)
    began = time.thread_time()
    for _ in stream:
        pass
    return (time.thread_time() - began) / len(samples) * 1e6


class Given:
    """A source that has its samples already; `rate` a second, or as fast as they are taken."""

    def __init__(self, samples: Sequence[Sample | Block], rate: float | None = None) -> None:
        self._samples, self._rate = samples, rate

    @property
    def counts(self) -> Mapping[str, int]:
        return {}

    async def __aenter__(self) -> "Given":
        return self

    async def __aexit__(self, *error: object) -> None:
        return None

    async def __aiter__(self) -> AsyncIterator[Sample | Block]:
        began = time.perf_counter()
        for tick, sample in enumerate(self._samples):
            if self._rate is not None and isinstance(sample, Sample):
                await asyncio.sleep(max(0.0, began + tick / self._rate - time.perf_counter()))
                sample = Sample(sample.key, Clock().now(), sample.x, sample.y)
            yield sample


def _steps(stream: Stream) -> Stream:
    return stream.scale(0.0, 1.0).range(0.0, 16.0).filter(lambda sample: sample.y is not None)


def _pipeline(samples: Sequence[Sample]) -> float:
    """Microseconds a sample: check, three operators, model, sink."""
    predictor = predictor_of(load_bundle(bundle_path()))

    async def drop(sample: Sample) -> None:
        return None

    async def run() -> float:
        flow = Flow()
        check = Check((64,), 0.0, 16.0)
        readings = flow.source("sensor", Given(samples), check=check)
        _steps(readings).infer(predictor).sink(CallbackSink("drop", drop))
        began = time.thread_time()
        await Pipeline(flow).run()
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

    async def arrive(sample: Sample) -> None:
        waits.append(clock.now() - sample.time)

    flow = Flow()
    readings = flow.source("sensor", Given(samples[: int(PACED_S * RATE_HZ)], RATE_HZ))
    _steps(readings).infer(predictor).sink(CallbackSink("arrive", arrive))
    asyncio.run(Pipeline(flow).run())
    return waits


# ---- from a broker to a broker


async def _over_mqtt(port: int) -> list[Figure]:
    """Milliseconds from a message at the broker to its answer, beside the broker alone."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.mqtt_pipeline", str(port), stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    try:
        async with asyncio.timeout(WAIT_S):
            await child.stdout.readline()
        bare = await _exchange(port, RATE_HZ, "bare", "bare")
        through = await _exchange(port, RATE_HZ, "in", "out")
        fast = await _exchange(port, FAST_HZ, "in", "out")
        rss = memory(child.pid).resident
    finally:
        child.terminate()
        await child.wait()
    sent = int(FAST_HZ * MQTT_S)
    name = f"MQTT in, model, MQTT out at {RATE_HZ:,.0f}/s"
    return [
        Figure(
            f"{name}, median", median(through) * 1e3, "ms", "ms, broker alone", median(bare) * 1e3
        ),
        Figure(f"{name}, added", (median(through) - median(bare)) * 1e3, "ms"),
        Figure(
            f"{name}, p99",
            quantile(through, 0.99) * 1e3,
            "ms",
            "ms, broker alone",
            quantile(bare, 0.99) * 1e3,
        ),
        Figure(f"lost of {sent:,} at {FAST_HZ:,.0f}/s", sent - len(fast), ""),
        Figure(f"at {FAST_HZ:,.0f}/s, median", median(fast) * 1e3, "ms"),
        Figure("resident memory of that process", rss, "MB"),
    ]


async def _exchange(port: int, rate: float, to: str, back: str) -> list[float]:
    """Seconds of each message that came back; what is lost is not among them."""
    waits: list[float] = []
    count = int(rate * MQTT_S)
    values = digits().x[0].tolist()

    async def listen(link: MqttLink) -> None:
        async for message in link.messages():
            waits.append(time.time() - json.loads(message.payload)["time"])
            if len(waits) == count:
                return

    settings = (
        MqttSettings("127.0.0.1", port, who, os.urandom(8), inbox_messages=INBOX)
        for who in ("send", "hear")
    )
    async with MqttLink(next(settings)) as sender, MqttLink(next(settings)) as hearer:
        await hearer.subscribe(back, 0)
        await sender.connected(WAIT_S)
        listening = asyncio.create_task(listen(hearer))
        began = time.perf_counter()
        for tick in range(count):
            ahead = began + tick / rate - time.perf_counter()
            if ahead > 0.0005 or tick % 50 == 0:
                await asyncio.sleep(max(0.0, ahead))
            payload = json.dumps({"x": values, "time": time.time()}).encode()
            await sender.publish(to, payload, qos=0)
        await asyncio.wait([listening], timeout=WAIT_S / 4)
        listening.cancel()
    return waits


def _growth(rows: Floats) -> list[Figure]:
    """Megabytes that a million events leave behind, after a tenth as many to warm up."""
    predictor = predictor_of(load_bundle(bundle_path()))
    before = [0.0]

    class Counted(Given):
        async def __aiter__(self) -> AsyncIterator[Sample | Block]:
            for i in range(MANY + MANY // 10):
                if i == MANY // 10:
                    before[0] = memory(os.getpid()).resident
                yield Sample(f"key-{i % 5000}", float(i), rows[i % len(rows)])

    async def drop(sample: Sample) -> None:
        return None

    flow = Flow()
    readings = flow.source("sensor", Counted(())).scale(0.0, 1.0).deadtime(1.0).reorder(3.0)
    readings.infer(predictor).sink(CallbackSink("drop", drop))
    began = time.perf_counter()
    asyncio.run(Pipeline(flow).run())
    seconds = time.perf_counter() - began
    return [
        Figure(
            f"growth over {MANY:,} events of 5,000 keys",
            memory(os.getpid()).resident - before[0],
            "MB",
        ),
        Figure("of that pipeline, a second", MANY * 1.1 / seconds, "events"),
    ]
