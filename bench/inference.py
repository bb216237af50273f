"""A sample's answer: through the predictor, and from ONNX Runtime called directly."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import onnxruntime as ort

from bench.figures import Figure, in_turn, quantile, seconds_of
from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.manifest import preparation, prepare
from edgechoir.demo.show import bundle_path
from edgechoir.demo.split import digits
from edgechoir.inference.predictor import Predictor
from edgechoir.training.trainer import Trainer
from edgechoir.types import FitPlan, Floats

CALLS: Final = 2000
TURNS: Final = 15
RATE_HZ: Final = 200.0
PACED_S: Final = 3.0
PACED_TURNS: Final = 3


def measure() -> list[Figure]:
    bundle = load_bundle(bundle_path())
    predictor = predictor_of(bundle)
    x = digits().x[0]
    raw = raw_call(bundle)
    given = prepare(bundle.manifest, x[None])
    ours, direct = in_turn(
        TURNS,
        lambda: seconds_of(lambda: predictor.predict(x), CALLS, time.thread_time) * 1e6,
        lambda: seconds_of(lambda: raw(given), CALLS, time.thread_time) * 1e6,
    )
    ours99, direct99 = in_turn(
        TURNS,
        lambda: quantile(each(lambda: predictor.predict(x)), 0.99) * 1e6,
        lambda: quantile(each(lambda: raw(given)), 0.99) * 1e6,
    )
    quiet, busy = asyncio.run(_beside_training(predictor, x))
    predictor.close()
    by = "us by ONNX Runtime alone"
    return [
        Figure("one answer, processor time", ours, "us", by, direct),
        Figure("one answer, p99", ours99, "us", by, direct99),
        Figure(
            f"p99 at {RATE_HZ:g} Hz while it trains", busy * 1e3, "ms", "ms while idle", quiet * 1e3
        ),
    ]


def predictor_of(bundle: Bundle) -> Predictor:
    """As a device makes it."""
    return Predictor(
        bundle.onnx,
        bundle.params,
        0,
        shape=bundle.manifest.input_shape,
        prepare=preparation(bundle.manifest),
    )


def raw_call(bundle: Bundle) -> Callable[[Floats], Floats]:
    """The model's session on one thread and nothing around it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_external_initializers_from_files_in_memory(
        ["params.bin"], [bundle.params.view(np.uint8)], [bundle.params.nbytes]
    )
    session = ort.InferenceSession(bundle.onnx, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def call(batch: Floats) -> Floats:
        rows: Floats = session.run(None, {name: batch})[0]
        return rows

    return call


def each(work: Callable[[], object]) -> list[float]:
    """Seconds of each of `CALLS` calls."""
    clock, times = time.perf_counter, []
    for _ in range(CALLS):
        began = clock()
        work()
        times.append(clock() - began)
    return times


async def _beside_training(predictor: Predictor, x: Floats) -> tuple[float, float]:
    """p99 in seconds at a steady rate, without and with a worker that trains all the time."""
    rows = digits()
    plan = FitPlan(epochs=5, batch_size=16, learning_rate=0.1, seed=0)
    bundle = load_bundle(bundle_path())
    times: dict[bool, list[float]] = {False: [], True: []}
    async with Trainer(bundle.path) as trainer:
        await trainer.warm()

        async def train(enough: asyncio.Event) -> None:
            while not enough.is_set():
                await trainer.fit(bundle.params, rows.x, rows.y, plan)

        for _ in range(PACED_TURNS):
            times[False] += await _paced(predictor, x)
            enough = asyncio.Event()
            training = asyncio.create_task(train(enough))
            times[True] += await _paced(predictor, x)
            enough.set()
            await training
    return quantile(times[False], 0.99), quantile(times[True], 0.99)


async def _paced(predictor: Predictor, x: Floats) -> list[float]:
    began, times = time.perf_counter(), []
    for tick in range(int(PACED_S * RATE_HZ)):
        await asyncio.sleep(max(0.0, began + tick / RATE_HZ - time.perf_counter()))
        times.append((await predictor.apredict(x)).seconds)
    return times
