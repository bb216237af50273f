"""A sample's answer: through the predictor, and from ONNX Runtime called directly.

Alone, with others in a batch, while the model is exchanged, and while the device trains.
"""

import asyncio
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort

from bench.figures import Figure, in_turn, quantile, seconds_of
from bench.models import bundle_of
from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.manifest import preparation, prepare
from edgechoir.demo.show import bundle_path
from edgechoir.demo.split import digits
from edgechoir.inference.candidate import fingerprint
from edgechoir.inference.predictor import BATCH, Predictor
from edgechoir.training.trainer import Trainer
from edgechoir.types import FitPlan, Floats

CALLS: Final = 2000
TURNS: Final = 15
RATE_HZ: Final = 200.0
PACED_S: Final = 3.0
PACED_TURNS: Final = 3
ASKERS: Final = 64
"""Who ask at the same time, each again as soon as it has its answer."""
BUDGET_S: Final = 0.01
SWAPS: Final = 40


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
    with tempfile.TemporaryDirectory() as folder:
        beside = [*_together(bundle, "mlp-2k"), *_models(Path(folder))]
    return [
        Figure("one answer, processor time", ours, "us", by, direct),
        Figure("one answer, p99", ours99, "us", by, direct99),
        *beside,
        Figure(
            f"p99 at {RATE_HZ:g} Hz while it trains", busy * 1e3, "ms", "ms while idle", quiet * 1e3
        ),
    ]


def _models(folder: Path) -> list[Figure]:
    """Of models of other kinds, and the exchange of a large one."""
    figures: list[Figure] = []
    for name in ("mlp-85k", "gru-14k", "cnn-6k"):
        figures += _together(bundle_of(name, folder), name)
    return [*figures, *_swaps(bundle_of("mlp-1m", folder))]


def _together(bundle: Bundle, name: str) -> list[Figure]:
    """What the batcher adds to a lone answer, and processor time a sample where many ask."""
    predictor, raw = predictor_of(bundle, BUDGET_S), raw_call(bundle)
    shape = bundle.manifest.input_shape
    xs = np.random.default_rng(0).uniform(0, 4, (ASKERS, *shape)).astype(np.float32)
    one = prepare(bundle.manifest, xs[:1])
    calls = max(20, int(0.02 / predictor.predict(xs[0]).seconds / ASKERS) * 2)

    async def lone() -> float:
        times = []
        for _ in range(4 * calls):
            began = time.perf_counter()
            await predictor.apredict(xs[0])
            times.append(time.perf_counter() - began)
        return quantile(times, 0.5) * 1e6

    async def many() -> float:
        async def ask(x: Floats) -> None:
            for _ in range(calls // 2):
                await predictor.apredict(x)

        began = time.process_time()
        await asyncio.gather(*(ask(x) for x in xs))
        return (time.process_time() - began) / (calls // 2 * ASKERS) * 1e6

    def plain() -> float:
        times = []
        for _ in range(4 * calls):
            began = time.perf_counter()
            raw(one)
            times.append(time.perf_counter() - began)
        return quantile(times, 0.5) * 1e6

    cpu = time.process_time
    alone, bare, crowd, block, each_ = in_turn(
        TURNS // 3,
        lambda: asyncio.run(lone()),
        plain,
        lambda: asyncio.run(many()),
        lambda: seconds_of(lambda: predictor.predict_batch(xs), calls // 2, cpu) / ASKERS * 1e6,
        lambda: seconds_of(lambda: raw(one), 4 * calls, cpu) * 1e6,
    )
    predictor.close()
    by = "us by ONNX Runtime alone, one by one"
    return [
        Figure(f"{name}: through the batcher, one asks, p50", alone, "us", by, bare),
        Figure(f"{name}: {ASKERS} ask, processor time each", crowd, "us", by, each_),
        Figure(f"{name}: in blocks of {BATCH}, processor time each", block, "us", by, each_),
    ]


def _swaps(bundle: Bundle) -> list[Figure]:
    """Exchanges of a model of a million parameters while another thread asks all the time."""
    predictor = predictor_of(bundle)
    x = np.ones(bundle.manifest.input_shape, np.float32)
    seconds: list[float] = []
    spent: list[float] = []
    asked: dict[bool, list[float]] = {False: [], True: []}
    swapping, over = threading.Event(), threading.Event()

    def ask() -> None:
        while not over.is_set():
            during = swapping.is_set()
            asked[during].append(predictor.predict(x).seconds)
            time.sleep(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(1.0)
    swapping.set()
    for version in range(SWAPS):
        params = bundle.params * np.float32(1 + version / 100)
        digest = fingerprint(params)
        began, used = time.perf_counter(), time.thread_time()
        predictor.commit(predictor.stage(params, version, digest))
        seconds.append(time.perf_counter() - began)
        spent.append(time.thread_time() - used)
    over.set()
    asking.join()
    missed = predictor.stats().missed
    predictor.close()
    swap, swap_cpu = quantile(seconds, 0.5) * 1e3, quantile(spent, 0.5) * 1e3
    return [
        Figure("mlp-1m: exchange beside the answers, processor time", swap_cpu, "ms"),
        Figure("mlp-1m: exchange beside the answers, p50", swap, "ms"),
        Figure(
            "mlp-1m: an answer meanwhile, p99",
            quantile(asked[True], 0.99) * 1e3,
            "ms",
            "ms without",
            quantile(asked[False], 0.99) * 1e3,
        ),
        Figure(f"mlp-1m: missed in {SWAPS} exchanges", missed, f"of {len(asked[True])}"),
    ]


def predictor_of(bundle: Bundle, batch: float = 0.0) -> Predictor:
    """As a device makes it."""
    return Predictor(
        bundle.onnx,
        bundle.params,
        0,
        shape=bundle.manifest.input_shape,
        prepare=preparation(bundle.manifest),
        batch=batch,
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
