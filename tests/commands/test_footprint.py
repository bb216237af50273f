import gc
import os
import subprocess
import sys

import pytest

from edgechoir.commands import footprint
from edgechoir.commands.footprint import code

MAPS = """\
55d0-55e0 r--p 00000000 fd:00 1311 /usr/bin/python3
55e0-5600 r-xp 00010000 fd:00 1311 /usr/bin/python3
7f10-7f20 rw-p 00000000 00:00 0
7f20-7f30 r-xp 00000000 00:00 0
7f30-7f60 r-xp 00001000 fd:00 77   /lib/a library.so
7fff-8000 r-xp 00000000 00:00 0                          [vdso]
"""
STEPS = """
import gc, re
from pathlib import Path
from edgechoir.commands import footprint

def resident():
    return int(re.search(r"RssFile:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

footprint.prepare()
import numpy
assert not gc.isenabled()
footprint.ready()
assert gc.isenabled() and gc.get_freeze_count() > 10_000
before = resident()
footprint.settle()
print(before, resident(), numpy.arange(10).sum())
"""


def test_only_code_that_comes_from_a_file_is_let_go() -> None:
    assert list(code(MAPS)) == [(0x55E0, 0x5600), (0x7F30, 0x7F60)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_settled_has_less_code_in_memory_and_works_on() -> None:
    done = subprocess.run(
        [sys.executable, "-c", STEPS], capture_output=True, text=True, check=True, timeout=60
    )
    before, after, total = map(int, done.stdout.split())
    assert after < 0.8 * before
    assert total == 45


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "3")
    monkeypatch.setenv("MALLOC_ARENA_MAX", "8")
    monkeypatch.setenv("PYDANTIC_DISABLE_PLUGINS", "")
    try:
        footprint.prepare()
    finally:
        gc.enable()
    assert os.environ["OPENBLAS_NUM_THREADS"] == "3"
    assert os.environ["PYDANTIC_DISABLE_PLUGINS"] == ""
