"""Samples that other programs post over HTTP: `POST /` with one JSON sample, or several in lines.

A server for a local network and nothing else: HTTP/1.1 with a length, one bounded body a request, a
deadline for each, so many connections and no more. Where a token is set a request must carry it
(`Authorization: Bearer ...`). 204: all taken; 400: some were malformed; 401, 411, 413: refused;
503: the pipeline is behind, come again later.
"""

import asyncio
import hmac
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import Final

from edgechoir.errors import SourceError
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sources.message import MAX_PAYLOAD, read

MAX_HEAD: Final = 8192
MAX_BODY: Final = 1_000_000
MAX_CONNECTIONS: Final = 32
AHEAD: Final = 4096
"""Samples that wait for the pipeline before posts are refused."""
DEADLINE: Final = 10.0

_REASON: Final = {
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Content Too Large",
    503: "Service Unavailable",
}


class HttpReceiver:
    """Listens on `host`:`port` (0: a free one, see `port`); `key` names what has no name."""

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 8080,
        *,
        token: str | None = None,
        key: str = "http",
        deadline: float = DEADLINE,
        clock: Clock | None = None,
    ) -> None:
        self._host, self.port, self._token, self._key = host, port, token, key
        self._deadline = deadline
        self._clock = Clock() if clock is None else clock
        self._queue: deque[Sample] = deque()
        self._ready = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._serving: set[asyncio.Task[None]] = set()
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        return dict(self._counts)

    async def __aenter__(self) -> "HttpReceiver":
        """Raises SourceError: the port is taken, or the address is not ours, now."""
        try:
            self._server = await asyncio.start_server(
                self._accept, self._host, self.port, limit=MAX_HEAD
            )
        except OSError as error:
            raise SourceError(f"cannot listen on {self._host}:{self.port}: {error}") from error
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._serving:
            task.cancel()
        if self._serving:
            await asyncio.wait(self._serving)

    async def __aiter__(self) -> AsyncIterator[Sample]:
        while True:
            while self._queue:
                yield self._queue.popleft()
            self._ready.clear()
            await self._ready.wait()

    def _count(self, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._serving) >= MAX_CONNECTIONS:
            self._count("refused")
            writer.close()
            return
        self._serving.add(task)
        try:
            more = True
            while more:
                async with asyncio.timeout(self._deadline):
                    status, more = await self._request(reader)
                    if status is None:
                        break
                    writer.write(_answer(status, more))
                    await writer.drain()
        except asyncio.CancelledError:
            pass  # the source is closing
        except (TimeoutError, OSError, ValueError, asyncio.IncompleteReadError):
            self._count("broken")
        finally:
            self._serving.discard(task)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader) -> tuple[int | None, bool]:
        """The status to answer with (None: no request came), and whether another may follow."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise
            return None, False
        except asyncio.LimitOverrunError:
            self._count("refused")
            return 413, False
        request, *lines = head.decode("latin-1").split("\r\n")
        fields = {k.strip().lower(): v.strip() for k, _, v in (x.partition(":") for x in lines)}
        status = self._refusal(request, fields)
        if status is not None:
            self._count("refused")
            return status, False
        body = await reader.readexactly(int(fields["content-length"]))
        return self._take(body), fields.get("connection", "").lower() != "close"

    def _refusal(self, request: str, fields: Mapping[str, str]) -> int | None:
        if not request.startswith("POST / HTTP/1."):
            return 405
        given = fields.get("authorization", "").removeprefix("Bearer ")
        if self._token is not None and not hmac.compare_digest(
            given.encode(), self._token.encode()
        ):
            return 401
        length = fields.get("content-length", "")
        if not length.isascii() or not length.isdigit() or "transfer-encoding" in fields:
            return 411
        if int(length[:12]) > MAX_BODY:
            return 413
        if len(self._queue) >= AHEAD:
            return 503
        return None

    def _take(self, body: bytes) -> int:
        good = True
        for line in body.splitlines():
            if not line.strip():
                continue
            sample = read(line, self._key, self._clock.now) if len(line) <= MAX_PAYLOAD else None
            if sample is None:
                self._count("malformed")
                good = False
            elif len(self._queue) >= 2 * AHEAD:
                self._count("overrun")
                return 503
            else:
                self._queue.append(sample)
        self._ready.set()
        return 204 if good else 400


def _answer(status: int, more: bool) -> bytes:
    close = "" if more else "Connection: close\r\n"
    length = "" if status == 204 else "Content-Length: 0\r\n"
    return f"HTTP/1.1 {status} {_REASON[status]}\r\n{length}{close}\r\n".encode()
