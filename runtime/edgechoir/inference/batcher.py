"""One model and many who ask it: their samples wait here, and go to the model together.

Nothing waits for company. A request that finds the model free goes at once; those that come while
it is at work go as one batch when it is done, live ones before bulk. So a lone request pays nothing
for batching, and the batches grow with the load. How many rows a batch may have is the caller's to
say (`rows`), from how long it may take.

The state belongs to the event loop. The model runs in it, at the end of the turn, where it is fast,
and in one worker thread where it is not.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from edgechoir.errors import EdgechoirError, InferenceError
from edgechoir.inference.prediction import Prediction
from edgechoir.inference.waiting import Priority, Waiting, WhenFull
from edgechoir.types import Floats

Answers = Sequence[Prediction]


@dataclass(slots=True, eq=False)
class Request:
    """Samples xs [n, *shape], and where their n answers go. `started` is by the predictor's
    clock."""

    xs: Floats
    started: float
    answers: asyncio.Future[Answers]


class Batcher:
    """`run` answers samples [n, *shape] that came at the given times, or raises EdgechoirError."""

    def __init__(
        self,
        run: Callable[[Floats, Sequence[float]], Answers],
        *,
        rows: Callable[[], int],
        inline: Callable[[], bool],
        bound: int,
        when_full: WhenFull = WhenFull.NEWEST,
    ) -> None:
        self._run = run
        self._rows = rows
        self._inline = inline
        self._waiting: Waiting[Request] = Waiting(bound, when_full)
        self._worker: ThreadPoolExecutor | None = None
        self._busy = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self.dropped = 0
        self.batches = 0

    def ask(self, xs: Floats, started: float, priority: Priority) -> asyncio.Future[Answers]:
        """The answers to come. The future fails with InferenceError for a request that was dropped,
        and with what `run` raises."""
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # of another loop nothing will ever come back
            self._loop, self._busy = loop, False
            self._waiting = Waiting(self._waiting.bound, self._waiting.when_full)
        request = Request(xs, started, loop.create_future())
        dropped = self._waiting.put(request, priority)
        if dropped is not None:
            self.dropped += 1
            _fail(dropped, InferenceError(f"{self._waiting.bound} requests wait for the model"))
        if not self._busy:
            self._busy = True
            if self._inline():
                loop.call_soon(self._answer_here, loop)
            else:
                self._hand_over(loop)
        return request.answers

    def close(self) -> None:
        """Let the worker thread go; it ends after the batch it is at."""
        if self._worker is not None:
            self._worker.shutdown(wait=False, cancel_futures=True)
            self._worker = None
        while (left := self._waiting.take()) is not None:
            _fail(left, InferenceError("the model was put away"))

    def _answer_here(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._gather()
        if batch:
            _deliver(batch, self._outcomes(batch))
        if len(self._waiting):
            loop.call_soon(self._answer_here, loop)  # others have their turn in between
        else:
            self._busy = False

    def _hand_over(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._gather()
        if not batch:
            self._busy = False
            return
        if self._worker is None:
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="edgechoir-inference")
        job = loop.run_in_executor(self._worker, self._outcomes, batch)
        job.add_done_callback(lambda done: self._handed_back(loop, batch, done))

    def _handed_back(
        self,
        loop: asyncio.AbstractEventLoop,
        batch: list[Request],
        done: "asyncio.Future[list[Answers | EdgechoirError]]",
    ) -> None:
        if done.cancelled():
            for request in batch:
                request.answers.cancel()
            return
        _deliver(batch, done.result())
        self._hand_over(loop)

    def _gather(self) -> list[Request]:
        """Those that go together now: at least one, where anybody still waits for an answer."""
        most, batch, rows = self._rows(), list[Request](), 0
        while (next_ := self._waiting.peek()) is not None:
            if batch and rows + len(next_.xs) > most:
                break
            self._waiting.take()
            if not next_.answers.done():  # else it was given up meanwhile
                batch.append(next_)
                rows += len(next_.xs)
        return batch

    def _outcomes(self, batch: list[Request]) -> list[Answers | EdgechoirError]:
        """What each is told. Where one spoils the batch, each is asked for alone."""
        self.batches += 1
        if len(batch) > 1:
            started = [request.started for request in batch for _ in range(len(request.xs))]
            try:
                answers = self._run(np.concatenate([request.xs for request in batch]), started)
            except EdgechoirError:
                pass
            else:
                return _shares(batch, answers)
        return [self._alone(request) for request in batch]

    def _alone(self, request: Request) -> Answers | EdgechoirError:
        try:
            return self._run(request.xs, [request.started] * len(request.xs))
        except EdgechoirError as error:
            return error


def _shares(batch: list[Request], answers: Answers) -> list[Answers | EdgechoirError]:
    shares: list[Answers | EdgechoirError] = []
    at = 0
    for request in batch:
        shares.append(answers[at : at + len(request.xs)])
        at += len(request.xs)
    return shares


def _deliver(batch: list[Request], outcomes: list[Answers | EdgechoirError]) -> None:
    for request, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, EdgechoirError):
            _fail(request, outcome)
        elif not request.answers.done():
            request.answers.set_result(outcome)


def _fail(request: Request, error: EdgechoirError) -> None:
    if not request.answers.done():
        request.answers.set_exception(error)
