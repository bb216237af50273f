"""mosquitto as a child process: started with a rendered configuration, told of changes, stopped.

The child dies with its parent: a small starter asks the kernel for SIGTERM at the parent's death
(prctl(2), PR_SET_PDEATHSIG; Linux only) and then becomes mosquitto.
"""

import asyncio
import logging
import os
import pwd
import shutil
import signal
import sys
from collections import deque
from collections.abc import Mapping
from typing import Final

from edgechoir.broker.mosquitto import CONF, OPENSSL, mosquitto_files, rules_files
from edgechoir.broker.roster import Roster
from edgechoir.broker.settings import BrokerSettings
from edgechoir.errors import OperatorError
from edgechoir.fleet.files import PRIVATE, make_directory, write_atomic

log = logging.getLogger(__name__)

STOP_S: Final = 5.0
_LAST_LINES: Final = 20
_PLACES: Final = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin"))
_STARTER: Final = """\
import os, sys
parent = int(sys.argv[1])
if sys.platform == "linux":
    import ctypes
    ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == parent:
    os.execv(sys.argv[2], sys.argv[2:])
"""


def find_mosquitto() -> str | None:
    """Path of the program. Distributions put it into sbin, which is not in every PATH."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path=_PLACES)


class MosquittoProcess:
    """`start`, then `update` on each new roster, then `stop`."""

    def __init__(self, settings: BrokerSettings, roster: Roster, program: str) -> None:
        self._settings = settings
        self._roster = roster
        self._program = program
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)

    async def start(self) -> None:
        """Write the configuration and start the child. Raises OperatorError."""
        state = self._settings.state
        make_directory(state)
        user = pwd.getpwuid(os.geteuid()).pw_name if os.geteuid() == 0 else None
        federation = self._roster.federation
        files = mosquitto_files(self._settings, federation, place=str(state), user=user)
        self._write(files)
        environment = dict(os.environ)
        if OPENSSL in files:
            environment["OPENSSL_CONF"] = str(state / OPENSSL)
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-c", _STARTER, str(os.getpid()), self._program, "-c", str(state / CONF)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env=environment,
        )
        self._reading = asyncio.create_task(self._read_log(self._process))

    def update(self, roster: Roster) -> None:
        """Rewrite the rules and let mosquitto read everything again."""
        self._roster = roster
        self._write(rules_files(self._settings, roster.federation))
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGHUP)

    def _write(self, files: Mapping[str, str]) -> None:
        for name, text in files.items():
            write_atomic(self._settings.state / name, text.encode(), PRIVATE)

    async def ended(self) -> None:
        """Wait for the child to end by itself; then raises OperatorError with its last lines."""
        if self._process is None or self._reading is None:
            return
        code = await self._process.wait()
        await asyncio.wait([self._reading], timeout=STOP_S)
        said = "\n  ".join(self._lines) or "(nothing)"
        raise OperatorError(f"mosquitto ended with status {code}; its last lines:\n  {said}")

    async def stop(self) -> None:
        """End the child, by force if it does not go by itself."""
        process, reading = self._process, self._reading
        if process is None or reading is None:
            return
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        await asyncio.wait([reading], timeout=STOP_S)
        reading.cancel()

    async def _read_log(self, process: asyncio.subprocess.Process) -> None:
        stderr = process.stderr
        if stderr is None:
            return
        while True:
            try:
                line = await stderr.readline()
            except ValueError:  # longer than the stream's limit; asyncio has dropped it
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self._lines.append(text)
            log.info("mosquitto: %s", text)
