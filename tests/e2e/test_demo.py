"""The demo as its user runs it: by its command, over either broker, and ended with Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgechoir.broker.mosquitto_process import find_mosquitto
from edgechoir.demo.layout import DEVICES

if TYPE_CHECKING:
    from tests.e2e.conftest import LeftRunning, Running

pytestmark = [pytest.mark.e2e, pytest.mark.torch, pytest.mark.timeout(240)]

ROUNDS = 3


@pytest.fixture(autouse=True)
def _extras() -> None:
    for package, extra in (("sklearn", "demo"), ("matplotlib", "demo"), ("torch", "train")):
        pytest.importorskip(package, reason=f"the extra '{extra}' is not installed")


def command(directory: Path, *options: str) -> list[str]:
    program = (sys.executable, "-m", "edgechoir", "demo")
    return [*program, "--directory", str(directory), "--rounds", str(ROUNDS), *options]


def check_outcome(found: dict[str, Any]) -> None:
    """Every key that the README speaks of, with a value that can be."""
    accuracy = found["accuracy"]
    assert set(accuracy) == {"before", "local_only", "federated", "pooled"}
    assert all(0 <= value <= 1 for value in accuracy.values())
    assert accuracy["before"] < 0.4
    assert accuracy["federated"] > accuracy["before"]
    assert accuracy["pooled"] > 0.6
    assert found["rounds"]["done"] == ROUNDS
    assert 0 < found["rounds"]["seconds_median"] < 30
    assert found["inference"]["answered"] > DEVICES * 20
    assert found["inference"]["missed"] == 0
    assert 0 < found["inference"]["p99_ms_worst"] < 1000
    assert found["inference"]["models_exchanged"] >= DEVICES * ROUNDS
    moved = found["bytes_per_device_and_round"]
    assert moved["up"] > moved["model"]
    assert moved["down"] > moved["model"]
    assert 1 < moved["up_over_vector"] < 3
    assert found["device_rss_mb"] > 20
    assert Path(found["picture"]).stat().st_size > 10_000
    assert "Devices: accuracy" in Path(found["report"]).read_text()
    assert 0 < found["seconds"]["to_first_round"] < found["seconds"]["in_all"]


@pytest.mark.parametrize("broker", ["mosquitto", "python"])
def test_the_demo_runs_to_its_end_and_prints_its_outcome(
    tmp_path: Path, left_running: LeftRunning, broker: str
) -> None:
    if broker == "mosquitto" and find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    if broker == "python":
        pytest.importorskip("amqtt", reason="the extra 'broker' is not installed")
    directory = tmp_path / "demo"
    done = subprocess.run(
        command(directory, "--json", "--broker", broker),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    check_outcome(found)
    assert json.loads((directory / "outcome.json").read_text()) == found
    log = (directory / "broker.log").read_text()
    assert f"{broker} broker of digits" in log
    assert left_running(str(tmp_path)) == []


def test_ctrl_c_ends_the_demo_and_all_that_it_has_started(
    tmp_path: Path, running: Running, left_running: LeftRunning
) -> None:
    with subprocess.Popen(
        command(tmp_path / "demo"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "starting members" in line:
                break
        assert len(running(str(tmp_path))) > DEVICES
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
        assert demo.wait(20) == 130, rest
        assert "Traceback" not in rest
    assert left_running(str(tmp_path)) == []
