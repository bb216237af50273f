"""The demo's fleet on disk: a CA, an identity and a configuration for each member."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgechoir.config.template import template
from edgechoir.demo.split import Rows
from edgechoir.fleet.authority_dir import init_authority, issue_broker_files, sign_request
from edgechoir.fleet.broker_files import BrokerFiles
from edgechoir.fleet.enrolment import install_certificate, load_member, make_request
from edgechoir.fleet.policy_file import pin_policy, write_policy
from edgechoir.identity.policy import Policy

FEDERATION: Final = "digits"
EDGE_CLOUDS: Final = 2
NODES: Final = 4
DEVICES: Final = 12
RATE_HZ: Final = 20.0
TRACED_NODE: Final = "node-1"
TRACED: Final = "dev-01"
EPOCHS: Final = 2
BATCH: Final = 16
LEARNING_RATE: Final = 0.1
DAYS: Final = 7
POLICY: Final = Policy(min_members=2, min_devices=2)
"""A node here has three devices; with one of them away, two must do. A real fleet asks for more."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A member of the demo's fleet and where its files are."""

    tier: str
    member: str
    parent: str | None
    directory: Path

    @property
    def config(self) -> Path:
        return self.directory / "config.toml"

    @property
    def log(self) -> Path:
        return self.directory / "log.txt"


def seats(directory: Path) -> list[Seat]:
    """Cloud, edge clouds, nodes and devices, each under the one above; then the monitor."""
    members = directory / "members"

    def seat(tier: str, member: str, parent: str | None) -> Seat:
        return Seat(tier, member, parent, members / member)

    found = [seat("cloud", "cloud", None)]
    found += [seat("edge-cloud", f"edge-{e + 1}", "cloud") for e in range(EDGE_CLOUDS)]
    for n in range(NODES):
        found.append(seat("node", f"node-{n + 1}", f"edge-{n * EDGE_CLOUDS // NODES + 1}"))
    for d in range(DEVICES):
        found.append(seat("device", f"dev-{d + 1:02d}", f"node-{d * NODES // DEVICES + 1}"))
    found.append(seat("monitor", "monitor", None))
    return found


def lay_out(
    directory: Path,
    members: Sequence[Seat],
    bundle: Path,
    parts: Sequence[Rows],
    rounds: int,
    port: int,
    protocol: str,
) -> BrokerFiles:
    """Write what a tree of these members needs, and give each device its part of the data.

    Returns the broker's folder.
    """
    now = time.time()
    authority = directory / "ca"
    init_authority(authority, FEDERATION, now, DAYS, os.urandom, None)
    broker = issue_broker_files(authority, ["localhost", "127.0.0.1"], now, DAYS, os.urandom, None)
    ca = (authority / "ca.crt").read_bytes()
    policy = write_policy(authority, POLICY, None).read_bytes()
    devices = iter(parts)
    for seat in members:
        identity = seat.directory / "identity"
        request = make_request(identity, FEDERATION, seat.member, seat.tier, os.urandom)
        issued = sign_request(
            authority, request.read_bytes(), seat.tier, now, DAYS, os.urandom, None
        )
        install_certificate(identity, issued.pem, ca, now)
        pin_policy(identity, policy, load_member(identity, now).root)
        values = _values(seat, members, directory, bundle, rounds, port, protocol)
        if seat.tier == "device":
            part = next(devices)
            np.savez(seat.directory / "samples.npz", x=part.x, y=part.y)
        seat.config.write_text(template(seat.tier, **values))
    return broker


def _values(
    seat: Seat,
    members: Sequence[Seat],
    directory: Path,
    bundle: Path,
    rounds: int,
    port: int,
    protocol: str,
) -> dict[str, object]:
    """What differs from the defaults in a member's configuration."""
    values: dict[str, object] = {
        "federation": FEDERATION,
        "member": seat.member,
        "broker": {"host": "127.0.0.1", "port": port, "protocol": protocol},
    }
    if seat.parent is not None:
        values["parent"] = seat.parent
        values["parent_tier"] = next(m.tier for m in members if m.member == seat.parent)
    children = sum(other.parent == seat.member for other in members)
    if children:
        values["rounds"] = {"expected_members": children, "join_wait_s": 15.0}
    match seat.tier:
        case "cloud":
            values["model"] = {"bundle": str(bundle)}
            values["rounds"] = {
                "expected_members": children,
                "join_wait_s": 15.0,
                "rounds": rounds,
                "deadline_s": 30.0,
            }
            values["training"] = {
                "epochs": EPOCHS,
                "batch_size": BATCH,
                "learning_rate": LEARNING_RATE,
            }
        case "device":
            values["model"] = {"bundle": str(bundle)}
            values["sensor"] = {
                "source": "replay",
                "path": "samples.npz",
                "rate_hz": RATE_HZ,
                "check": {"min": 0.0, "max": 16.0},
            }
            # The digits are public; a device's own figure is shown only where its owner says so.
            values["training"] = {"min_samples": 20, "publish_accuracy": True}
            values["predictions"] = {"max_rate_hz": 5.0}
    if seat.member in (TRACED, TRACED_NODE):
        values["trace"] = {"directory": str((directory / "trace").resolve())}
    return values
