"""Answer samples with the current model, and exchange that model while answering.

One attribute, `_live`, holds everything that an answer needs. `predict` reads it once, so a
request that started on the old model ends on it, and an exchange is one assignment. A new model is
built and verified by `stage` beside the live one, in any thread; `commit` puts it in place. The one
before is kept: a sample that the new model fails on and the old one answers brings the old back.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from edgechoir.errors import BadModel, EdgechoirError, InferenceError, OperatorError, WrongShape
from edgechoir.inference.batcher import Answers, Batcher
from edgechoir.inference.candidate import (
    Candidate,
    Prepare,
    as_it_is,
    build,
    canary_batch,
    fingerprint,
)
from edgechoir.inference.latency import Latencies
from edgechoir.inference.prediction import Output, Prediction, read_row, read_rows
from edgechoir.inference.score import error_of
from edgechoir.inference.waiting import Priority, WhenFull
from edgechoir.types import Floats

log: Final = logging.getLogger(__name__)

INLINE_BELOW: Final = 0.0005
"""Seconds (p50). Handing a request to a thread and back costs about a tenth of this."""
BATCH: Final = 64
MAX_WAITING: Final = 64


@dataclass(frozen=True, slots=True)
class PredictorStats:
    """For status documents. Every request is in exactly one of `answered` and `missed`.

    `missed` counts requests that raised and those past the deadline; `late` is the part of them
    past the deadline, `dropped` the part that found the queue full. `p50` and `p99` are seconds
    over the last 1,024 requests. `batch` is how many samples may go to the model together.
    """

    version: int
    provider: str
    inline: bool
    answered: int
    missed: int
    late: int
    dropped: int
    batch: int
    p50: float
    p99: float
    swaps: int
    rollbacks: int


class Predictor:
    """The model of one device: samples of `shape` in, predictions out.

    `deadline` is the time in seconds after which an answer is of no use. `canary` [n, *shape] is
    the batch that a new model has to answer before it is let in. `prepare` [n, *shape] -> the same
    shape is applied to every raw sample first, unless `stage` is given another for
    its version. `apredict` belongs to one event loop, everything else may be called from several
    threads.

    With `batch` above 0, samples that wait for the model at the same time go to it together, as
    many as it answers within that many seconds. At most `bound` requests wait; `when_full` says
    which one is dropped then.
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
        batch: float = 0.0,
        bound: int = MAX_WAITING,
        when_full: WhenFull = WhenFull.NEWEST,
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
        self._batch = batch
        self._batcher = Batcher(
            self._answer_many,
            rows=self._rows,
            inline=lambda: self.inline,
            bound=bound,
            when_full=when_full,
        )

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
    def probe(self) -> float:
        """How long the live model took for one sample when it was put on trial, in seconds."""
        return self._live.probe

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
        try:
            self._check_shape(xs)
            answers = self._answer_many(xs, [started] * len(xs))
        except EdgechoirError:
            with self._count:
                self._missed += len(xs) if xs.ndim else 1
            raise
        with self._count:
            self._answered += len(answers)
        return tuple(answers)

    async def apredict(self, x: Floats, priority: Priority = Priority.LIVE) -> Prediction:
        """`predict` that never holds up the event loop for longer than `INLINE_BELOW` or so.

        Raises WrongShape, InferenceError: also when the deadline has passed, or when the queue is
        full and this request is the one to go.
        """
        if self.inline and not self._batch:
            return self.predict(x)
        started = self._clock()
        try:
            if x.shape != self.shape:
                raise WrongShape(f"the sample is {x.shape}, expected {self.shape}")
            xs = np.asarray(x, dtype=np.float32).reshape(self._one)
            request = self._batcher.ask(xs, started, priority)
            if self.inline:  # it is over at the end of this turn of the loop
                answers = await request
            else:
                async with asyncio.timeout(self.deadline):
                    answers = await request
        except TimeoutError:
            self._record(self._clock() - started, late=True)
            raise InferenceError(f"no answer within {self.deadline} s") from None
        except EdgechoirError:
            self._record(failed=True)
            raise
        self._record(answers[0].seconds)
        return answers[0]

    async def apredict_batch(self, xs: Floats) -> tuple[Prediction, ...]:
        """`predict_batch` that lets every live request go first: one piece after the other, each
        of no more rows than take `INLINE_BELOW`, or one row.

        Raises WrongShape, InferenceError: none of the n is answered.
        """
        started = self._clock()
        answers: list[Prediction] = []
        try:
            self._check_shape(xs)
            while len(answers) < len(xs):
                piece = self._live.rows_within(INLINE_BELOW, BATCH)
                part = np.asarray(xs[len(answers) : len(answers) + piece], np.float32)
                answers += await self._batcher.ask(part, started, Priority.BULK)
        except EdgechoirError:
            with self._count:
                self._missed += len(xs) if xs.ndim else 1
            raise
        with self._count:
            self._answered += len(answers)
        return tuple(answers)

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
                dropped=self._batcher.dropped,
                batch=self._rows(),
                p50=self._latencies.quantile(0.5),
                p99=self._latencies.quantile(0.99),
                swaps=self._swaps,
                rollbacks=self._rollbacks,
            )

    def latencies_since(self, count: int) -> tuple[int, list[float]]:
        """How many answers were timed so far, and the seconds of those after the first `count`; of
        many, the latest 1,024."""
        with self._count:
            return self._latencies.since(count)

    def close(self) -> None:
        """Let the worker thread go; it ends after the batch it is at."""
        self._batcher.close()

    def compare(
        self, candidate: Candidate, x: Floats, y: npt.NDArray[np.generic]
    ) -> tuple[float, float]:
        """The error of the live model and of a staged one on raw samples x [n, *shape] with labels
        y, see score.error_of. Blocking. Raises InferenceError."""
        return error_of(self._live, x, y, self.output), error_of(candidate, x, y, self.output)

    def _answer(self, x: Floats, started: float) -> Prediction:
        if x.shape != self.shape:
            raise WrongShape(f"the sample is {x.shape}, expected {self.shape}")
        one = np.asarray(x, dtype=np.float32).reshape(self._one)
        live = self._live
        try:
            return self._answer_of(live, one, started)
        except InferenceError as error:
            earlier = self._previous
            if earlier is None:
                raise
            answer = self._answer_of(earlier, one, started)
            self._give_up(live, earlier, error)
            return answer

    def _answer_of(self, model: Candidate, one: Floats, started: float) -> Prediction:
        values = model.session.run(model.prepare(one))[0]
        label, confidence = read_row(values.tolist(), self.output)
        return Prediction(values, label, confidence, model.version, self._clock() - started)

    def _answer_many(self, xs: Floats, started: Sequence[float]) -> Answers:
        live = self._live
        try:
            return self._answers_of(live, xs, started)
        except InferenceError as error:
            earlier = self._previous
            if earlier is None:
                raise
            answers = self._answers_of(earlier, xs, started)
            self._give_up(live, earlier, error)
            return answers

    def _answers_of(self, model: Candidate, xs: Floats, started: Sequence[float]) -> Answers:
        answers: list[Prediction] = []
        for at in range(0, len(xs), BATCH):
            batch = np.asarray(xs[at : at + BATCH], dtype=np.float32)
            rows = model.session.run(model.prepare(batch))
            labels, confidences = read_rows(rows, self.output)
            now, version = self._clock(), model.version
            answers += [
                Prediction(row, label, confidence, version, now - began)
                for row, label, confidence, began in zip(
                    rows, labels, confidences, started[at : at + BATCH], strict=True
                )
            ]
        return answers

    def _give_up(self, model: Candidate, earlier: Candidate, error: InferenceError) -> None:
        """The earlier model answered what this one could not: it is the live one again."""
        with self._exchange:
            if self._live is not model or self._previous is not earlier:
                return
            self._live, self._previous = earlier, None
            self._rollbacks += 1
        log.error(
            "version %d is given up, version %d answers again: %s",
            model.version,
            earlier.version,
            error,
        )

    def _rows(self) -> int:
        """How many samples may go to the model together."""
        live = self._live
        if not self._batch:
            return 1
        seconds = min(self._batch, INLINE_BELOW) if self.inline else self._batch
        return live.rows_within(seconds, BATCH)

    def _check_shape(self, xs: Floats) -> None:
        if not xs.ndim or xs.shape[1:] != self.shape:
            raise WrongShape(f"samples are {xs.shape}, expected (n, *{self.shape})")

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
