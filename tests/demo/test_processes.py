"""Whatever the demo starts is gone when the demo is, and its end is explained by its own words."""

import asyncio
import os
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest

from edgechoir.demo.layout import Seat, lay_out
from edgechoir.demo.processes import processes, tail
from edgechoir.demo.show import bundle_path
from edgechoir.errors import OperatorError


def running_in(folder: Path) -> int:
    """How many processes have a path in this folder on their command line."""
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            count += os.fsencode(folder) in (process / "cmdline").read_bytes()
        except OSError:
            continue  # it has ended meanwhile
    return count


def without_a_broker(folder: Path) -> Seat:
    """A member that tries to connect for longer than any of these tests takes."""
    seat = Seat("monitor", "eye", None, folder / "members" / "eye")
    lay_out(folder, [seat], bundle_path(), [], 5, 1, "auto")
    return seat


def test_a_process_that_ends_by_itself_is_named_with_its_last_words(tmp_path: Path) -> None:
    async def trial() -> None:
        async with processes() as running:
            log = tmp_path / "logs" / "dev-1.txt"
            await running.start("dev-1", log, "device", str(tmp_path / "no-such.toml"))
            async with asyncio.timeout(20):
                await running.ended()

    with pytest.raises(OperatorError, match=r"dev-1 ended by itself \(exit status 2\)") as raised:
        asyncio.run(trial())
    assert "no-such.toml: cannot be read" in str(raised.value)


@pytest.mark.parametrize("error", [None, KeyError("something else went wrong")])
def test_what_was_started_is_gone_after_the_block(tmp_path: Path, error: KeyError | None) -> None:
    seat = without_a_broker(tmp_path)

    async def trial() -> None:
        async with processes() as running:
            await running.start_seat(seat)
            await running.start_seat(replace(seat, member="again"))
            assert running_in(tmp_path) >= 1
            if error is not None:
                raise error

    with pytest.raises(KeyError) if error is not None else nullcontext():
        asyncio.run(trial())
    assert running_in(tmp_path) == 0


def test_one_can_be_stopped_and_the_others_go_on(tmp_path: Path) -> None:
    seat = without_a_broker(tmp_path)

    async def trial() -> None:
        async with processes() as running:
            await running.start_seat(seat)
            await running.start("broker", tmp_path / "broker.txt", "broker", "--help")
            await running.stop("broker")
            assert running_in(tmp_path) == 1
            async with asyncio.timeout(20):
                await running.stop()
            assert running_in(tmp_path) == 0

    asyncio.run(trial())


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"\n".join(b"line %d" % n for n in range(50)) + b"\n\xff\n")
    assert tail(log, 3).splitlines() == ["line 48", "line 49", "\ufffd"]
    assert tail(tmp_path / "none") == "(no log)"
