"""What a running tier can be asked on its own machine: one request a connection, in JSON lines.

The socket `control` lies in the state directory, for this user alone; nothing of it is reachable
from another machine. A request is one line, {"do": NAME, ...}. What comes back are lines
{"progress": TEXT}, and at the end one {"answer": ...} or {"error": TEXT}.
"""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from edgechoir.errors import EdgechoirError, OperatorError
from edgechoir.tiers.socket_file import LINE, connected, served

log: Final = logging.getLogger(__name__)

NAME: Final = "control"
MAX_REQUEST: Final = LINE
MAX_LINE: Final = 32 * 1024 * 1024
"""Of an answer."""
MAX_CALLERS: Final = 4
READ_S: Final = 5.0
SEND_S: Final = 30.0

Tell = Callable[[str], Awaitable[None]]
Handler = Callable[[Mapping[str, Any], Tell], Awaitable[Mapping[str, Any]]]


@asynccontextmanager
async def serving(
    state: Path, handlers: Mapping[str, Handler], command: str
) -> AsyncIterator[None]:
    """Serve the requests of `command` for the time of the block, each under the name of what is to
    be done. A socket that cannot be made is logged."""
    calls: set[asyncio.Task[None]] = set()

    async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        full = len(calls) >= MAX_CALLERS
        if not full:
            calls.add(task)
        try:
            await _serve(reader, writer, handlers, full=full)
        except (OSError, TimeoutError) as error:
            log.debug("a caller at the control socket is gone: %s", error)
        except asyncio.CancelledError:
            pass  # this process ends
        finally:
            calls.discard(task)
            writer.close()

    async with served(state, NAME, call, command):
        try:
            yield
        finally:
            for task in tuple(calls):
                task.cancel()
            if calls:
                await asyncio.wait(tuple(calls), timeout=READ_S)


async def _serve(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    handlers: Mapping[str, Handler],
    *,
    full: bool,
) -> None:
    async def tell(text: str) -> None:
        await _line(writer, {"progress": text})

    try:
        request = await _request(reader)
        if full:
            raise OperatorError(f"{MAX_CALLERS} requests are being served already")
        handler = handlers.get(str(request.get("do")))
        if handler is None:
            known = ", ".join(sorted(handlers))
            raise OperatorError(f"this process does {known}, not {request.get('do')!r:.40}")
        work = asyncio.ensure_future(handler(request, tell))
        gone = asyncio.ensure_future(reader.read())  # whoever asked may go away
        try:
            await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                return
            await _line(writer, {"answer": work.result()})
        finally:
            work.cancel()
            gone.cancel()
            await asyncio.wait((work, gone))
    except EdgechoirError as error:
        await _line(writer, {"error": str(error)})


async def _request(reader: asyncio.StreamReader) -> Mapping[str, Any]:
    try:
        async with asyncio.timeout(READ_S):
            line = await reader.readuntil(b"\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
        raise OperatorError(f"no request of at most {MAX_REQUEST} bytes came") from None
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise OperatorError("a request is one JSON object in a line")
    return document


async def _line(writer: asyncio.StreamWriter, document: Mapping[str, Any]) -> None:
    data = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    if len(data) > MAX_LINE:
        data = b'{"error":"the answer is too long: ask about fewer columns"}\n'
    writer.write(data)
    async with asyncio.timeout(SEND_S):
        await writer.drain()


def request(
    state: Path, document: Mapping[str, Any], seconds: float, told: Callable[[str], None]
) -> dict[str, Any]:
    """Ask the process of a state directory, and wait. Raises OperatorError with what it says."""
    where = state / NAME
    with connected(state, NAME, seconds) as to:
        to.sendall(json.dumps(document).encode() + b"\n")
        with to.makefile("rb") as lines:
            while line := lines.readline(MAX_LINE + 1):
                try:
                    said = json.loads(line)
                except ValueError:
                    raise OperatorError(f"the process at {where} gave no answer in JSON") from None
                if "progress" in said:
                    told(str(said["progress"]))
                elif "error" in said:
                    raise OperatorError(str(said["error"]))
                else:
                    answer: dict[str, Any] = said["answer"]
                    return answer
    raise OperatorError(f"the process at {where} ended without an answer")
