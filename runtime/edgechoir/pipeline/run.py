"""A pipeline at work: samples from its sources through its steps to sinks and training store.

One task for each source takes one sample (or block) after the other as far as it goes. Everything
slower stands behind an `Outlet`: a sink or the store that hangs costs its own items, never an
answer. A source that cannot be read is opened again, after a pause that doubles; an operator that
fails costs its sample. So nothing but its end, or a declaration that cannot work, stops a stream.
A source that gives samples without ever waiting must not take the event loop for itself, so the
loop is let go every few milliseconds.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Coroutine, Sequence
from typing import Any, Final

from edgechoir.errors import BadSample, InferenceError, OperatorError
from edgechoir.inference.prediction import Prediction
from edgechoir.inference.predictor import Predictor
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.flow import Flow, Outflow
from edgechoir.pipeline.listing import PipelineStats, Row, rows_of, stats_of
from edgechoir.pipeline.node import Node, connect
from edgechoir.pipeline.operators import Given, Routed
from edgechoir.pipeline.outlet import QUEUE, Outlet
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sink import Sink
from edgechoir.pipeline.source import Source
from edgechoir.pipeline.stage import DeadLetter, Reasons, Stage

log = logging.getLogger(__name__)

SHARE_SECONDS: Final = 0.001
DRAIN_SECONDS: Final = 2.0
RETRY_FIRST: Final = 0.5
RETRY_LAST: Final = 60.0


class Pipeline:
    """Runs `flow`. It can be listed, paused and updated while it does."""

    def __init__(
        self,
        flow: Flow,
        *,
        queue: int = QUEUE,
        drain: float = DRAIN_SECONDS,
        clock: Clock | None = None,
    ) -> None:
        """`queue` bounds the items that wait for each sink and the store.

        `drain` is the time in seconds that they have at the end for what waits.
        """
        if not flow.sources:
            raise OperatorError("a pipeline needs a source")
        self.flow = flow
        self._queue, self._drain = queue, drain
        self._clock = Clock() if clock is None else clock
        self._outlets = {each.sink.name: self._outlet(each.sink) for each in flow.outflows}
        self._store = None if flow.store is None else Outlet[Sample]("store", flow.store, queue)
        self._nodes = connect(flow, self._outlets, {})
        self._failures = {name: Reasons(f"source {name}") for name in flow.sources}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._shared = 0.0
        self._running = False

    async def run(self) -> None:
        """Until every source has ended or the task is cancelled.

        Then sinks and store get `drain` seconds for what waits, and sinks are closed.
        Raises OperatorError: a source cannot work as it is declared.
        """
        # No task group: it would wrap a source's error, and cancel the outlets before they are
        # empty. None of these tasks is left behind.
        self._running = True
        if self._store is not None:
            self._start("store", self._store.run())
        for name, outlet in self._outlets.items():
            self._start(name, outlet.run())
        self._start_pumps()
        sources = [
            asyncio.create_task(self._consume(name, source), name=f"source {name}")
            for name, (source, _) in self.flow.sources.items()
        ]
        try:
            await asyncio.gather(*sources)
            await self._finish_steps()
        finally:
            self._running = False
            await _cancel(sources)
            await self._stop()

    # ---- samples

    async def _consume(self, name: str, source: Source) -> None:
        labels = name == self.flow.labels
        later: list[tuple[Node, Sample | Block]] = []
        async for item in self._readings(name, source):
            if labels:
                self._label(item)
            else:
                self._go(self._nodes[name], item, later)
                if later:
                    waiting, later = later, []
                    await self._wait_for(waiting)
            if time.perf_counter() - self._shared > SHARE_SECONDS:
                await asyncio.sleep(0)
                self._shared = time.perf_counter()

    async def _readings(self, name: str, source: Source) -> AsyncGenerator[Sample | Block, None]:
        """What the source gives. When it fails it is opened again, after a pause that doubles."""
        opened, pause = False, RETRY_FIRST
        while True:
            try:
                async with source:
                    opened = True
                    samples = aiter(source)
                    try:
                        async for item in samples:
                            pause = RETRY_FIRST
                            yield item
                    finally:
                        if isinstance(samples, AsyncGenerator):
                            await samples.aclose()
                return
            except Exception as error:  # a source may be the user's code and raise anything
                if isinstance(error, OperatorError) and not opened:
                    raise
                self._failures[name].add(error)
            await self._clock.sleep(pause)
            pause = min(RETRY_LAST, 2 * pause)

    async def _pass(self, node: Node, item: Sample | Block) -> None:
        """Take a sample or block from `node` as far as it goes."""
        later: list[tuple[Node, Sample | Block]] = []
        self._go(node, item, later)
        if later:
            await self._wait_for(later)

    def _go(
        self, node: Node, item: Sample | Block, later: list[tuple[Node, Sample | Block]]
    ) -> None:
        """The same as far as it goes without waiting; what waits for a model is put in `later`."""
        while True:
            given: Given
            if node.predictor is not None:
                if not node.predictor.inline and not node.stage.paused:
                    later.append((node, item))
                    return
                given = self._answer(node, node.predictor, item)
            elif node.outlet is not None:
                if isinstance(item, Sample):
                    node.outlet.offer(item)
                else:
                    for one in item.samples():
                        node.outlet.offer(one)
                return
            elif isinstance(item, Sample):
                given = node.stage(item)
            else:
                given = node.stage.take_block(item)
            if isinstance(given, Sample):
                item = given
                if len(node.nexts) == 1:
                    node = node.nexts[0]
                    continue
            self._spread(node, given, later)
            return

    def _spread(self, node: Node, given: Given, later: list[tuple[Node, Sample | Block]]) -> None:
        """Send what came of a step to all that take from it."""
        if given is None:
            return
        for each in given if isinstance(given, list) else (given,):
            nexts, item = node.after(each)
            for following in nexts:
                self._go(following, item, later)

    async def _wait_for(self, later: list[tuple[Node, Sample | Block]]) -> None:
        """Ask models that take their time, one sample after the other."""
        while later:
            waiting, later = later, []
            for node, item in waiting:
                self._spread(node, await self._answer_slowly(node, item), later)

    def _answer(self, node: Node, predictor: Predictor, item: Sample | Block) -> Given:
        """The sample with the model's answer; a block as a list of them."""
        stage = node.stage
        if stage.paused:
            stage.count(1 if isinstance(item, Sample) else len(item), None, 0.0)
            return None
        started = time.perf_counter()
        if isinstance(item, Sample):
            try:
                answer = predictor.predict(item.x)
            except (BadSample, InferenceError) as error:
                _missed(stage, item, error, started)
                return None
            return self._answered(stage, item, answer, started)
        try:
            answers = predictor.predict_batch(item.x)
        except (BadSample, InferenceError):  # one of them: each is asked for alone
            each = [self._answer(node, predictor, sample) for sample in item.samples()]
            return [sample for sample in each if isinstance(sample, Sample)]
        return self._answered_all(stage, item, answers, started)

    async def _answer_slowly(self, node: Node, item: Sample | Block) -> Given:
        """The same of a model that must not hold the event loop up."""
        stage, predictor = node.stage, node.predictor
        if predictor is None:
            return None
        started = time.perf_counter()
        if isinstance(item, Sample):
            try:
                answer = await predictor.apredict(item.x)
            except (BadSample, InferenceError) as error:
                _missed(stage, item, error, started)
                return None
            return self._answered(stage, item, answer, started)
        try:
            answers = await asyncio.to_thread(predictor.predict_batch, item.x)
        except (BadSample, InferenceError):
            each = [await self._answer_slowly(node, sample) for sample in item.samples()]
            return [sample for sample in each if isinstance(sample, Sample)]
        return self._answered_all(stage, item, answers, started)

    def _answered(self, stage: Stage, sample: Sample, answer: Prediction, started: float) -> Sample:
        given = Sample(sample.key, sample.time, sample.x, sample.y, answer)
        stage.count(1, given, time.perf_counter() - started)
        self._remember(given)
        return given

    def _answered_all(
        self, stage: Stage, block: Block, answers: Sequence[Prediction], started: float
    ) -> list[Sample | Routed]:
        given: list[Sample | Routed] = []
        for sample, answer in zip(block.samples(), answers, strict=True):
            one = Sample(sample.key, sample.time, sample.x, sample.y, answer)
            self._remember(one)
            given.append(one)
        stage.count(len(given), given, time.perf_counter() - started)
        return given

    def _remember(self, sample: Sample) -> None:
        """A labelled sample is for the training store; another one may wait for its label."""
        if sample.y is not None:
            if self._store is not None:
                self._store.offer(sample)
        elif self.flow.late is not None:
            self.flow.late.hold(sample, self._clock.monotonic())

    def _label(self, item: Sample | Block) -> None:
        late = self.flow.late
        for label in [item] if isinstance(item, Sample) else item.samples():
            if late is not None and label.y is not None:
                for sample in late.label(label, self._clock.monotonic()):
                    if self._store is not None:
                        self._store.offer(sample)

    async def _pump(self, name: str) -> None:
        """What waits in a `Relief` goes on from there."""
        relief = self._nodes[name].relief
        while relief is not None:
            sample = await relief.take()
            node = self._nodes[name]
            node.stage.count(0, sample, 0.0)
            for following in node.nexts:
                await self._pass(following, sample)
            await asyncio.sleep(0)

    async def _finish_steps(self) -> None:
        """The sources have ended: what steps still hold goes on, in the order of the steps."""
        for name, node in self._nodes.items():
            if node.relief is not None:
                await _cancel([self._workers.pop(f"relief {name}")])
            if callable(node.finish):
                for given in node.finish():
                    nexts, sample = node.after(given)
                    for following in nexts:
                        await self._pass(following, sample)

    # ---- while it runs

    def stats(self) -> PipelineStats:
        return stats_of(self.flow, self._nodes, self._outlets, self._store, self._failures)

    def rows(self) -> list[Row]:
        """Every source, step and sink with its counts, in order."""
        return rows_of(self._nodes, self._outlets, self._store)

    def pause(self, name: str, paused: bool = True) -> None:
        """Hold back, or let pass again, what reaches a source, step or sink.

        Raises OperatorError: there is none of this name.
        """
        node = self._find(name)
        node.stage.paused = paused
        if node.outlet is not None:
            node.outlet.paused = paused

    def letters(self, name: str) -> list[DeadLetter]:
        """The last dead letters of a source or step. Raises OperatorError: none of this name."""
        return self._find(name).stage.letters()

    def update(self, flow: Flow) -> None:
        """Put the steps and sinks of `flow` in place of those until now; sources stay.

        What is declared as before keeps its state. A sample that is under way ends on the old
        path. Raises OperatorError: `flow` has other sources.
        """
        if list(flow.sources) != list(self.flow.sources):
            raise OperatorError(
                f"the sources are {', '.join(self.flow.sources)}, the update has "
                f"{', '.join(flow.sources)}: sources change at a restart"
            )
        flow.sources, flow.store = self.flow.sources, self.flow.store
        flow.labels, flow.late = self.flow.labels, self.flow.late
        kept = {e.sink.name: e for e in self.flow.outflows if e.declared is not None}
        outlets: dict[str, Outlet[Sample]] = {}
        for position, new in enumerate(flow.outflows):
            name, old = new.sink.name, kept.get(new.sink.name)
            if old is not None and old.declared == new.declared:
                flow.outflows[position] = Outflow(old.sink, new.inputs, new.declared)
                outlets[name] = self._outlets[name]
            else:
                outlets[name] = self._outlet(new.sink)
        nodes = connect(flow, outlets, self._nodes)
        gone = [
            e.sink
            for e in self.flow.outflows
            if outlets.get(e.sink.name) is not self._outlets[e.sink.name]
        ]
        for sink in gone:
            self._outlets[sink.name].close()
            if self._running:
                self._leave(sink, self._workers.pop(sink.name))
        fresh = [name for name in outlets if outlets[name] is not self._outlets.get(name)]
        self.flow, self._outlets, self._nodes = flow, outlets, nodes
        if self._running:
            for name in fresh:
                self._start(name, outlets[name].run())
            self._start_pumps()

    # ---- tasks

    def _outlet(self, sink: Sink) -> Outlet[Sample]:
        return Outlet[Sample](sink.name, sink.write, self._queue)

    def _find(self, name: str) -> Node:
        node = self._nodes.get(name)
        if node is None:
            raise OperatorError(f"there is no {name!r} here, only {', '.join(self._nodes)}")
        return node

    def _start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._workers[name] = asyncio.create_task(work, name=name)

    def _start_pumps(self) -> None:
        """One for each `Relief`; one that is gone, or another under its name, is let go."""
        wanted = {f"relief {n}": node.relief for n, node in self._nodes.items() if node.relief}
        for name in [n for n in self._workers if n.startswith("relief ")]:
            self._workers.pop(name).cancel()
        for name in wanted:
            self._start(name, self._pump(name.removeprefix("relief ")))

    def _leave(self, sink: Sink, worker: asyncio.Task[None]) -> None:
        async def leave() -> None:
            await _finish([worker], self._drain)
            await _close(sink, self._drain)

        task = asyncio.create_task(leave(), name=f"leave {sink.name}")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _stop(self) -> None:
        pumps = [self._workers.pop(n) for n in list(self._workers) if n.startswith("relief ")]
        await _cancel(pumps)
        for outlet in (*self._outlets.values(), *([self._store] if self._store else [])):
            outlet.close()
        await _finish(list(self._workers.values()), self._drain)
        for outflow in self.flow.outflows:
            await _close(outflow.sink, self._drain)
        if self._leaving:
            await asyncio.wait(self._leaving, timeout=3 * self._drain)


def _missed(stage: Stage, sample: Sample, error: Exception, started: float) -> None:
    stage.fail(sample, error)
    stage.count(1, None, time.perf_counter() - started)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


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
