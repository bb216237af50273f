"""A broker at a site, one above: devices at the site learn with a node beyond the bridge."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgechoir.demo.layout import FEDERATION
from edgechoir.fleet.authority_dir import sign_request
from edgechoir.fleet.enrolment import install_certificate, make_request
from edgechoir.monitor.status import MemberState

if TYPE_CHECKING:
    from tests.e2e.conftest import Fleet, FleetOf, Running

pytestmark = [pytest.mark.e2e, pytest.mark.torch, pytest.mark.timeout(180)]

TREE = (
    ("cloud", "cloud", None),
    ("node", "node-1", "cloud"),
    ("device", "dev-1", "node-1"),
    ("device", "dev-2", "node-1"),
    ("device", "dev-3", "cloud"),
)
AT_THE_SITE = ("dev-1", "dev-2")
BRIDGES = '[site-a]\nchildren = { "node/node-1" = ["device/dev-1", "device/dev-2"] }\n'


@pytest.fixture
def fleet(make_fleet: FleetOf, tmp_path: Path) -> Iterator[Fleet]:
    """Two of its devices know the site's broker alone."""
    with make_fleet(tmp_path, TREE, 500) as fleet:
        folder, now = tmp_path / "ca" / "broker", time.time()
        home = tmp_path / "site-a"
        request = make_request(home, FEDERATION, "site-a", "bridge", os.urandom).read_bytes()
        issued = sign_request(tmp_path / "ca", request, "bridge", now, 7, os.urandom, None)
        install_certificate(home, issued.pem, (tmp_path / "ca" / "ca.crt").read_bytes(), now)
        (folder / "bridges.toml").write_text(BRIDGES)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        for member in AT_THE_SITE:
            fleet.edit(member, f"port = {fleet.port}", f"port = {port}")
        fleet.run(
            "site",
            tmp_path / "site.log",
            *("broker", "run", str(folder), "--state", str(tmp_path / "site"), "--persistent"),
            *("--address", "127.0.0.1", "--port", str(port), "--kind", "mosquitto"),
            *("--bridge", "site-a", "--upper", f"localhost:{fleet.port}", "--identity", str(home)),
        )
        yield fleet


def test_rounds_cross_a_bridge_and_go_on_after_the_broker_above_was_killed(
    fleet: Fleet, running: Running
) -> None:
    async def trial() -> None:
        async with fleet.view() as view:
            fleet.start("cloud", "node-1", "dev-1", "dev-2", "dev-3")
            await view.rounds(2, devices=3)
            fleet.kill("dev-2")
            await view.is_state("dev-2", MemberState.LOST)
            fleet.start("dev-2")
            await view.rounds(2, devices=3)

            conf = str(fleet.folder / "ca" / "broker" / "state" / "mosquitto.conf")
            (pid,) = (p for p, line in running(conf).items() if "mosquitto -c" in line)
            os.kill(pid, signal.SIGKILL)
            fleet.running.pop("broker").wait(20)
            fleet.start_broker()
            await view.rounds(2, devices=3)

    asyncio.run(trial())
