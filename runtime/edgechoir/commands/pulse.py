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
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError
from edgechoir.tiers.socket_file import listener, removed_after, short

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

    try:
        listening = listener(state, NAME)
    except OSError as error:
        log.warning("`edgechoir healthy` will find nobody at %s: %s", state / NAME, error)
        listening = None
    if listening is None:
        yield
        return
    with removed_after(state, NAME):
        server = await asyncio.start_unix_server(answer, sock=listening)
        try:
            yield
        finally:
            server.close()


def ask(state: Path, seconds: float) -> str:
    """The line that the process of this state directory answers with. Raises OperatorError."""
    where = state / NAME
    try:
        with (
            short(state, NAME) as path,
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking,
        ):
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
