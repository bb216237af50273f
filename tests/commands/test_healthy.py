"""A process that serves answers at a socket in its state directory; a health check asks there."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from edgechoir.commands.pulse import NAME, answering, ask
from edgechoir.errors import OperatorError

FORBIDDEN = ("torch", "onnxruntime", "numpy", "pydantic", "cryptography")


def asked(state: Path, seconds: float = 5.0) -> str:
    return asyncio.run(_asked(state, seconds))


async def _asked(state: Path, seconds: float) -> str:
    async with answering(state, "device/dev-1"):
        return await asyncio.to_thread(ask, state, seconds)


def test_a_process_that_serves_says_who_it_is(tmp_path: Path) -> None:
    assert asked(tmp_path / "state") == "device/dev-1 has run for 0 s"


def test_a_state_directory_may_lie_deeper_than_a_socket_can_be_named(tmp_path: Path) -> None:
    assert asked(tmp_path / ("deep" * 30) / "state").startswith("device/dev-1 ")


def test_nobody_but_the_owner_may_ask(tmp_path: Path) -> None:
    async def modes() -> tuple[int, int]:
        async with answering(tmp_path / "state", "device/dev-1"):
            return (tmp_path / "state").stat().st_mode, (tmp_path / "state" / NAME).stat().st_mode

    directory, pulse = asyncio.run(modes())
    assert (directory & 0o777, pulse & 0o777) == (0o700, 0o600)


def test_where_nothing_runs_nobody_answers(tmp_path: Path, run: Any) -> None:
    asked(tmp_path)
    ended = run("healthy", tmp_path)
    assert ended.status == 1
    assert ended.complaint == (
        f"edgechoir: no process answers at {tmp_path / NAME}: is it running?"
    )
    assert run("healthy", tmp_path / "nowhere").status == 1


def test_a_process_that_was_killed_leaves_nothing_that_answers(tmp_path: Path, run: Any) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / NAME))
    assert run("healthy", tmp_path).status == 1
    assert asked(tmp_path).startswith("device/dev-1 "), "the next process takes its place"


def test_a_process_whose_loop_is_stuck_is_not_well(tmp_path: Path) -> None:
    async def stuck() -> None:
        async with answering(tmp_path, "device/dev-1"):
            # Asked on the loop's own thread: while that waits, it can answer nobody.
            with pytest.raises(OperatorError, match="did not answer within"):
                ask(tmp_path, 0.05)

    asyncio.run(stuck())


def test_a_second_process_does_not_silence_the_first(tmp_path: Path) -> None:
    async def both() -> str:
        async with answering(tmp_path, "device/first"):
            second = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", SECOND, str(tmp_path)), env=dict(os.environ)
            )
            assert await second.wait() == 0
            return await asyncio.to_thread(ask, tmp_path, 5.0)

    assert asyncio.run(both()).startswith("device/first ")


SECOND = """
import asyncio, pathlib, sys
from edgechoir.commands.pulse import answering

async def main():
    async with answering(pathlib.Path(sys.argv[1]), "device/second"):
        pass

asyncio.run(main())
"""


def test_a_tier_runs_on_where_no_socket_can_be_made(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> bool:
        async with answering(tmp_path / "file" / "state", "device/dev-1"):
            return True

    (tmp_path / "file").write_text("not a directory")
    assert asyncio.run(main())
    assert "`edgechoir healthy` will find nobody" in caplog.text


def test_an_error_of_the_work_comes_out_as_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with answering(tmp_path, "device/dev-1"):
            raise OSError("of the work")

    with pytest.raises(OSError, match="of the work"):
        asyncio.run(main())
    assert not (tmp_path / NAME).exists()


def test_asking_is_light() -> None:
    code = (
        "import sys; from edgechoir.cli import main; main(['healthy', '/nowhere']); "
        f"print([m for m in {FORBIDDEN} if m in sys.modules])"
    )
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert time.monotonic() - began < 10, "seconds, on a machine that is busy with other tests"


def test_a_broker_answers_while_it_runs(site: Any) -> None:
    state = site.ca / "broker" / "state"
    with site.broker():
        assert ask(state, 5.0).startswith("broker has run for ")
    assert not (state / NAME).exists()


def test_a_tier_without_its_broker_is_well(site: Any) -> None:
    config = site.member("cloud", "cloud-1")
    state = config.parent / "state"
    with subprocess.Popen(
        [sys.executable, "-m", "edgechoir", "cloud", str(config)], stderr=subprocess.PIPE
    ) as cloud:
        assert cloud.stderr is not None
        try:
            assert b"it refused the connection" in cloud.stderr.readline()
            assert ask(state, 5.0).startswith("cloud/cloud-1 has run for ")
        finally:
            cloud.terminate()
            cloud.stderr.read()
        assert cloud.wait(20) == 0
    assert not (state / NAME).exists()
