"""HTTP in both directions: readings fetched, and samples that are posted."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Protocol

import pytest

from edgechoir.errors import OperatorError, SourceError
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sources.http_poll import MAX_ANSWER, HttpReading
from edgechoir.pipeline.sources.http_receive import MAX_BODY, MAX_CONNECTIONS, HttpReceiver


class Hands(Protocol):
    def clock(self) -> Clock: ...


@asynccontextmanager
async def server(answer: bytes, status: str = "200 OK") -> AsyncIterator[str]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(answer)}\r\n\r\n"
        writer.write(head.encode() + answer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/reading"


def fetched(answer: bytes, *fields: str, status: str = "200 OK") -> Sample:
    async def run() -> Sample:
        async with server(answer, status) as url:
            read = HttpReading(url, fields, deadline=20.0, now=lambda: 7.0)
            return await asyncio.to_thread(read)

    return asyncio.run(run())


def test_answer_is_a_sample() -> None:
    sample = fetched(b'{"x": [1, 2], "key": "roof", "y": 3}')
    assert (sample.key, sample.x.tolist(), sample.y, sample.time) == ("roof", [1, 2], 3, 7.0)


def test_fields_are_taken_out_of_any_answer() -> None:
    weather = {"main": {"temp": 3.5}, "sensors": [{"value": 7}, {"value": None}]}
    sample = fetched(json.dumps(weather).encode(), "main.temp", "sensors.0.value")
    assert (sample.key, sample.x.tolist()) == ("http", [3.5, 7])


@pytest.mark.parametrize(
    ("answer", "fields", "status"),
    [
        (b"<html>", (), "200 OK"),
        (b"<html>", ("a",), "200 OK"),
        (b'{"a": 1}', ("b",), "200 OK"),
        (b'{"a": "1"}', ("a",), "200 OK"),
        (b'{"a": [1]}', ("a.x",), "200 OK"),
        (b'{"a": true}', ("a",), "200 OK"),
        (b'{"x": [1]}', (), "503 Service Unavailable"),
        (b"[" * 100_000, ("a",), "200 OK"),
        (b" " * (MAX_ANSWER + 1), ("a",), "200 OK"),
    ],
)
def test_answer_that_is_no_reading_can_be_asked_for_again(
    answer: bytes, fields: tuple[str, ...], status: str
) -> None:
    with pytest.raises(SourceError):
        fetched(answer, *fields, status=status)


def test_nobody_there_can_be_asked_again_and_no_address_cannot() -> None:
    with pytest.raises(SourceError):
        HttpReading("http://127.0.0.1:9/", deadline=5.0)()
    for url in ("file:///etc/passwd", "localhost:80", ""):
        with pytest.raises(OperatorError, match="http"):
            HttpReading(url)


async def post(port: int, body: bytes, head: str = "", method: str = "POST / HTTP/1.1") -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = head or f"Content-Length: {len(body)}\r\n"
    writer.write(f"{method}\r\n{head}\r\n".encode() + body)
    line = await reader.readline()
    writer.close()
    return int(line.split()[1])


def receiving(
    work: Callable[[HttpReceiver], Awaitable[None]], token: str | None = None, **bounds: float
) -> None:
    async def run() -> None:
        async with asyncio.timeout(30):
            async with HttpReceiver(port=0, token=token, **bounds) as receiver:  # type: ignore[arg-type]  # only a deadline
                await work(receiver)

    asyncio.run(run())


def test_posted_samples_come_out_in_order() -> None:
    async def work(receiver: HttpReceiver) -> None:
        assert await post(receiver.port, b'{"x": [1]}\n{"x": [2], "y": 1}\n') == 204
        assert await post(receiver.port, b'{"x": [3]}\nwords\n{"x": [4]}') == 400
        samples = aiter(receiver)
        assert [(await anext(samples)).x.tolist() for _ in range(4)] == [[1], [2], [3], [4]]
        assert receiver.counts == {"malformed": 1}

    receiving(work)


def test_one_connection_carries_several_posts() -> None:
    async def work(receiver: HttpReceiver) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        for _ in range(3):
            writer.write(b'POST / HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"x": [1]}')
            assert b"204" in await reader.readuntil(b"\r\n\r\n")
        writer.close()

    receiving(work)


@pytest.mark.parametrize(
    ("method", "head", "status"),
    [
        ("GET / HTTP/1.1", "", 405),
        ("POST /other HTTP/1.1", "", 405),
        ("nonsense", "", 405),
        ("POST / HTTP/1.1", "Host: me\r\n", 411),
        ("POST / HTTP/1.1", "Content-Length: -1\r\n", 411),
        ("POST / HTTP/1.1", "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 411),
        ("POST / HTTP/1.1", f"Content-Length: {MAX_BODY + 1}\r\n", 413),
        ("POST / HTTP/1.1", f"Content-Length: {10**30}\r\n", 413),
        ("POST / HTTP/1.1", f"X: {'y' * 10_000}\r\n", 413),
    ],
)
def test_request_that_is_no_post_of_samples_is_refused(method: str, head: str, status: int) -> None:
    async def work(receiver: HttpReceiver) -> None:
        assert await post(receiver.port, b'{"x": [1]}', head, method) == status
        assert await post(receiver.port, b'{"x": [1]}') == 204

    receiving(work)


def test_token_must_be_given_where_one_is_set() -> None:
    async def work(receiver: HttpReceiver) -> None:
        for given, status in (("", 401), ("Bearer wrong", 401), ("Bearer right-token", 204)):
            head = f"Content-Length: 10\r\nAuthorization: {given}\r\n"
            assert await post(receiver.port, b'{"x": [1]}', head) == status

    receiving(work, token="right-token")


def test_connection_that_sends_nothing_is_closed_and_their_number_is_bounded() -> None:
    async def work(receiver: HttpReceiver) -> None:
        idle = [
            await asyncio.open_connection("127.0.0.1", receiver.port)
            for _ in range(MAX_CONNECTIONS + 1)
        ]
        for reader, _ in idle:
            assert await reader.read() == b""
        assert receiver.counts["refused"] >= 1
        assert await post(receiver.port, b'{"x": [1]}') == 204
        for _, writer in idle:
            writer.close()

    receiving(work, deadline=0.2)


def test_port_that_is_taken_can_be_tried_again() -> None:
    async def work(receiver: HttpReceiver) -> None:
        with pytest.raises(SourceError, match="cannot listen"):
            async with HttpReceiver(port=receiver.port):
                pass

    receiving(work)
