"""The device's side of training: a worker process that is there only while it is needed.

The worker starts with the first job (or `warm`), takes one job at a time and ends by itself after
`idle_timeout` seconds. A job that is cancelled, overdue or broken kills its worker: there is no
other way to stop torch within a second, and the next job starts a fresh one. All that goes wrong
is a TrainingError, and the device goes on inferring.

`pause` stops the worker where it is, by a signal, so that what is urgent has the processor; a job's
deadline runs on meanwhile.
"""

import asyncio
import contextlib
import importlib.util
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import numpy as np

from edgechoir.bundle.manifest import Targets
from edgechoir.errors import LocalError, TrainingError
from edgechoir.learning.privacy.examples import Steps, write_account
from edgechoir.training.frames import PREFIX, Array, Frame, decode, encode, lengths
from edgechoir.training.shared import Shared
from edgechoir.types import FitPlan, Floats, Update

log = logging.getLogger(__name__)

_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_KILL_TIMEOUT: Final = 5.0
_PIECE: Final = 1 << 16
"""Bytes of the pipe that asyncio holds."""


@dataclass(frozen=True, slots=True)
class TrainerStats:
    """Of this trainer so far. Seconds and MB are those of the latest start and the latest job."""

    starts: int = 0
    startup_seconds: float = 0.0
    fits: int = 0
    fit_seconds: float = 0.0
    peak_mb: float = 0.0
    pauses: int = 0


def available() -> bool:
    """Whether torch is installed. Whether it runs on this CPU only a worker can tell."""
    return importlib.util.find_spec("torch") is not None


class Trainer:
    """Trains the bundle in `bundle_dir`. Jobs wait for one another; `deadline` is in seconds.

    `memory_limit_mb` bounds the worker's private memory (RLIMIT_DATA), torch itself included. With
    more than one of `threads` a seed no longer fixes every bit of an update.
    """

    def __init__(
        self,
        bundle_dir: Path,
        *,
        idle_timeout: float = 60.0,
        memory_limit_mb: int | None = None,
        threads: int = 1,
        deadline: float = 600.0,
    ) -> None:
        self._bundle_dir = bundle_dir
        self._idle_timeout = idle_timeout
        self._memory_limit_mb = memory_limit_mb
        self._threads = threads
        self._deadline = deadline
        self._process: asyncio.subprocess.Process | None = None
        self._shared: Shared | None = None
        self.started = asyncio.Event()
        """Set when a worker starts; whoever waits for one clears it."""
        self.paused = False
        self._lock = asyncio.Lock()
        self._cancellations = 0
        self._closed = False
        self.stats = TrainerStats()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def pid(self) -> int | None:
        """The worker's process id while it runs."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    async def warm(self, *, deadline: float | None = None) -> None:
        """Start the worker now, so that importing torch is over when a round begins."""
        await self._job(None, deadline)

    async def fit(
        self,
        w: Floats,
        x: Floats,
        y: Targets,
        plan: FitPlan,
        *,
        deadline: float | None = None,
        **beside: Floats,
    ) -> Update:
        """Train from w [d] on raw samples x [n, ...] and targets y; see fit.fit, which also says
        what may be given `beside` them."""
        extra = {name: vector.astype(np.float32, copy=False) for name, vector in beside.items()}
        frame = Frame({"op": "fit", "plan": asdict(plan)}, {**_arrays(w, x, y), **extra})
        answer = await self._job(frame, deadline)
        delta = answer.arrays.get("delta")
        match answer.fields:
            case {
                "n": int(n),
                "steps": int(steps),
                "metrics": dict(metrics),
                "seconds": float(seconds),
                "peak_mb": float(peak_mb),
            }:
                pass
            case fields:
                raise TrainingError(f"the worker answered {fields!r:.200}, expected an update")
        personal = answer.arrays.get("personal")
        parts = [part for part in (delta, personal) if part is not None]
        length = sum(len(part) for part in parts)
        if delta is None or length != len(w) or not all(np.isfinite(p).all() for p in parts):
            raise TrainingError("the worker gave no finite update of the weights' length")
        self.stats = replace(
            self.stats,
            fits=self.stats.fits + 1,
            fit_seconds=seconds,
            peak_mb=peak_mb,
        )
        return Update(
            delta.astype(np.float32, copy=False),
            n,
            steps,
            _floats(metrics),
            None if personal is None else personal.astype(np.float32, copy=False),
        )

    async def evaluate(
        self, w: Floats, x: Floats, y: Targets, *, deadline: float | None = None
    ) -> dict[str, float]:
        """{"loss", "accuracy" or "rmse", "n"} of w over raw samples x."""
        answer = await self._job(Frame({"op": "evaluate"}, _arrays(w, x, y)), deadline)
        match answer.fields:
            case {"result": dict(result)}:
                return _floats(result)
        raise TrainingError(f"the worker answered {answer.fields!r:.200}, expected measures")

    async def account(
        self, steps: Sequence[Steps], delta: float, *, deadline: float | None = None
    ) -> float:
        """epsilon of these steps together; see account.epsilon_of."""
        text = write_account(steps).decode()
        frame = Frame({"op": "account", "steps": text, "delta": delta}, {})
        answer = await self._job(frame, deadline)
        match answer.fields:
            case {"epsilon": float(epsilon)}:
                return epsilon
            case other:
                raise TrainingError(f"the worker answered {other!r:.200}, expected an epsilon")

    async def predict(self, w: Floats, x: Floats, *, deadline: float | None = None) -> Floats:
        """The model's outputs [n, outputs] for raw samples x."""
        answer = await self._job(Frame({"op": "predict"}, _arrays(w, x)), deadline)
        outputs = answer.arrays.get("outputs")
        if outputs is None:
            raise TrainingError(f"the worker answered {answer.fields!r:.200}, expected outputs")
        return outputs.astype(np.float32, copy=False)

    def pause(self) -> None:
        """Stop the worker where it is, and any that starts meanwhile, until `resume`."""
        if not self.paused:
            self.paused = True
            self.stats = replace(self.stats, pauses=self.stats.pauses + 1)
            self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the worker go on."""
        if self.paused:
            self.paused = False
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def cancel(self) -> None:
        """Kill the worker; the running job and those that wait end with TrainingError."""
        self._cancellations += 1
        if self._process is not None:
            _kill(self._process)
        async with self._lock:
            await self._discard()

    async def close(self) -> None:
        """Cancel, for good."""
        self._closed = True
        await self.cancel()

    async def _job(self, frame: Frame | None, deadline: float | None) -> Frame:
        if self._closed:
            raise LocalError("this trainer was closed; make a new one")
        before = self._cancellations
        async with self._lock:
            self._check_not_cancelled(before)
            clean = False
            try:
                async with asyncio.timeout(self._deadline if deadline is None else deadline):
                    answer = await self._exchange(frame, before)
                clean = True
            except TimeoutError as error:
                raise TrainingError(
                    f"the training worker was stopped: no answer within "
                    f"{self._deadline if deadline is None else deadline:g} s"
                ) from error
            finally:
                if not clean:
                    await self._discard()
        if "error" in answer.fields:
            raise TrainingError(str(answer.fields["error"]))
        return answer

    async def _exchange(self, frame: Frame | None, before: int, *, again: bool = True) -> Frame:
        """One request and its answer. A worker that ended idle meanwhile is replaced once."""
        process = self._process
        if process is None or process.returncode is not None:
            process = await self._start(before)
        if frame is None:
            return Frame({}, {})
        try:
            await self._send(process, frame)
            return await self._receive(process)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._check_not_cancelled(before)
            await self._discard()
            if not again or process.returncode != 0:
                raise TrainingError(_epitaph(process.returncode)) from error
        return await self._exchange(frame, before, again=False)

    async def _start(self, before: int) -> asyncio.subprocess.Process:
        await self._discard()
        if not available():
            raise TrainingError(
                "training needs torch: install it with pip install 'edgechoir[train]'"
            )
        began = time.perf_counter()
        limit = self._memory_limit_mb
        shared = self._shared = Shared.make()
        # -P: a torch.py in the working directory is not torch.
        process = self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "edgechoir.training.worker", str(self._bundle_dir)),
            *("--idle-timeout", str(self._idle_timeout), "--parent", str(os.getpid())),
            *("--memory", str(shared.descriptor), "--threads", str(self._threads)),
            *(() if limit is None else ("--memory-limit-mb", str(limit))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **dict.fromkeys(_THREADS, str(self._threads))},
            pass_fds=(shared.descriptor,),
            start_new_session=True,
            limit=_PIECE,
        )
        self._check_not_cancelled(before)
        self.started.set()
        if self.paused:
            self._signal(signal.SIGSTOP)
        try:
            first = await self._receive(process)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            self._check_not_cancelled(before)
            await self._discard()
            raise TrainingError(_epitaph(process.returncode)) from error
        if "ready" not in first.fields:
            raise TrainingError(str(first.fields.get("error", "the worker did not start")))
        self.stats = replace(
            self.stats,
            starts=self.stats.starts + 1,
            startup_seconds=time.perf_counter() - began,
        )
        return process

    async def _send(self, process: asyncio.subprocess.Process, frame: Frame) -> None:
        if process.stdin is None or self._shared is None:
            raise LocalError("the worker was started without pipes")
        head, body = encode(frame)
        await asyncio.to_thread(self._shared.put, body)
        process.stdin.write(head)
        await process.stdin.drain()

    async def _receive(self, process: asyncio.subprocess.Process) -> Frame:
        if process.stdout is None or self._shared is None:
            raise LocalError("the worker was started without pipes")
        header, body = lengths(await process.stdout.readexactly(PREFIX.size))
        text = await process.stdout.readexactly(header)
        return decode(text, await asyncio.to_thread(self._shared.take, body) if body else b"")

    def _check_not_cancelled(self, before: int) -> None:
        if self._cancellations != before:
            raise TrainingError("training was cancelled")

    async def _discard(self) -> None:
        """Kill the worker if it runs, and release its pipes and its memory."""
        process, self._process = self._process, None
        shared, self._shared = self._shared, None
        if shared is not None:
            shared.close()
        if process is None:
            return
        _kill(process)
        try:
            async with asyncio.timeout(_KILL_TIMEOUT):
                if process.stdin is not None:
                    process.stdin.close()
                # Its pipe must be read to the end, or asyncio keeps waiting for it.
                while process.stdout is not None and await process.stdout.read(_PIECE):
                    pass
                await process.wait()
        except TimeoutError:
            log.warning("worker %d was killed but is still there", process.pid)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            # Not process.kill(): it may reap the process first, and its exit status is lost.
            os.kill(process.pid, signal.SIGKILL)


def _arrays(w: Floats, x: Floats, y: Targets | None = None) -> dict[str, Array]:
    arrays: dict[str, Array] = {
        "w": w.astype(np.float32, copy=False),
        "x": x.astype(np.float32, copy=False),
    }
    if y is not None and y.dtype.kind in "iu":
        arrays["y"] = y.astype(np.int64, copy=False)
    elif y is not None:
        arrays["y"] = y.astype(np.float32, copy=False)
    return arrays


def _floats(found: Mapping[str, object]) -> dict[str, float]:
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}


def _epitaph(status: int | None) -> str:
    """Why a worker that gave no answer is gone."""
    if status == -signal.SIGILL:
        return (
            "torch uses instructions this CPU does not have (illegal instruction); "
            "install a torch built for it, or turn training off on this device"
        )
    if status == -signal.SIGKILL:
        return "the training worker was killed, most likely because memory ran out"
    return f"the training worker died without an answer (exit status {status})"
