"""The stream of one device: source, check, operators, model; answers to sinks, labels to the store.

One task takes one sample after the other as far as the answer. Everything slower stands behind an
`Outlet`: a sink or the store that hangs costs its own items, never an answer. A source that gives
samples without ever waiting must not take the event loop for itself, so the loop is let go every
few milliseconds.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from edgechoir.errors import BadSample, InferenceError
from edgechoir.inference.predictor import Predictor, PredictorStats
from edgechoir.pipeline.operators import Operator
from edgechoir.pipeline.outlet import QUEUE, Outlet, OutletStats
from edgechoir.pipeline.sample import Check, Sample
from edgechoir.pipeline.sink import Answer, Sink
from edgechoir.pipeline.source import Source
from edgechoir.pipeline.stage import Reasons, Stage, StageStats

log = logging.getLogger(__name__)

SHARE_SECONDS: Final = 0.005
DRAIN_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """For status documents. read = answered + missed + dropped + what the operators held back.

    `dropped` counts by reason what the check refused, `missed` what the model could not answer, and
    `source` what the source itself counted.
    """

    read: int
    answered: int
    missed: Mapping[str, int]
    dropped: Mapping[str, int]
    source: Mapping[str, int]
    stages: tuple[StageStats, ...]
    sinks: tuple[OutletStats, ...]
    store: OutletStats | None
    predictor: PredictorStats


class Pipeline:
    """Runs samples from `source` through `check` and `operators` to `predictor`.

    Each answer goes to every sink. A sample with a label goes to `store_samples` as the model saw
    it: after the operators.
    """

    def __init__(
        self,
        source: Source,
        operators: Sequence[tuple[str, Operator]],
        predictor: Predictor,
        sinks: Sequence[Sink] = (),
        store_samples: Callable[[Sequence[Sample]], Awaitable[None]] | None = None,
        *,
        check: Check | None = None,
        queue: int = QUEUE,
        drain: float = DRAIN_SECONDS,
    ) -> None:
        """`operators` are (name, operator); `queue` bounds the items that wait for each outlet.

        `drain` is the time in seconds that sinks and store have at the end for what waits.
        """
        self._source, self._check, self._predictor = source, check, predictor
        self._drain = drain
        self._stages = tuple(Stage(name, operator) for name, operator in operators)
        self._sinks = tuple(sinks)
        self._outlets = tuple(Outlet[Answer](sink.name, sink.write, queue) for sink in sinks)
        self._store = (
            None if store_samples is None else Outlet[Sample]("store", store_samples, queue)
        )
        self._dropped = Reasons("source")
        self._missed = Reasons("model")
        self._read = self._answered = 0

    async def run(self) -> None:
        """Until the source ends or the task is cancelled.

        Then sinks and store get `drain` seconds for what waits, and sinks are closed.
        Raises OperatorError: the source cannot go on.
        """
        everything: tuple[Outlet[Answer] | Outlet[Sample], ...] = self._outlets
        if self._store is not None:
            everything = (*everything, self._store)
        # No task group: it would wrap the source's error, and cancel the outlets before they are
        # empty. `Outlet.run` raises nothing, and `_finish` leaves none of these tasks behind.
        workers = [asyncio.create_task(outlet.run(), name=outlet.name) for outlet in everything]
        try:
            await self._consume()
        finally:
            for outlet in everything:
                outlet.close()
            await _finish(workers, self._drain)
            for sink in self._sinks:
                await _close(sink, self._drain)

    async def _consume(self) -> None:
        shared = time.perf_counter()
        async with self._source:
            samples = aiter(self._source)
            try:
                async for sample in samples:
                    await self._take(sample)
                    if time.perf_counter() - shared > SHARE_SECONDS:
                        await asyncio.sleep(0)
                        shared = time.perf_counter()
            finally:
                if isinstance(samples, AsyncGenerator):
                    await samples.aclose()

    async def _take(self, sample: Sample) -> None:
        self._read += 1
        if self._check is not None:
            try:
                sample = self._check(sample)
            except BadSample as error:
                self._dropped.add(error)
                return
        for stage in self._stages:
            given = stage(sample)
            if given is None:
                return
            sample = given
        try:
            prediction = await self._predictor.apredict(sample.x)
        except (BadSample, InferenceError) as error:
            self._missed.add(error)
            return
        self._answered += 1
        answer = Answer(sample, prediction)
        for outlet in self._outlets:
            outlet.offer(answer)
        if self._store is not None and sample.y is not None:
            self._store.offer(sample)

    def stats(self) -> PipelineStats:
        return PipelineStats(
            read=self._read,
            answered=self._answered,
            missed=self._missed.counts(),
            dropped=self._dropped.counts(),
            source=self._source.counts,
            stages=tuple(stage.stats() for stage in self._stages),
            sinks=tuple(outlet.stats() for outlet in self._outlets),
            store=None if self._store is None else self._store.stats(),
            predictor=self._predictor.stats(),
        )


async def _finish(workers: Sequence[asyncio.Task[None]], drain: float) -> None:
    """Wait for the outlets to run empty; those that do not are cancelled."""
    if workers:
        try:
            await asyncio.wait(workers, timeout=drain)
        finally:
            for worker in workers:
                worker.cancel()
        await asyncio.wait(workers, timeout=drain)


async def _close(sink: Sink, drain: float) -> None:
    try:
        async with asyncio.timeout(drain):
            await sink.close()
    except Exception as error:  # a sink may be the user's code and raise anything
        log.warning("sink %s did not close: %r", sink.name, error)
