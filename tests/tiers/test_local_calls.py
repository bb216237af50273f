"""A request at the control socket gets one answer or one error, and blocks nobody else."""

import asyncio
import json
import os
import socket
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from edgechoir.errors import OperatorError
from edgechoir.tiers import local_calls
from edgechoir.tiers.local_calls import MAX_CALLERS, MAX_REQUEST, NAME, Tell, request, serving
from edgechoir.tiers.socket_file import short

WAIT_S = 20.0


async def double(asked: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
    await tell("halfway")
    if not isinstance(asked.get("n"), int):
        raise OperatorError("n is no number")
    return {"n": 2 * asked["n"]}


async def ask(state: Path, **document: object) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    answer = await asyncio.to_thread(request, state, document, WAIT_S, said.append)
    return answer, said


def test_a_request_is_answered_and_its_progress_told(tmp_path: Path) -> None:
    async def trial() -> None:
        deep = tmp_path / ("d" * 100)  # longer than a socket's path may be
        async with serving(deep, {"double": double}, "edgechoir query"):
            assert stat.S_IMODE(os.stat(deep / NAME).st_mode) == 0o600
            assert await ask(deep, do="double", n=21) == ({"n": 42}, ["halfway"])
            with pytest.raises(OperatorError, match="n is no number"):
                await ask(deep, do="double")
            with pytest.raises(OperatorError, match="does double, not 'halve'"):
                await ask(deep, do="halve")
        with pytest.raises(OperatorError, match="is it running"):
            await ask(deep, do="double", n=1)

    asyncio.run(trial())


@pytest.mark.parametrize(
    "line", [b"\n", b"[]\n", b"{\n", b"no newline", b"[" * 70_000 + b"\n", b"x" * MAX_REQUEST * 2]
)
def test_what_is_no_request_is_refused(
    tmp_path: Path, line: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_calls, "READ_S", 0.2)

    def say() -> bytes:
        with short(tmp_path, NAME) as path, socket.socket(socket.AF_UNIX) as to:
            to.settimeout(WAIT_S)
            to.connect(path)
            try:
                to.sendall(line)
            except OSError:
                return b'{"error": "closed"}'
            with to.makefile("rb") as lines:
                try:
                    return lines.readline()
                except ConnectionResetError:  # closed before all of it was read
                    return b'{"error": "closed"}'

    async def trial() -> None:
        async with serving(tmp_path, {"double": double}, "edgechoir query"):
            assert "error" in json.loads(await asyncio.to_thread(say))
            assert (await ask(tmp_path, do="double", n=1))[0] == {"n": 2}

    asyncio.run(trial())


def test_who_goes_away_has_the_work_given_up(tmp_path: Path) -> None:
    async def trial() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        async def forever(asked: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
            began.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return {}

        async with serving(tmp_path, {"forever": forever}, "edgechoir query"):
            with short(tmp_path, NAME) as path:
                _, writer = await asyncio.open_unix_connection(path)
            writer.write(b'{"do":"forever"}\n')
            async with asyncio.timeout(WAIT_S):
                await began.wait()
                writer.close()
                await ended.wait()

    asyncio.run(trial())


def test_callers_are_bounded(tmp_path: Path) -> None:
    async def trial() -> None:
        release, busy = asyncio.Event(), asyncio.Semaphore(0)

        async def wait(asked: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
            busy.release()
            await release.wait()
            return {}

        async with serving(tmp_path, {"wait": wait}, "edgechoir query"):
            asking = [asyncio.create_task(ask(tmp_path, do="wait")) for _ in range(MAX_CALLERS)]
            async with asyncio.timeout(WAIT_S):
                for _ in range(MAX_CALLERS):
                    await busy.acquire()
            with pytest.raises(OperatorError, match="already"):
                await ask(tmp_path, do="wait")
            release.set()
            assert len(await asyncio.gather(*asking)) == MAX_CALLERS

    asyncio.run(trial())


def test_a_second_process_does_not_take_the_socket_away(tmp_path: Path) -> None:
    async def trial() -> None:
        async with serving(tmp_path, {"double": double}, "edgechoir query"):
            async with serving(tmp_path, {}, "edgechoir query"):
                assert (await ask(tmp_path, do="double", n=1))[0] == {"n": 2}
            assert (await ask(tmp_path, do="double", n=2))[0] == {"n": 4}

    asyncio.run(trial())
