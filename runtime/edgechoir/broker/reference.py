"""Writes the reference files of `broker_config/`: `python -m edgechoir.broker.reference FOLDER`.

They are what `edgechoir broker generate` makes for a sample federation.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Final

from edgechoir.broker.bridges import Bridge, Upper, render_bridge
from edgechoir.broker.federation import Federation
from edgechoir.broker.generate import generate
from edgechoir.broker.mosquitto import CONF, mosquitto_files, render_conf
from edgechoir.broker.settings import BrokerSettings
from edgechoir.fleet.broker_files import BrokerFiles
from edgechoir.fleet.enrolment import MemberPaths
from edgechoir.types import Address, MemberId


def _address(text: str) -> Address:
    tier, _, member = text.partition("/")
    return Address(tier, MemberId(member))


_MEMBERS: Final = (
    "device/dev-1 device/dev-2 node/node-1 edge-cloud/edge-1 cloud/cloud-1 monitor/eye-1"
)
BRIDGE: Final = Bridge(
    MemberId("site-a"),
    {_address("node/node-1"): (_address("device/dev-1"), _address("device/dev-2"))},
)
FEDERATION: Final = Federation(
    "alps",
    frozenset(_address(text) for text in (*_MEMBERS.split(), "bridge/site-a")),
    {BRIDGE.member: BRIDGE},
)
SETTINGS: Final = BrokerSettings(
    files=BrokerFiles(Path("/etc/edgechoir/broker")),
    state=Path("/var/lib/edgechoir/broker"),
    websockets_port=8884,
    persistent=True,
)
UPPER: Final = Upper(
    BRIDGE.member, "hub.plant.lan", 8883, MemberPaths(Path("/etc/edgechoir/site-a"))
)


def reference_files() -> dict[str, str]:
    """File name -> content: the configuration of a small sample federation."""
    place = str(SETTINGS.state)
    site = replace(SETTINGS, websockets_port=None)
    bridged = render_conf(site, place=place, user=None)
    bridged += render_bridge(BRIDGE, FEDERATION.name, UPPER, SETTINGS.max_packet, "0" * 32)
    return {
        **mosquitto_files(SETTINGS, FEDERATION, place=place, user=None),
        f"bridge/{CONF}": bridged,
        **{
            f"{make}/{name}": text
            for make in ("rabbitmq", "emqx", "hivemq", "nats", "aws-iot")
            for name, text in generate(make, SETTINGS, FEDERATION, SETTINGS.state).items()
        },
    }


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "broker_config")
    for name, content in reference_files().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
