"""`edgechoir monitor` and `edgechoir broker` against each other, as processes."""

import json
import subprocess
import sys
from typing import Any

import pytest

from edgechoir.monitor.status import ModelStatus


@pytest.mark.e2e
def test_once_shows_what_the_broker_retains(run: Any, site: Any) -> None:
    cloud = site.member("cloud", "cloud")
    device = site.member("device", "dev-1", "cloud")
    eye = site.member("monitor", "eye")
    with site.broker():
        assert run.good("monitor", eye, "--once") == "alps: no member has published a status\n"
        site.publish(cloud, model=ModelStatus(version=3, accuracy=0.9))
        site.publish(device, parent="cloud", samples=512)
        lines = run.good("monitor", eye, "--once").splitlines()
        assert lines[0] == "alps: 2 online"
        assert lines[1].split() == ["cloud/cloud", "online", "v3", "90.0%"]
        assert lines[2].split()[:2] == ["device/dev-1", "online"]
        said = run.good("monitor", eye, "--once", "--json").splitlines()
        assert {json.loads(line)["member"] for line in said} == {"cloud", "dev-1"}


def test_a_device_is_no_monitor(run: Any, site: Any) -> None:
    ended = run("monitor", site.member("device", "dev-1", "node-1"), "--once")
    assert ended.status == 2
    assert "expected one of a monitor" in ended.complaint


@pytest.mark.e2e
def test_sigterm_ends_a_monitor_cleanly(site: Any) -> None:
    cloud, eye = site.member("cloud", "cloud"), site.member("monitor", "eye")
    with site.broker():
        site.publish(cloud)
        with subprocess.Popen(
            [sys.executable, "-m", "edgechoir", "monitor", str(eye), "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert json.loads(process.stdout.readline())["member"] == "cloud"
            process.terminate()
            assert process.wait(30) == 0
            assert process.stderr.read() == b""
