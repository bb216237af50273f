"""Writes the reference files of `broker_config/`: `python -m edgechoir.broker.reference FOLDER`."""

import sys
from pathlib import Path
from typing import Final

from edgechoir.broker.access import access, render_acl
from edgechoir.broker.mosquitto import render_conf
from edgechoir.broker.settings import BrokerSettings
from edgechoir.fleet.broker_files import BrokerFiles
from edgechoir.types import Address, MemberId

FEDERATION: Final = "alps"
MEMBERS: Final = tuple(
    Address(tier, MemberId(member))
    for tier, member in (
        ("device", "dev-1"),
        ("device", "dev-2"),
        ("node", "node-1"),
        ("edge-cloud", "edge-1"),
        ("cloud", "cloud-1"),
        ("monitor", "eye-1"),
    )
)
SETTINGS: Final = BrokerSettings(
    files=BrokerFiles(Path("/etc/edgechoir/broker")),
    state=Path("/var/lib/edgechoir/broker"),
    persistent=True,
)


def reference_files() -> dict[str, str]:
    """File name -> content: the configuration of a small sample federation."""
    return {
        "mosquitto.conf": render_conf(SETTINGS, acl=f"{SETTINGS.state}/acl", user=None),
        "acl": render_acl(access(FEDERATION, MEMBERS)),
    }


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "broker_config")
    for name, content in reference_files().items():
        (folder / name).write_text(content)


if __name__ == "__main__":
    main()
