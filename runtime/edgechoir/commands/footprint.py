"""Memory and start of a process that runs for months on a small machine.

`prepare`, import, `ready`, and some seconds later `settle`. The last is for Linux with glibc and
does nothing elsewhere.

Half of what a device has in memory is code, and much of that runs once, while it starts: kernels
are registered, models of the configuration are built. Linux counts a page as resident for as long
as it is mapped, and keeps mapped code longer than other pages when memory runs short. Unmapping it
gives nothing up: what is called again comes back from the page cache by a minor fault, and the
rest is the first to go when somebody needs the memory.
"""

import ctypes
import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

SETTLE_S: Final = 15.0
"""Seconds after `ready` by which the start is over: connected, joined, first model exchanged."""
MAPS: Final = Path("/proc/self/maps")
_CODE: Final = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) r-xp \S+ \S+ [1-9]\d* +/", re.MULTILINE)
_M_ARENA_MAX: Final = -8
_M_TOP_PAD: Final = -2
_M_TRIM_THRESHOLD: Final = -1
_SLACK: Final = 128 << 10
"""Bytes that malloc keeps at the end of its heap for the next request."""
_MADV_DONTNEED: Final = 4


def prepare() -> None:
    """Before numpy is imported and the first thread starts. What the user has set stays.

    OpenBLAS starts a thread for each core as it is loaded, and nothing here multiplies matrices.
    pydantic looks through all installed packages for plugins. Imports make no garbage worth
    collecting. With one arena, threads that take turns use the same memory in turn.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.disable()
    libc = _libc()
    if libc is not None and not any(name.startswith("MALLOC_") for name in os.environ):
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_TRIM_THRESHOLD, _SLACK)
        libc.mallopt(_M_TOP_PAD, _SLACK)


def ready() -> None:
    """Everything is imported: leave it out of every later collection, which would walk it all."""
    gc.freeze()
    gc.enable()


def settle() -> None:
    """The start is over: give back what only the start needed."""
    libc = _libc()
    if libc is None:
        return
    libc.malloc_trim(0)
    for start, end in code(MAPS.read_text()):
        libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)


def code(maps: str) -> Iterator[tuple[int, int]]:
    """Addresses (start, end) of the code that a process has mapped from files; see proc(5)."""
    for match in _CODE.finditer(maps):
        yield int(match[1], 16), int(match[2], 16)


def _libc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None
