"""What can be set of a broker; the same surface for mosquitto and for the Python one."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edgechoir.broker.bridges import Upper
from edgechoir.fleet.broker_files import BrokerFiles

PAYLOAD_BYTES: Final = 131_072
"""The largest payload that the runtime publishes, and that AWS IoT Core takes."""

HEADER_SLACK: Final = 1024
"""Room for the fixed header, the topic (144 bytes at most) and MQTT 5 properties."""

Kind = Literal["auto", "mosquitto", "python"]


@dataclass(frozen=True, slots=True)
class BrokerSettings:
    """`files` come from the CA; `state` is a directory of the broker's own.

    `kind` "auto" takes mosquitto where it is installed, else the Python broker. `persistent` keeps
    retained messages over a restart (mosquitto only). `minimum_tls` is for clients of another make:
    every edgechoir client speaks 1.3. Bounds are per client, `max_connections` and
    `memory` over all. `websockets_port`: a second listener of mosquitto's, for monitors alone.
    """

    files: BrokerFiles
    state: Path
    address: str = "0.0.0.0"  # noqa: S104 - a fleet's broker is there to be reached
    port: int = 8883
    kind: Kind = "auto"
    persistent: bool = False
    minimum_tls: Literal["1.2", "1.3"] = "1.3"
    websockets_port: int | None = None
    upper: Upper | None = None
    """The broker above, where this one is bridged to it (mosquitto only)."""
    max_connections: int = 1024
    max_inflight: int = 20
    max_queued: int = 2048
    max_queued_bytes: int = 64 << 20
    max_packet: int = PAYLOAD_BYTES + HEADER_SLACK
    memory: int = 2 << 30
    """Bytes of all that mosquitto holds; beyond it new messages and clients are refused."""
    poll_s: float = 2.0
    """How often the files are looked at for a change."""
    start_s: float = 15.0
    """How long the broker may take to answer."""
