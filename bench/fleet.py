"""A small federation of real processes: broker with TLS, and members as they are configured."""

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edgechoir.config.reading import load_for
from edgechoir.config.template import template
from edgechoir.config.tiers import MonitorConfig
from edgechoir.demo.layout import Seat
from edgechoir.demo.processes import Processes, processes
from edgechoir.demo.show import bundle_path
from edgechoir.demo.split import digits, shared_out
from edgechoir.demo.watch import Seen, follow
from edgechoir.fleet.authority_dir import init_authority, issue_broker_files, sign_request
from edgechoir.fleet.enrolment import install_certificate, load_member, make_request
from edgechoir.tiers.process import link_of
from edgechoir.transport.mqtt import MqttLink

FEDERATION: Final = "bench"
HOST: Final = "127.0.0.1"
WAIT_S: Final = 120.0
DAYS: Final = 1


@dataclass(frozen=True, slots=True)
class Part:
    """One member, and what its configuration says beside what follows from its place."""

    tier: str
    member: str
    parent: str | None
    values: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Fleet:
    """A federation whose broker runs: its processes, and what its monitor sees."""

    seats: Sequence[Seat]
    monitor: Path
    processes: Processes
    seen: Seen

    async def start(self) -> None:
        """Start every member."""
        for seat in self.seats:
            await self.processes.start_seat(seat)


@asynccontextmanager
async def fleet(directory: Path, parts: Sequence[Part]) -> AsyncIterator[Fleet]:
    """Lay everything out and start the broker; nothing is left running after the block."""
    port = free_port()
    monitor = Part("monitor", "monitor", None, {})
    seats = [_seat(directory, part) for part in (*parts, monitor)]
    folder = lay_out(directory, (*parts, monitor), port)
    seen = Seen(FEDERATION)
    async with processes() as running, asyncio.TaskGroup() as group:
        where = ("--address", HOST, "--port", str(port))
        await running.start("broker", directory / "broker.log", "broker", str(folder), *where)
        async with monitor_link(seats[-1].config) as link:
            await link.connected(WAIT_S)
            following = group.create_task(follow(link, seen, lambda _: None))
            yield Fleet(seats[:-1], seats[-1].config, running, seen)
            await running.stop()
            following.cancel()


def monitor_link(config: Path) -> MqttLink:
    """A link for the monitor whose configuration this is."""
    monitor = load_for(config, MonitorConfig)
    return link_of(monitor, load_member(monitor.identity, time.time()), None)


def lay_out(directory: Path, parts: Sequence[Part], port: int) -> Path:
    """Write CA, broker's folder, identities and configurations; returns the broker's folder."""
    now, authority = time.time(), directory / "ca"
    init_authority(authority, FEDERATION, now, DAYS, os.urandom, None)
    names = ["localhost", HOST]
    broker = issue_broker_files(authority, names, now, DAYS, os.urandom, None)
    ca = (authority / "ca.crt").read_bytes()
    for part in parts:
        seat = _seat(directory, part)
        identity = seat.directory / "identity"
        request = make_request(identity, FEDERATION, part.member, part.tier, os.urandom)
        pem = request.read_bytes()
        issued = sign_request(authority, pem, part.tier, now, DAYS, os.urandom, None)
        install_certificate(identity, issued.pem, ca, now)
        values: dict[str, object] = {
            "federation": FEDERATION,
            "member": part.member,
            "broker": {"host": HOST, "port": port},
            **({} if part.parent is None else {"parent": part.parent}),
            **part.values,
        }
        seat.config.write_text(template(part.tier, **values))
    return Path(str(broker))


def device(member: str, parent: str, samples: Path, rate_hz: float, **values: object) -> Part:
    """A device on the digits bundle, replaying `samples`."""
    sensor = {"source": "replay", "path": str(samples), "rate_hz": rate_hz}
    given = {"model": {"bundle": str(bundle_path())}, "sensor": sensor, **values}
    return Part("device", member, parent, given)


def write_samples(path: Path, rows: int = 200) -> Path:
    """Some digits as a recording."""
    (part,), _ = shared_out(digits(), 1, 0)
    np.savez(path, x=part.x[:rows], y=part.y[:rows])
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _seat(directory: Path, part: Part) -> Seat:
    return Seat(part.tier, part.member, part.parent, directory / "members" / part.member)
