"""Answer samples with the current model, and exchange that model while answering.

One attribute, `_live`, holds everything that an answer needs. `predict` reads it once, so a
request that started on the old model ends on it, and an exchange is one assignment. A new model is
built and verified by `stage` beside the live one, in any thread; `commit` puts it in place.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgechoir.errors import BadModel, EdgechoirError, InferenceError, OperatorError, WrongShape
from edgechoir.inference.candidate import (
    Candidate,
    Prepare,
    as_it_is,
    build,
    canary_batch,
    fingerprint,
)
from edgechoir.inference.latency import Latencies
from edgechoir.inference.prediction import Output, Prediction, read_row
from edgechoir.types import Floats

INLINE_BELOW: Final = 0.0005
"""Seconds (p50). Handing a request to a thread and back costs about a tenth of this."""
BATCH: Final = 64
MAX_WAITING: Final = 64


@dataclass(frozen=True, slots=True)
class PredictorStats:
    """For status documents. Every request is in exactly one of `answered` and `missed`.

    `missed` counts requests that raised and those past the deadline; `late` is the part of them
    past the deadline. `p50` and `p99` are seconds over the last 1,024 requests.
    """

    version: int
    provider: str
    inline: bool
    answered: int
    missed: int
    late: int
    p50: float
    p99: float
    swaps: int
    rollbacks: int


class Predictor:
    """The model of one device: samples of `shape` in, predictions out.

    `deadline` is the time in seconds after which an answer is of no use. `canary` [n, *shape] is
    the batch that a new model has to answer before it is let in. `prepare` [n, *shape] -> the same
    shape is applied to every raw sample first, unless `stage` is given another for
    its version. Safe to call from several threads.
    """

    def __init__(
        self,
        onnx: bytes,
        params: Floats,
        version: int,
        *,
        shape: tuple[int, ...],
        output: Output = Output.LOGITS,
        sha256: bytes | None = None,
        deadline: float = 1.0,
        canary: Floats | None = None,
        prepare: Prepare | None = None,
        providers: Sequence[str] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """Build and verify the first model. Raises BadModel as `stage` does."""
        self.shape = shape
        self.output = output
        self.deadline = deadline
        self._onnx = onnx
        self._length = params.size
        self._prepare = prepare or as_it_is
        self._canary = canary_batch(shape) if canary is None else canary
        self._providers = providers
        self._clock = clock
        self._one = (1, *shape)
        digest = fingerprint(params) if sha256 is None else sha256
        self._live = self._build(params, version, digest, self._prepare)
        self._previous: Candidate | None = None
        self._exchange = threading.Lock()
        self._count = threading.Lock()
        self._latencies = Latencies()
        self._answered = self._missed = self._late = self._swaps = self._rollbacks = 0
        self._waiting = 0
        self._worker: ThreadPoolExecutor | None = None

    @property
    def version(self) -> int:
        return self._live.version

    @property
    def sha256(self) -> bytes:
        return self._live.sha256

    @property
    def provider(self) -> str:
        """The execution provider that runs most of the live model."""
        return self._live.session.provider

    @property
    def inline(self) -> bool:
        """Whether the live model is so fast that `apredict` does without a thread."""
        return self._live.probe < INLINE_BELOW

    @property
    def previous(self) -> int | None:
        """The version that `rollback` would bring back."""
        return None if self._previous is None else self._previous.version

    def predict(self, x: Floats) -> Prediction:
        """Answer one sample x [*shape]. An answer past the deadline is given, but counts as missed.

        Raises WrongShape, InferenceError; both count as missed.
        """
        started = self._clock()
        try:
            prediction = self._answer(x, started)
        except EdgechoirError:
            self._record(failed=True)
            raise
        self._record(prediction.seconds)
        return prediction

    def predict_batch(self, xs: Floats) -> tuple[Prediction, ...]:
        """Answer samples xs [n, *shape] in batches of at most `BATCH`.

        `seconds` is that of the whole call. Meant for replay, evaluation and served requests; it
        enters the counts but not the latency figures.
        Raises WrongShape, InferenceError: none of the n is answered.
        """
        started = self._clock()
        live = self._live
        try:
            if xs.shape[1:] != self.shape or not xs.ndim:
                raise WrongShape(f"samples are {xs.shape}, expected (n, *{self.shape})")
            xs = np.asarray(xs, dtype=np.float32)
            rows = [
                row
                for start in range(0, len(xs), BATCH)
                for row in live.session.run(live.prepare(xs[start : start + BATCH]))
            ]
            read = [read_row(row.tolist(), self.output) for row in rows]
        except EdgechoirError:
            with self._count:
                self._missed += len(xs) if xs.ndim else 1
            raise
        seconds = self._clock() - started
        with self._count:
            self._answered += len(rows)
        return tuple(
            Prediction(row, label, confidence, live.version, seconds)
            for row, (label, confidence) in zip(rows, read, strict=True)
        )

    async def apredict(self, x: Floats) -> Prediction:
        """`predict` that never holds up the event loop for longer than `INLINE_BELOW` or so.

        Raises WrongShape, InferenceError: also when the deadline has passed, or when `MAX_WAITING`
        requests wait already.
        """
        if self.inline:
            return self.predict(x)
        started = self._clock()
        if self._waiting >= MAX_WAITING:
            self._record(failed=True)
            raise InferenceError(f"{MAX_WAITING} requests wait for the model already")
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="edgechoir-inference")
        loop = asyncio.get_running_loop()
        request = loop.run_in_executor(self._worker, self._answer_in_time, x, started)
        self._waiting += 1
        request.add_done_callback(self._leave)
        try:
            async with asyncio.timeout(self.deadline):
                # Shielded: a request given up here still holds its place until the worker has
                # come to it, so a worker that hangs cannot collect a queue without a bound.
                prediction = await asyncio.shield(request)
        except TimeoutError:
            self._record(self._clock() - started, late=True)
            raise InferenceError(f"no answer within {self.deadline} s") from None
        except EdgechoirError:
            self._record(failed=True)
            raise
        self._record(prediction.seconds)
        return prediction

    def stage(
        self, params: Floats, version: int, sha256: bytes, prepare: Prepare | None = None
    ) -> Candidate:
        """Build and verify new weights [d] beside the live ones, with what prepares samples for
        them where that has changed. Blocking; call it in a thread.

        Raises BadModel: what was given cannot replace the live model, which stays as it is.
        """
        if params.size != self._length:
            raise BadModel(f"{params.size} weights, expected {self._length}")
        candidate = self._build(params, version, sha256, prepare or self._prepare)
        if candidate.width != self._live.width:
            raise BadModel(f"an answer has {candidate.width} values, expected {self._live.width}")
        return candidate

    def commit(self, candidate: Candidate) -> None:
        """Put a staged model in place of the live one, which is kept for `rollback`."""
        with self._exchange:
            self._previous, self._live = self._live, candidate
            self._swaps += 1

    def rollback(self) -> int:
        """Bring the previous model back, forget the live one, and return the version now live.

        Raises OperatorError: there is no previous model.
        """
        with self._exchange:
            if self._previous is None:
                raise OperatorError(f"version {self.version} has no previous model to go back to")
            self._live, self._previous = self._previous, None
            self._rollbacks += 1
            return self._live.version

    def stats(self) -> PredictorStats:
        live = self._live
        with self._count:
            return PredictorStats(
                version=live.version,
                provider=live.session.provider,
                inline=live.probe < INLINE_BELOW,
                answered=self._answered,
                missed=self._missed,
                late=self._late,
                p50=self._latencies.quantile(0.5),
                p99=self._latencies.quantile(0.99),
                swaps=self._swaps,
                rollbacks=self._rollbacks,
            )

    def close(self) -> None:
        """Let the worker thread go; it ends after the request it is at."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None

    def _answer(self, x: Floats, started: float) -> Prediction:
        live = self._live
        if x.shape != self.shape:
            raise WrongShape(f"the sample is {x.shape}, expected {self.shape}")
        one = np.asarray(x, dtype=np.float32).reshape(self._one)
        values = live.session.run(live.prepare(one))[0]
        label, confidence = read_row(values.tolist(), self.output)
        return Prediction(values, label, confidence, live.version, self._clock() - started)

    def _answer_in_time(self, x: Floats, started: float) -> Prediction:
        if self._clock() - started > self.deadline:
            raise InferenceError(f"no answer within {self.deadline} s")
        return self._answer(x, started)

    def _leave(self, _: asyncio.Future[Prediction]) -> None:
        self._waiting -= 1

    def _record(
        self, seconds: float | None = None, *, failed: bool = False, late: bool = False
    ) -> None:
        """Count one request; `seconds` is None where there was no answer to time."""
        late = late or (seconds is not None and seconds > self.deadline)
        with self._count:
            if seconds is not None:
                self._latencies.add(seconds)
            if failed or late:
                self._missed += 1
                self._late += late
            else:
                self._answered += 1

    def _build(self, params: Floats, version: int, sha256: bytes, prepare: Prepare) -> Candidate:
        return build(
            self._onnx,
            params,
            version,
            sha256,
            output=self.output,
            canary=self._canary,
            prepare=prepare,
            providers=self._providers,
            clock=self._clock,
        )
