"""The demo's processes: started as a user would start them, and none left behind."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from edgechoir.demo.layout import Seat
from edgechoir.errors import OperatorError

STOP_S: Final = 8.0


class Processes:
    """Running commands of `edgechoir`, each with its output in a file of its own."""

    def __init__(self) -> None:
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._logs: dict[str, Path] = {}

    async def start(self, name: str, log: Path, *arguments: str) -> None:
        """Start `edgechoir ARGUMENTS`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._running[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "edgechoir",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        self._logs[name] = log

    def pid(self, name: str) -> int:
        """The process id of a running command."""
        return self._running[name].pid

    async def start_seat(self, seat: Seat) -> None:
        """Start a member."""
        await self.start(seat.member, seat.log, seat.tier, str(seat.config))

    async def wait(self, name: str) -> None:
        """Wait for a command to do its work. Raises OperatorError when it fails."""
        status = await self._running[name].wait()
        if status:
            raise OperatorError(f"{name} failed ({status}):\n{tail(self._logs[name])}")

    async def ended(self) -> None:
        """Return never; raises OperatorError when one ends that should not."""
        waits = {
            asyncio.create_task(process.wait(), name=name): name
            for name, process in self._running.items()
        }
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            name = waits[next(iter(done))]
            status = self._running[name].returncode
            raise OperatorError(
                f"{name} ended by itself (exit status {status}); its last lines "
                f"({self._logs[name]}):\n{tail(self._logs[name])}"
            )
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self, *names: str) -> None:
        """Ask these (or all) to stop, and make sure that they did."""
        chosen = [self._running.pop(name) for name in names or tuple(self._running)]
        for process in chosen:
            _signal(process, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                for process in chosen:
                    await process.wait()
        for process in chosen:
            _signal(process, signal.SIGKILL)
            await process.wait()


@asynccontextmanager
async def processes() -> AsyncIterator[Processes]:
    """Processes that are gone after the block, however it ends."""
    running = Processes()
    try:
        yield running
    finally:
        await asyncio.shield(running.stop())


def tail(log: Path, lines: int = 12) -> str:
    """The last lines of a log."""
    with contextlib.suppress(OSError):
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    return "(no log)"


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
