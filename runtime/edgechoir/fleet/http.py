"""As much of HTTP/1.1 (RFC 9112) as the enrolment endpoint needs: one request a connection, a body
of a known and small length. Both ends bound what they read; deadlines are the caller's."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from edgechoir.errors import Malformed

MAX_HEAD: Final = 8192
REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class HttpMessage:
    """A request or an answer: the words of its first line, and what follows."""

    first: tuple[str, ...]
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


async def read_message(reader: asyncio.StreamReader, max_body: int) -> HttpMessage:
    """Read one message. Raises Malformed: not HTTP, too large, or cut off."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        raise Malformed("no head of an HTTP message") from None
    if len(head) > MAX_HEAD:
        raise Malformed(f"a head of {len(head)} bytes, the limit is {MAX_HEAD}")
    try:
        first, *lines = head[:-4].decode("ascii").split("\r\n")
        headers = {}
        for line in lines:
            name, colon, value = line.partition(":")
            if not colon:
                raise ValueError
            headers[name.strip().lower()] = value.strip()
    except ValueError:
        raise Malformed("a head that is not HTTP's") from None
    words = tuple(first.split(" ", 2))
    if len(words) < 2:
        raise Malformed("a first line that is not HTTP's")
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdigit() or len(length) > 9:
        raise Malformed("a body without a plain length")
    if int(length) > max_body:
        raise Malformed(f"a body of {length} bytes, the limit is {max_body}")
    try:
        body = await reader.readexactly(int(length))
    except asyncio.IncompleteReadError:
        raise Malformed("a body that is cut off") from None
    return HttpMessage(words, headers, body)


def write_request(method: str, path: str, host: str, body: bytes, kind: str) -> bytes:
    """The bytes of a request; the connection ends with its answer."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
    return _finish(head, body, kind)


def write_answer(status: int, body: bytes, kind: str) -> bytes:
    """The bytes of an answer, the last of its connection."""
    return _finish(f"HTTP/1.1 {status} {REASONS[status]}\r\n", body, kind)


def _finish(head: str, body: bytes, kind: str) -> bytes:
    rest = f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return (head + rest).encode("ascii") + body
