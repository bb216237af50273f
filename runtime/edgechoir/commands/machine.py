"""What a machine must have before anything of ours runs on it.

Libraries are loaded in processes of their own: one built for another CPU dies of an illegal
instruction, and that has to become a line of the report, not the end of it.
"""

import asyncio
import contextlib
import importlib.metadata
import importlib.util
import platform
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edgechoir.commands.finding import Finding, Level, good, note, wrong

PROBE_S: Final = 60.0
"""Seconds for one library: a small device with a slow card takes ten."""
EARLIEST: Final = 1_735_689_600.0
"""2025-01-01, unix seconds: a clock before it was never set."""
LIBRARIES: Final = {
    "numpy": "import numpy as m; m.ones(9, 'f4') @ m.ones(9, 'f4'); print(m.__version__)",
    "cryptography": (
        "import os, cryptography as m; from edgechoir.secagg.sealing import new_kem_key; "
        "new_kem_key(os.urandom); print(m.__version__)"
    ),
    "onnxruntime": "import onnxruntime as m; print(m.__version__)",
}
INFERENCE_MB: Final = 150
"""A process that infers takes about 100 MB."""
TRAINING_MB: Final = 400
"""One that trains has a worker of about 250 MB beside it."""
DISK_MB: Final = 50


async def machine(now: float) -> AsyncIterator[Finding]:
    """Interpreter, clock and libraries."""
    yield interpreter()
    yield clock(now)
    libraries = dict(LIBRARIES)
    if importlib.util.find_spec("onnxruntime") is None:
        del libraries["onnxruntime"]
        yield inference()
    probes = [asyncio.create_task(probe(name, code)) for name, code in libraries.items()]
    try:
        for each in probes:
            yield await each
    finally:
        for each in probes:
            each.cancel()
        await asyncio.wait(probes)


def interpreter() -> Finding:
    """Python and the architecture."""
    seen = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.maxsize < 2**32:
        return wrong("python", f"{seen}, 32 bits", "onnxruntime needs a 64-bit system")
    return good("python", seen)


def clock(now: float) -> Finding:
    """A clock that was never set makes every certificate look wrong."""
    seen = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if now < EARLIEST:
        return wrong("clock", seen, "set it, or let NTP: certificates have a time")
    return good("clock", seen)


async def probe(
    what: str, code: str, arguments: Sequence[str] = (), seconds: float = PROBE_S
) -> Finding:
    """Run `code` in a Python of its own; what it prints is what was seen.

    -P keeps the working directory out of its path, as with the installed command.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", code, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(seconds):
            said, complaint = await process.communicate()
    except TimeoutError:
        return wrong(what, f"did not load within {seconds:g} s", "is this machine overloaded?")
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == 0:
        return good(what, said.decode(errors="replace").strip())
    if process.returncode == -signal.SIGILL:
        return wrong(
            what,
            "uses instructions that this CPU does not have (illegal instruction)",
            "install a version built for it",
        )
    lines = complaint.decode(errors="replace").strip().splitlines()
    return wrong(what, lines[-1] if lines else f"ended with status {process.returncode}")


def memory(needed_mb: int, meminfo: Path = Path("/proc/meminfo")) -> Finding:
    """Memory that a new process can have, against what one of ours takes."""
    try:
        lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        free, total = (
            int(lines[name].split()[0]) * 1024 // 10**6 for name in ("MemAvailable", "MemTotal")
        )
    except (OSError, ValueError, KeyError, IndexError):
        return note("memory", f"not known: no {meminfo} to read")
    seen = f"{free} of {total} MB are free"
    if free < INFERENCE_MB:
        return wrong("memory", seen, f"a process takes up to {INFERENCE_MB} MB")
    if free < needed_mb:
        return note("memory", seen, f"with training it may need {needed_mb} MB")
    return good("memory", seen)


def disk(directory: Path, needed: int) -> Finding:
    """Room for `needed` bytes where `directory` is or will be."""
    there = directory.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        free = shutil.disk_usage(there).free
    except OSError as error:
        return wrong("disk", f"{there}: {error.strerror}")
    seen = f"{free // 10**6} MB are free at {there}"
    if free < DISK_MB * 10**6:
        return wrong("disk", seen, "make room")
    if free < needed:
        return note("disk", seen, f"up to {needed // 10**6} MB may be written there")
    return good("disk", seen)


def torch_here() -> str | None:
    """The version of torch that is installed; it is not imported."""
    if importlib.util.find_spec("torch") is None:
        return None
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"


def inference(*, needed: bool = False) -> Finding:
    """Can a device answer on this machine? Nodes and clouds answer nothing."""
    if importlib.util.find_spec("onnxruntime") is not None:
        return good("onnxruntime", "is installed")
    seen = "is not installed: what runs here is a node or a cloud, no device"
    return wrong("onnxruntime", seen) if needed else note("onnxruntime", seen)


def training() -> Finding:
    """Can a device train on this machine?"""
    version = torch_here()
    if version is None:
        return note(
            "training",
            "torch is not installed: a device infers only",
            "to train, pip install 'edgechoir[train]'",
        )
    return good("training", f"torch {version} is installed: a device can train")


def broker_program() -> Finding:
    """Which broker `edgechoir broker` would run here."""
    from edgechoir.broker.mosquitto_process import find_mosquitto

    program = find_mosquitto()
    if program is not None:
        return good("broker program", program)
    if importlib.util.find_spec("amqtt") is not None:
        return note("broker program", "no mosquitto; the Python broker serves small fleets")
    return note(
        "broker program",
        "neither mosquitto nor the extra 'broker' is installed",
        "needed only where the broker runs",
    )


def broken(findings: Sequence[Finding], *names: str) -> list[str]:
    """Which of these were found wrong."""
    return [f.what for f in findings if f.level is Level.WRONG and f.what in names]
