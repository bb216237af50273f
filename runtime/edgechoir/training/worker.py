"""python -m edgechoir.training.worker BUNDLE_DIR: trains when asked, on standard input and output.

The only process of a device that imports torch. It keeps out of the way: nice 19, one thread, the
first to be killed when memory runs out, an optional bound on its memory. It ends with its parent,
when its input ends, or after `--idle-timeout` seconds without a request (exit status 0).

First it says {"ready": true}, or {"error": ...} and ends. Then it answers each frame with one: the
result, or {"error": ...}. Standard error is for people.
"""

import argparse
import contextlib
import ctypes
import gc
import logging
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.errors import EdgechoirError, TrainingError
from edgechoir.learning.privacy.examples import read_account
from edgechoir.training.frames import PREFIX, Frame, Json, decode, encode, lengths
from edgechoir.training.shared import Shared
from edgechoir.types import FitPlan

if TYPE_CHECKING:
    from types import ModuleType

log = logging.getLogger("edgechoir.training.worker")

_PR_SET_PDEATHSIG: Final = 1
_OOM_SCORE: Final = "800"
Answer = tuple[Mapping[str, Json], Mapping[str, np.ndarray]]


class Channel:
    """Frames over two file descriptors, blocking, and the memory their arrays lie in."""

    def __init__(self, read: int, write: int, memory: Shared) -> None:
        self._read, self._write, self._memory = read, write, memory

    def receive(self, idle_timeout: float) -> Frame | None:
        """The next frame, or None at the end of input or after `idle_timeout` seconds of none."""
        ready, _, _ = select.select([self._read], [], [], idle_timeout)
        if not ready:
            return None
        prefix = self._exactly(PREFIX.size)
        if prefix is None:
            return None
        header_length, body_length = lengths(bytes(prefix))
        header = self._exactly(header_length)
        return None if header is None else decode(bytes(header), self._memory.view(body_length))

    def send(self, frame: Frame) -> None:
        """Write it whole."""
        head, body = encode(frame)
        self._memory.put(body)
        rest = memoryview(head)
        while rest:
            rest = rest[os.write(self._write, rest) :]

    def _exactly(self, length: int) -> bytearray | None:
        data = bytearray(length)
        rest = memoryview(data)
        while rest:
            count = os.readv(self._read, [rest])
            if count == 0:
                return None
            rest = rest[count:]
        return data


def main() -> int:
    """Serve until there is nothing left to do; the exit status is 0 unless starting failed."""
    options = _options()
    logging.basicConfig(level=logging.WARNING, format="worker: %(message)s")
    _step_back(options.parent, options.memory_limit_mb, options.threads)
    # What a library prints must not end up between two frames.
    channel = Channel(os.dup(0), os.dup(1), Shared(options.memory))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    gc.disable()  # importing torch makes 250,000 objects and little garbage
    try:
        bundle = load_bundle(options.bundle)
        fitting = _import_torch(options.threads)
        _warm_up(fitting, bundle)
    except EdgechoirError as error:
        channel.send(Frame({"error": str(error)}, {}))
        return 1
    except MemoryError:
        channel.send(Frame({"error": _out_of_memory(options.memory_limit_mb)}, {}))
        return 1
    gc.freeze()
    gc.enable()
    channel.send(Frame({"ready": True}, {}))
    with contextlib.suppress(BrokenPipeError):  # the parent is gone, and nobody is left to tell
        while (frame := channel.receive(options.idle_timeout)) is not None:
            channel.send(_answer(fitting, bundle, frame, options.memory_limit_mb))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m edgechoir.training.worker")
    parser.add_argument("bundle", type=Path, help="the bundle directory")
    parser.add_argument("--memory", type=int, required=True, metavar="DESCRIPTOR")
    parser.add_argument("--idle-timeout", type=float, default=60.0, metavar="SECONDS")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-limit-mb", type=int, default=None, metavar="MB")
    parser.add_argument("--parent", type=int, default=os.getppid(), metavar="PID")
    return parser.parse_args()


def _step_back(parent: int, memory_limit_mb: int | None, threads: int) -> None:
    """Lowest priority, first to go, and never without the parent."""
    os.nice(19)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above took effect
        raise SystemExit(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    with contextlib.suppress(OSError):  # not every kernel or container lets us
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(threads)
    if memory_limit_mb is not None:
        limit = memory_limit_mb << 20
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _import_torch(threads: int) -> "ModuleType":
    try:
        import torch

        torch.set_num_threads(threads)
        torch.set_num_interop_threads(1)
        from edgechoir.training import fit as fitting
    except (ImportError, OSError) as error:
        raise TrainingError(
            f"torch cannot be imported ({error}); install it with pip install 'edgechoir[train]'"
        ) from error
    return fitting


def _warm_up(fitting: "ModuleType", bundle: Bundle) -> None:
    """One step on a made-up sample: torch loads half of itself, and meets this CPU, only then."""
    manifest = bundle.manifest
    x = np.zeros((1, *manifest.input_shape), np.float32)
    classes = manifest.task == "classification"
    y = np.zeros(1, np.int64) if classes else np.zeros((1, len(manifest.outputs)), np.float32)
    with contextlib.suppress(TrainingError):  # zeros may be no sample this model can take
        fitting.fit(bundle, bundle.params, x, y, FitPlan())


def _answer(
    fitting: "ModuleType", bundle: Bundle, frame: Frame, memory_limit_mb: int | None
) -> Frame:
    start = time.perf_counter()
    try:
        fields, arrays = _jobs(fitting)[str(frame.fields.get("op"))](bundle, frame)
    except TrainingError as error:
        return Frame({"error": str(error)}, {})
    except MemoryError:
        return Frame({"error": _out_of_memory(memory_limit_mb)}, {})
    except Exception as error:  # a job's edge: the worker lives on and the device learns why
        log.exception("a job failed")
        if "can't allocate memory" in str(error):
            return Frame({"error": _out_of_memory(memory_limit_mb)}, {})
        return Frame({"error": f"{type(error).__name__}: {str(error)[:2000]}"}, {})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - start
    return Frame({**fields, "seconds": seconds, "peak_mb": peak}, arrays)


def _jobs(fitting: "ModuleType") -> Mapping[str, Callable[[Bundle, Frame], Answer]]:
    def fit(bundle: Bundle, frame: Frame) -> Answer:
        given = frame.arrays
        plan = FitPlan(**frame.fields["plan"])  # type: ignore[arg-type]
        beside = {name: array for name, array in given.items() if name not in ("w", "x", "y")}
        update = fitting.fit(bundle, given["w"], given["x"], given["y"], plan, **beside)
        fields = {"n": update.n, "steps": update.steps, "metrics": dict(update.metrics)}
        own = {} if update.personal is None else {"personal": update.personal}
        return fields, {"delta": update.delta, **own}

    def evaluate(bundle: Bundle, frame: Frame) -> Answer:
        given = frame.arrays
        return {"result": fitting.evaluate(bundle, given["w"], given["x"], given["y"])}, {}

    def predict(bundle: Bundle, frame: Frame) -> Answer:
        return {}, {"outputs": fitting.predict(bundle, frame.arrays["w"], frame.arrays["x"])}

    def account(bundle: Bundle, frame: Frame) -> Answer:
        from edgechoir.training.account import epsilon_of

        steps = read_account(str(frame.fields["steps"]).encode())
        return {"epsilon": epsilon_of(steps, float(str(frame.fields["delta"])))}, {}

    return {"fit": fit, "evaluate": evaluate, "predict": predict, "account": account}


def _out_of_memory(memory_limit_mb: int | None) -> str:
    limit = "" if memory_limit_mb is None else f" (its limit is {memory_limit_mb} MB)"
    return f"the training worker ran out of memory{limit}; allow more or use smaller batches"


if __name__ == "__main__":
    sys.exit(main())
