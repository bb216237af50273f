"""What is looked at on a machine, and what is said where something is missing."""

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from edgechoir.commands.finding import Finding, Level, note, wrong
from edgechoir.commands.machine import EARLIEST, clock, disk, machine, memory, probe


def probed(code: str, *arguments: str, seconds: float = 60.0) -> Finding:
    return asyncio.run(probe("library", code, arguments, seconds))


def test_this_machine_can_run_us(run: Any) -> None:
    found = run.findings()
    assert {what for what, each in found.items() if each["level"] == "good"} >= {
        *("python", "clock", "numpy", "cryptography", "onnxruntime", "memory", "disk")
    }


def test_a_machine_without_onnxruntime_can_be_a_node(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = run.findings()
    assert found["onnxruntime"]["level"] == "note"
    assert "no device" in found["onnxruntime"]["seen"]


def test_a_library_that_loads_says_its_version() -> None:
    assert str(probed("print('1.2.3')")) == " good  library: 1.2.3"


def test_an_illegal_instruction_is_a_line_of_the_report() -> None:
    found = probed(f"import os; os.kill(os.getpid(), {signal.SIGILL.value})")
    assert found.level is Level.WRONG
    assert "instructions that this CPU does not have" in found.seen


def test_a_library_that_is_missing_is_named() -> None:
    found = probed("import no_such_library")
    assert found == wrong("library", "ModuleNotFoundError: No module named 'no_such_library'")


def test_a_library_that_ends_without_a_word_gives_its_status() -> None:
    assert probed("import os; os._exit(3)") == wrong("library", "ended with status 3")


def test_a_library_that_hangs_is_ended() -> None:
    found = probed("import signal; signal.pause()", seconds=0.3)
    assert found.level is Level.WRONG
    assert found.seen == "did not load within 0.3 s"


def test_a_file_in_the_working_directory_is_not_taken_for_a_library(
    tmp_path: Path, monkeypatch: Any
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(tmp_path)
    assert probed("import numpy; print(numpy.__name__)").level is Level.GOOD


def test_a_clock_that_was_never_set_is_wrong() -> None:
    assert clock(0.0).level is Level.WRONG
    assert clock(0.0).seen == "1970-01-01 00:00 UTC"
    assert clock(EARLIEST + 1).level is Level.GOOD


def test_with_a_clock_of_1970_the_rest_is_looked_at_all_the_same() -> None:
    async def look() -> list[Finding]:
        return [finding async for finding in machine(0.0)]

    found = asyncio.run(look())
    assert [f.what for f in found if f.level is Level.WRONG] == ["clock"]
    assert len(found) == 5


def test_memory_is_judged_by_what_is_free(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"

    def free(kilobytes: int) -> str:
        meminfo.write_text(f"MemTotal: 1000000 kB\nMemAvailable: {kilobytes} kB\n")
        return memory(500, meminfo).level.value

    assert [free(kb) for kb in (100_000, 200_000, 600_000)] == ["wrong", "note", "good"]
    assert memory(500, tmp_path / "none").level is Level.NOTE
    meminfo.write_text("MemTotal: much\n")
    assert memory(500, meminfo).level is Level.NOTE


def test_disk_is_judged_where_the_directory_will_be(tmp_path: Path) -> None:
    found = disk(tmp_path / "not" / "yet" / "there", 0)
    assert found.level is Level.GOOD
    assert found.seen.endswith(f"MB are free at {tmp_path}")
    assert disk(tmp_path, 1 << 60).level is Level.NOTE


def test_a_finding_is_one_line() -> None:
    assert str(note("parent", "gone", "start it")) == " note  parent: gone; start it"
    assert str(wrong("model", "no")) == "wrong  model: no"
