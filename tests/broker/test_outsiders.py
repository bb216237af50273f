"""The tools that come with mosquitto, as a person would use them: the fleet's port is no secret."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from edgechoir.fleet.enrolment import MemberPaths

if TYPE_CHECKING:
    from tests.broker.conftest import Connect, Fleet

    from edgechoir.broker.settings import Kind

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        shutil.which("mosquitto_sub") is None, reason="mosquitto's clients are not installed"
    ),
]
STATUS = "edgechoir/v1/alps/device/dev-1/status"
EVERY_STATUS = "edgechoir/v1/+/+/+/status"


def tool(fleet: Fleet, name: str, member: str | None, *arguments: str) -> tuple[int, str]:
    """Exit status and output of mosquitto_pub or mosquitto_sub."""
    command = [name, "-V", "311", "-h", "localhost", "-p", str(fleet.settings.port), "-q", "1"]
    command += ["--cafile", str(fleet.settings.files.ca), *arguments]
    if member is not None:
        paths = MemberPaths(fleet.root / member)
        command += ["--cert", str(paths.certificate), "--key", str(paths.key)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("kind", ["mosquitto", "python"])
def test_mosquitto_sub_is_a_monitor_and_only_with_a_certificate(fleet: Fleet, kind: Kind) -> None:
    if kind == "python":
        pytest.importorskip("amqtt")

    def body(_connect: Connect) -> None:
        publish = ("-r", "-t", STATUS, "-m", "online")
        assert tool(fleet, "mosquitto_pub", None, *publish)[0] != 0
        assert tool(fleet, "mosquitto_pub", "dev-1", *publish) == (0, "")
        assert tool(fleet, "mosquitto_sub", None, "-t", EVERY_STATUS, "-C", "1")[0] != 0
        got = tool(fleet, "mosquitto_sub", "eye-1", "-t", EVERY_STATUS, "-C", "1")
        assert got == (0, "online\n")

    fleet.serve(kind, body)
