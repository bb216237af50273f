"""A running device's pipeline in the hands of whoever may enter its state directory.

A Unix socket, `control`, of mode 0600 in a directory of mode 0700: only the device's own user (and
root) can speak there, and nothing of it can be reached over a network. One line of JSON asks, one
line answers, then the connection ends. Requests are bounded in length, number and time.
"""

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from edgechoir.errors import EdgechoirError, OperatorError

log: Final = logging.getLogger(__name__)

NAME: Final = "control"
MAX_REQUEST: Final = 65_536
MAX_ANSWER: Final = 4_000_000
MAX_ASKING: Final = 4
DEADLINE: Final = 60.0
"""Seconds: an update may import the user's modules."""


Answer = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
"""Answers a request. Raises EdgechoirError: it cannot be done, and nothing has changed."""


@contextlib.asynccontextmanager
async def controlled(state: Path, answer: Answer) -> AsyncIterator[None]:
    """Take requests for the time of the block. A socket that cannot be made is logged."""
    serving: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        try:
            if task is not None and len(serving) < MAX_ASKING:
                serving.add(task)
                async with asyncio.timeout(DEADLINE):
                    line = await reader.readline()
                    writer.write(await _answered(answer, line))
                    await writer.drain()
        except (OSError, ValueError) as error:  # gone, too slow, or a line that is too long
            log.warning("a request at %s failed: %r", NAME, error)
        except asyncio.CancelledError:
            pass  # the device ends
        finally:
            if task is not None:
                serving.discard(task)
            writer.close()

    try:
        listener = _listener(state)
    except OSError as error:
        log.warning("`edgechoir pipeline` will find nobody at %s: %s", state / NAME, error)
        yield
        return
    server = await asyncio.start_unix_server(take, sock=listener, limit=MAX_REQUEST)
    try:
        yield
    finally:
        server.close()
        for task in serving:
            task.cancel()
        if serving:
            await asyncio.wait(serving)
        with contextlib.suppress(OSError):
            os.unlink(state / NAME)


async def _answered(answer: Answer, line: bytes) -> bytes:
    try:
        request = json.loads(line)
        if not isinstance(request, dict):
            raise OperatorError("a request is a JSON object")
        said = await answer(request)
    except (EdgechoirError, ValueError, RecursionError) as error:
        said = {"error": str(error)}
    return json.dumps(said).encode() + b"\n"


def _listener(state: Path) -> socket.socket:
    """The process holds the state directory, so a socket that is there was left behind."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with _short(state) as path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            listener.bind(path)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def ask(state: Path, request: Mapping[str, object], seconds: float = DEADLINE) -> dict[str, Any]:
    """What the device of this state directory answers. Raises OperatorError."""
    where = state / NAME
    try:
        with _short(state) as path, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
            asking.settimeout(seconds)
            asking.connect(path)
            asking.sendall(json.dumps(request).encode() + b"\n")
            body = b""
            while piece := asking.recv(65_536):
                body += piece
                if len(body) > MAX_ANSWER:
                    raise OperatorError(f"the process at {where} does not stop answering")
        answer = json.loads(body)
    except TimeoutError:
        raise OperatorError(f"the device at {where} did not answer within {seconds:g} s") from None
    except (FileNotFoundError, ConnectionRefusedError):
        raise OperatorError(f"no device answers at {where}: is it running?") from None
    except OSError as error:
        raise OperatorError(f"cannot ask at {where}: {error.strerror}") from None
    except ValueError:
        raise OperatorError(f"the process at {where} gave no answer") from None
    if not isinstance(answer, dict) or "error" in answer:
        raise OperatorError(str(answer["error"] if isinstance(answer, dict) else answer))
    return answer


@contextlib.contextmanager
def _short(state: Path) -> Iterator[str]:
    """The socket's path by way of an open directory: a socket's own may have 107 bytes; unix(7)."""
    directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{NAME}"
    finally:
        os.close(directory)
