"""Sockets in a state directory, for whoever may enter it: a tier's pulse, and its control.

A socket's own path may have 107 bytes (unix(7)), so it is reached by way of an open directory.
Standard library only: a health check loads this every few seconds.
"""

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError

log: Final = logging.getLogger(__name__)

LINE: Final = 64 * 1024
"""Bytes of a line that is read, at most."""

Call = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def served(state: Path, name: str, call: Call, command: str) -> AsyncIterator[None]:
    """Serve who connects, for the time of the block. A socket that cannot be made is logged:
    `command` will find nobody."""
    try:
        listening = listener(state, name)
    except OSError as error:
        log.warning("`%s` will find nobody at %s: %s", command, state / name, error)
        listening = None
    if listening is None:
        yield
        return
    with removed_after(state, name):
        server = await asyncio.start_unix_server(call, sock=listening, limit=LINE)
        try:
            yield
        finally:
            server.close()


@contextlib.contextmanager
def connected(state: Path, name: str, seconds: float) -> Iterator[socket.socket]:
    """A connection to the process of this state directory; `seconds` bound each wait in the block.

    Raises OperatorError.
    """
    where = state / name
    try:
        with (
            short(state, name) as path,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking,
        ):
            asking.settimeout(seconds)
            asking.connect(path)
            yield asking
    except TimeoutError:
        raise OperatorError(f"the process at {where} did not answer within {seconds:g} s") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise OperatorError(f"no process answers at {where}: is it running?") from None
    except OSError as error:
        raise OperatorError(f"cannot ask at {where}: {error.strerror}") from None


def listener(state: Path, name: str) -> socket.socket | None:
    """A listening socket `state`/`name` for this user alone; None where a process answers already.

    Raises OSError.
    """
    new = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with short(state, name) as path:
            if _is_answered(path):
                # A second process of one member will be refused, and must not silence the first.
                new.close()
                return None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            new.bind(path)
            os.chmod(path, 0o600)
    except OSError:
        new.close()
        raise
    return new


@contextlib.contextmanager
def short(state: Path, name: str) -> Iterator[str]:
    """A path to the socket that is short enough, while the block lasts. Raises OSError."""
    directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{name}"
    finally:
        os.close(directory)


@contextlib.contextmanager
def removed_after(state: Path, name: str) -> Iterator[None]:
    """Remove the socket after the block, unless another process has put its own there."""
    ours = os.stat(state / name).st_ino
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if os.stat(state / name).st_ino == ours:
                os.unlink(state / name)


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(path)
        except OSError:
            return False
        return True
