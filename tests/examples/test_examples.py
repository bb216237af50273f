"""The example programs, run as a reader would, on the data that they make up themselves."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.torch


def said(name: str) -> str:
    """The last line of a program's output."""
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "made-up" in done.stdout
    return done.stdout.splitlines()[-1]


def numbers(pattern: str, line: str) -> list[float]:
    found = re.search(pattern, line)
    assert found is not None, line
    return [float(group) for group in found.groups()]


def test_the_life_of_an_engine_is_told_better_than_by_the_mean() -> None:
    (error,) = numbers(r"RMSE on 30 engines: ([0-9.]+) cycles", said("machine_health.py"))
    assert error < 15  # the spread of what is left is 15 to 40


def test_activities_are_told_apart() -> None:
    (right,) = numbers(r"([0-9.]+)% of 648 new ones", said("activity.py"))
    assert right > 90


def test_the_next_hour_is_told_better_than_by_the_last() -> None:
    line = said("air_quality.py")
    error, no_change = numbers(r"RMSE ([0-9.]+) ug/m3 on [0-9]+, no change ([0-9.]+)", line)
    assert error < 0.8 * no_change


def test_every_example_fits_on_a_page() -> None:
    for path in sorted(EXAMPLES.glob("*.py")):
        assert len(path.read_text().splitlines()) <= 60, path.name
