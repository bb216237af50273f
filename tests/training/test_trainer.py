"""The worker comes when it is needed, keeps out of the way, and goes whatever happens."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.errors import LocalError, TrainingError
from edgechoir.training.trainer import Trainer, available
from edgechoir.types import FitPlan

if not available():
    pytest.skip("training needs the extra 'train'", allow_module_level=True)
pytestmark = pytest.mark.torch

FOLDER = Path(__file__).parents[2] / "models" / "digits" / "bundle"
W = load_bundle(FOLDER).params
SOURCE = np.random.default_rng(2)
X = SOURCE.uniform(0, 16, (120, 64)).astype(np.float32)
Y = SOURCE.integers(0, 10, 120)
ENDLESS = FitPlan(epochs=10_000, batch_size=1)


def ended(pid: int) -> bool:
    """Wait, at most 20 s, until no process has this id; the event loop stands still meanwhile."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ready, _, _ = select.select([handle], [], [], 20)
    finally:
        os.close(handle)
    return bool(ready)


def with_trainer(test: Callable[[Trainer], Awaitable[None]], **options: float) -> None:
    """Run `test` on a trainer, and see its worker gone afterwards."""

    async def run() -> int | None:
        async with Trainer(FOLDER, **options) as trainer:  # type: ignore[arg-type]  # test options
            await test(trainer)
            pid = trainer.pid
        assert trainer.pid is None
        return pid

    pid = asyncio.run(run())
    assert pid is None or ended(pid)


async def started(trainer: Trainer) -> asyncio.Task[object]:
    """A job that will not end by itself, on a worker that has begun."""
    await trainer.warm()
    job: asyncio.Task[object] = asyncio.create_task(trainer.fit(W, X, Y, ENDLESS))
    await asyncio.sleep(0)
    return job


def test_a_worker_fits_evaluates_and_predicts() -> None:
    async def test(trainer: Trainer) -> None:
        update = await trainer.fit(W, X, Y, FitPlan(epochs=30, learning_rate=0.2))
        before = await trainer.evaluate(W, X, Y)
        after = await trainer.evaluate(W + update.delta, X, Y)
        outputs = await trainer.predict(W + update.delta, X)
        assert update.metrics["loss"] == before["loss"]
        assert after["loss"] < before["loss"]
        assert (update.n, update.steps) == (120, 120)
        assert update.delta.dtype == np.float32
        assert float((outputs.argmax(1) == Y).mean()) == pytest.approx(after["accuracy"])
        assert (trainer.stats.starts, trainer.stats.fits) == (1, 1)
        assert 0 < trainer.stats.fit_seconds < trainer.stats.startup_seconds + 60

    with_trainer(test)


def test_the_worker_keeps_out_of_the_way() -> None:
    async def test(trainer: Trainer) -> None:
        await trainer.warm()
        pid = trainer.pid
        assert pid is not None
        await trainer.fit(W, X, Y, FitPlan())
        assert trainer.pid == pid
        assert os.getpriority(os.PRIO_PROCESS, pid) == 19
        assert len(os.listdir(f"/proc/{pid}/task")) == 1
        assert os.getsid(pid) != os.getsid(0)

    with_trainer(test)


def test_nothing_runs_before_the_first_job() -> None:
    async def test(trainer: Trainer) -> None:
        assert trainer.pid is None

    with_trainer(test)


def test_an_idle_worker_ends_and_the_next_job_starts_another() -> None:
    async def test(trainer: Trainer) -> None:
        one = await trainer.fit(W, X, Y, FitPlan())
        assert trainer.pid is not None
        assert ended(trainer.pid)
        # The event loop stood still, so the trainer learns of the end from its broken pipe.
        same = await trainer.fit(W, X, Y, FitPlan())
        assert np.array_equal(one.delta, same.delta)
        assert trainer.stats.starts == 2

    with_trainer(test, idle_timeout=0.3)


def test_a_refused_job_leaves_the_worker_as_it_was() -> None:
    async def test(trainer: Trainer) -> None:
        with pytest.raises(TrainingError, match="diverged"):
            await trainer.fit(W, X, Y, FitPlan(epochs=5, learning_rate=1e25))
        with pytest.raises(TrainingError, match="samples of shape"):
            await trainer.fit(W, X[:, 1:], Y, FitPlan())
        await trainer.fit(W, X, Y, FitPlan())
        assert trainer.stats.starts == 1

    with_trainer(test)


def test_cancelling_ends_the_running_and_the_waiting_job_within_a_second() -> None:
    async def test(trainer: Trainer) -> None:
        running = await started(trainer)
        waiting = asyncio.create_task(trainer.evaluate(W, X, Y))
        await asyncio.sleep(0)
        async with asyncio.timeout(1):
            await trainer.cancel()
        assert trainer.pid is None
        for job in (running, waiting):
            with pytest.raises(TrainingError, match="cancelled"):
                await job
        await trainer.fit(W, X, Y, FitPlan())
        assert trainer.stats.starts == 2

    with_trainer(test)


def test_cancelling_while_the_worker_starts_is_heard() -> None:
    async def test(trainer: Trainer) -> None:
        job = asyncio.create_task(trainer.fit(W, X, Y, FitPlan()))
        await asyncio.sleep(0)
        await trainer.cancel()
        with pytest.raises(TrainingError, match="cancelled"):
            await job
        assert trainer.pid is None

    with_trainer(test)


def test_a_cancelled_task_takes_its_worker_along() -> None:
    async def test(trainer: Trainer) -> None:
        job = await started(trainer)
        pid = trainer.pid
        assert pid is not None
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert ended(pid)
        await trainer.fit(W, X, Y, FitPlan())

    with_trainer(test)


def test_an_overdue_job_is_stopped() -> None:
    async def test(trainer: Trainer) -> None:
        await trainer.warm()
        with pytest.raises(TrainingError, match=r"no answer within 0\.2 s"):
            await trainer.fit(W, X, Y, ENDLESS, deadline=0.2)
        assert trainer.pid is None
        await trainer.fit(W, X, Y, FitPlan())

    with_trainer(test)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (signal.SIGKILL, "memory"),
        (signal.SIGILL, "illegal instruction"),
        (signal.SIGTERM, "exit status -15"),
    ],
)
def test_a_killed_worker_is_explained_and_replaced(number: signal.Signals, expected: str) -> None:
    async def test(trainer: Trainer) -> None:
        job = await started(trainer)
        assert trainer.pid is not None
        os.kill(trainer.pid, number)
        with pytest.raises(TrainingError, match=expected):
            await job
        await trainer.fit(W, X, Y, FitPlan())
        assert trainer.stats.starts == 2

    with_trainer(test)


def test_a_job_too_large_for_the_memory_limit_is_explained() -> None:
    async def test(trainer: Trainer) -> None:
        x, y = np.tile(X, (3000, 1)), np.tile(Y, 3000)
        with pytest.raises(TrainingError, match=r"limit is 400 MB"):
            await trainer.fit(W, x, y, FitPlan(batch_size=len(x)))

    with_trainer(test, memory_limit_mb=400)


def test_a_torch_that_cannot_be_imported_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libfoo.so: no such file')")
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), before]).rstrip(os.pathsep))

    async def test(trainer: Trainer) -> None:
        with pytest.raises(TrainingError, match=r"libfoo\.so.*edgechoir\[train\]"):
            await trainer.warm()

    with_trainer(test)


def test_a_bundle_that_cannot_be_loaded_is_explained(tmp_path: Path) -> None:
    async def test() -> None:
        async with Trainer(tmp_path / "missing") as trainer:
            with pytest.raises(TrainingError, match="not a directory"):
                await trainer.warm()

    asyncio.run(test())


def test_a_closed_trainer_is_not_used_again() -> None:
    async def test() -> None:
        trainer = Trainer(FOLDER)
        await trainer.close()
        with pytest.raises(LocalError, match="closed"):
            await trainer.warm()

    asyncio.run(test())


def test_the_worker_dies_with_its_parent() -> None:
    program = (
        "import asyncio, sys\n"
        "from edgechoir.training.trainer import Trainer\n"
        "async def main():\n"
        f"    trainer = Trainer({str(FOLDER)!r})\n"
        "    await trainer.warm()\n"
        "    print(trainer.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        assert ended(pid)


def wait_until_stopped(pid: int) -> None:
    """Until a child stands still; the event loop does too meanwhile."""
    assert os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT) is not None


def test_a_paused_worker_stands_still_and_goes_on_where_it_was() -> None:
    async def test(trainer: Trainer) -> None:
        expected = await trainer.fit(W, X, Y, FitPlan(epochs=200, batch_size=4))
        job = asyncio.create_task(trainer.fit(W, X, Y, FitPlan(epochs=200, batch_size=4)))
        await asyncio.sleep(0)
        pid = trainer.pid
        assert pid is not None
        trainer.pause()
        trainer.pause()
        wait_until_stopped(pid)
        assert not job.done()
        trainer.resume()
        update = await job
        assert np.array_equal(update.delta, expected.delta)
        assert (trainer.stats.pauses, trainer.stats.starts) == (1, 1)

    with_trainer(test)


def test_a_worker_that_starts_during_a_pause_waits_for_its_end() -> None:
    async def test(trainer: Trainer) -> None:
        trainer.pause()
        warming = asyncio.create_task(trainer.warm())
        await trainer.started.wait()
        pid = trainer.pid
        assert pid is not None
        wait_until_stopped(pid)
        trainer.resume()
        await warming

    with_trainer(test)


def test_a_paused_worker_is_cancelled_within_a_second() -> None:
    async def test(trainer: Trainer) -> None:
        job = await started(trainer)
        trainer.pause()
        async with asyncio.timeout(1):
            await trainer.cancel()
        with pytest.raises(TrainingError, match="cancelled"):
            await job
        trainer.resume()
        await trainer.fit(W, X, Y, FitPlan())

    with_trainer(test)


def shared_with(pid: int) -> list[int]:
    """Bytes of each memory that a worker shares with its trainer."""
    held = Path(f"/proc/{pid}/fd").iterdir()
    return [each.stat().st_size for each in held if "edgechoir-training" in os.readlink(each)]


def test_arrays_lie_in_shared_memory_and_no_copy_of_them_stays() -> None:
    async def test(trainer: Trainer) -> None:
        x, y = np.tile(X, (400, 1)), np.tile(Y, 400)
        await trainer.evaluate(W, x, y)
        assert trainer.pid is not None
        sizes = shared_with(trainer.pid)
        assert set(sizes) == {0}  # two, for the mapping has one of its own

    with_trainer(test)
