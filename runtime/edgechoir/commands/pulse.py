"""A process that serves answers whoever asks whether it is well, at a socket in its state.

The answer comes from the event loop that does all the work: one that is stuck answers nobody. So
the question needs no file that is written again and again, which would wear an SD card out, and no
connection to the broker, whose absence is no illness: a device goes on without it.

The socket is one of this machine's, for whoever may enter the state directory. Nothing is read from
it: who connects gets one line, and the end.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError

log: Final = logging.getLogger(__name__)

NAME: Final = "pulse"
MAX_LINE: Final = 1024


@contextlib.asynccontextmanager
async def answering(state: Path, who: str) -> AsyncIterator[None]:
    """Answer for the time of the block. A socket that cannot be made is logged, and that is all."""
    began = time.monotonic()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{who} has run for {time.monotonic() - began:.0f} s\n".encode())
        writer.close()  # after what was written

    listener = _listener(state)
    if listener is None:
        yield
        return
    ours = os.stat(state / NAME).st_ino
    server = await asyncio.start_unix_server(answer, sock=listener)
    try:
        yield
    finally:
        server.close()
        with contextlib.suppress(OSError):
            if os.stat(state / NAME).st_ino == ours:
                os.unlink(state / NAME)


def _listener(state: Path) -> socket.socket | None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _short(state) as path:
            if _is_answered(path):
                # A second process of one member will be refused, and must not silence the first.
                listener.close()
                return None
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
            os.chmod(path, 0o600)
    except OSError as error:
        log.warning("`edgechoir healthy` will find nobody at %s: %s", state / NAME, error)
        listener.close()
        return None
    return listener


def ask(state: Path, seconds: float) -> str:
    """The line that the process of this state directory answers with. Raises OperatorError."""
    where = state / NAME
    try:
        with _short(state) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(seconds)
            asking.connect(path)
            line = asking.recv(MAX_LINE)
    except TimeoutError:
        raise OperatorError(f"the process at {where} did not answer within {seconds:g} s") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise OperatorError(f"no process answers at {where}: is it running?") from None
    except OSError as error:
        raise OperatorError(f"cannot ask at {where}: {error.strerror}") from None
    if not line:
        raise OperatorError(f"the process at {where} closed without an answer")
    return line.decode(errors="replace").strip()


@contextlib.contextmanager
def _short(state: Path) -> Iterator[str]:
    """The socket's path by way of an open directory: a socket's own may have 107 bytes; unix(7)."""
    directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{NAME}"
    finally:
        os.close(directory)


def _is_answered(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        asking.settimeout(1.0)
        try:
            asking.connect(path)
        except OSError:
            return False
        return True
