"""Whether the native libraries of a device run here, found out before they can take it down.

A wheel built for another CPU ends the process that imports it, without a word: so another process
imports it first, and its end becomes a message. That takes as long as the import itself, so what
went well is written down, and asked again only for another version of a library or another CPU.
"""

import asyncio
import contextlib
import hashlib
import importlib.metadata
import platform
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from edgechoir.commands.finding import Level
from edgechoir.commands.machine import LIBRARIES, probe
from edgechoir.errors import OperatorError

NEEDED: Final = {name: LIBRARIES[name] for name in ("numpy", "onnxruntime")}
MARK: Final = "natives"
"""The file in the state directory."""


def check_natives(config: Path, needed: Mapping[str, str] = NEEDED) -> None:
    """Import the libraries in processes of their own, unless that was done here before.

    `config` is the device's file, of which only `state` is looked at: to read the rest takes numpy.
    Raises OperatorError: one of them does not load.
    """
    mark = _state_of(config) / MARK
    seen = _fingerprint(needed)
    with contextlib.suppress(OSError):
        if mark.read_text() == seen:
            return
    asyncio.run(_probe(needed))
    with contextlib.suppress(OSError):  # without the directory, which comes later, it is asked anew
        mark.write_text(seen)


async def _probe(needed: Mapping[str, str]) -> None:
    for finding in await asyncio.gather(*(probe(name, code) for name, code in needed.items())):
        if finding.level is Level.WRONG:
            advice = finding.advice or "see `edgechoir doctor`"
            raise OperatorError(f"{finding.what} cannot be used: {finding.seen}; {advice}")


def _state_of(config: Path) -> Path:
    """Where the file says that the state is; what is wrong with the file, its reader says."""
    try:
        state = tomllib.loads(config.read_text()).get("state", "state")
    except (OSError, ValueError):
        state = "state"
    return config.parent / Path(str(state)).expanduser()


def _fingerprint(needed: Mapping[str, str]) -> str:
    """Of the versions of the libraries and of the CPU."""
    parts = [platform.python_version(), platform.machine()]
    for name in needed:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            parts.append(f"{name} {importlib.metadata.version(name)}")
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        parts += sorted({line for line in lines if line.startswith(("flags", "Features", "model"))})
    return hashlib.sha256("\n".join(parts).encode()).hexdigest() + "\n"
