"""A process that serves answers whoever asks whether it is well, at a socket in its state.

The answer comes from the event loop that does all the work: one that is stuck answers nobody. So
the question needs no file that is written again and again, which would wear an SD card out, and no
connection to the broker, whose absence is no illness: a device goes on without it.

The socket is one of this machine's, for whoever may enter the state directory. Nothing is read from
it: who connects gets one line, and the end.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError
from edgechoir.tiers.socket_file import connected, served

NAME: Final = "pulse"
MAX_LINE: Final = 1024


@contextlib.asynccontextmanager
async def answering(state: Path, who: str) -> AsyncIterator[None]:
    """Answer for the time of the block. A socket that cannot be made is logged, and that is all."""
    began = time.monotonic()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{who} has run for {time.monotonic() - began:.0f} s\n".encode())
        writer.close()  # after what was written

    async with served(state, NAME, answer, "edgechoir healthy"):
        yield


def ask(state: Path, seconds: float) -> str:
    """The line that the process of this state directory answers with. Raises OperatorError."""
    with connected(state, NAME, seconds) as asking:
        line = asking.recv(MAX_LINE)
    if not line:
        raise OperatorError(f"the process at {state / NAME} closed without an answer")
    return line.decode(errors="replace").strip()
