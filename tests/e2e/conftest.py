"""A fleet of real processes: mosquitto, TLS, a certificate each; and what a monitor sees of it."""

import asyncio
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from edgechoir.broker.mosquitto_process import find_mosquitto
from edgechoir.config.reading import load_for
from edgechoir.config.tiers import MonitorConfig
from edgechoir.demo.layout import FEDERATION, Seat, lay_out
from edgechoir.demo.processes import tail
from edgechoir.demo.show import bundle_path
from edgechoir.demo.split import digits, shared_out
from edgechoir.demo.watch import Seen, follow
from edgechoir.fleet.authority_dir import sign_request
from edgechoir.fleet.enrolment import MemberPaths, install_certificate, load_member, make_request
from edgechoir.monitor.records import Metrics
from edgechoir.monitor.status import MemberState, Status
from edgechoir.tiers.process import link_of

HOST: Final = "127.0.0.1"
WAIT_S: Final = 60.0
STOP_S: Final = 10.0
Tree = Sequence[tuple[str, str, str | None]]
"""(tier, member, parent), each parent before its children."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def running(words: str) -> dict[int, str]:
    """The processes with these words on their command line: process id -> the whole line."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended meanwhile
        if words in line:
            found[int(process.name)] = line
    return found


def left_running(words: str) -> list[str]:
    """Those that have not ended within STOP_S: a worker sees its parent end a little later."""
    deadline = time.monotonic() + STOP_S
    for pid in running(words):
        try:
            process = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            select.select([process], [], [], max(0.0, deadline - time.monotonic()))
        finally:
            os.close(process)
    return list(running(words).values())


@dataclass(slots=True)
class View:
    """What a monitor sees: the latest status of each member, and the cloud's account of rounds."""

    seen: Seen

    @property
    def done(self) -> list[Metrics]:
        return [metrics for metrics in self.seen.rounds if metrics.outcome == "done"]

    def status(self, member: str) -> Status:
        return self.seen.statuses[member]

    async def until(self, holds: Callable[[], bool], what: str, seconds: float = WAIT_S) -> None:
        await self.seen.until(lambda _: holds(), seconds, what)

    async def rounds(self, more: int, devices: int) -> None:
        """Wait for further rounds that give a sum over so many devices."""
        before = len(self.done)
        await self.until(
            lambda: sum(m.devices == devices for m in self.done[before:]) >= more,
            f"{more} more rounds with {devices} devices",
        )

    async def is_state(self, member: str, state: MemberState) -> None:
        await self.until(
            lambda: (
                (status := self.seen.statuses.get(member)) is not None and status.state is state
            ),
            f"{member} {state.value}",
        )

    async def dropped(self, member: str, reason: str, count: int) -> None:
        await self.until(
            lambda: self.status(member).drops.get(reason, 0) >= count,
            f"{member} counting {count} x {reason}, it has {self.status(member).drops}",
        )


@dataclass(slots=True)
class Fleet:
    """Processes by name, each with its log; `broker` is one of them."""

    folder: Path
    seats: dict[str, Seat]
    port: int
    intruder: MemberPaths
    """A device with a valid certificate that is in nobody's roster."""
    broker: tuple[str, ...] = ()
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, *members: str) -> None:
        for member in members:
            seat = self.seats[member]
            self.run(member, seat.log, seat.tier, str(seat.config))

    def start_broker(self) -> None:
        self.run("broker", self.folder / "broker.log", *self.broker)

    def run(self, name: str, log: Path, *arguments: str) -> None:
        """`edgechoir ARGUMENTS` in the background."""
        with log.open("ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-m", "edgechoir", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )

    def stop(self, *members: str) -> dict[str, int]:
        """SIGTERM, and the exit statuses; fails where one is not gone within STOP_S."""
        chosen = {name: self.running.pop(name) for name in members}
        for process in chosen.values():
            process.terminate()
        try:
            deadline = time.monotonic() + STOP_S
            return {name: p.wait(deadline - time.monotonic()) for name, p in chosen.items()}
        finally:
            for process in chosen.values():
                process.kill()

    def kill(self, member: str) -> None:
        """As when the power goes."""
        process = self.running.pop(member)
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_S)

    def kill_all(self) -> None:
        for name in reversed(tuple(self.running)):  # the broker last
            self.kill(name)

    def identity(self, member: str) -> MemberPaths:
        return MemberPaths(self.seats[member].directory / "identity")

    def edit(self, member: str, old: str, new: str) -> None:
        """Change a line of a configuration."""
        config = self.seats[member].config
        text = config.read_text()
        assert text.count(f"\n{old}\n") == 1, f"{old!r} is not in {config}"
        config.write_text(text.replace(f"\n{old}\n", f"\n{new}\n"))

    def mosquitto_client(self, program: str, identity: MemberPaths, *options: str) -> list[str]:
        """The command line of mosquitto_pub or mosquitto_sub under a member's certificate."""
        path = shutil.which(program)
        if path is None:
            pytest.skip(f"{program} is not installed")
        tls = ("--cafile", identity.ca, "--cert", identity.certificate, "--key", identity.key)
        return [path, "-h", HOST, "-p", str(self.port), *map(str, tls), *options]

    def publish(self, identity: MemberPaths, topic: str, payload: bytes) -> None:
        """As any member could, by mosquitto's own client."""
        topic = f"edgechoir/v1/{FEDERATION}/{topic}"
        command = self.mosquitto_client("mosquitto_pub", identity, "-q", "1", "-t", topic, "-s")
        subprocess.run(command, input=payload, timeout=20, check=True)

    @contextmanager
    def overheard(self, identity: MemberPaths, *options: str) -> Iterator[Path]:
        """A file with what mosquitto_sub prints under a member's certificate."""
        path = self.folder / f"overheard-{len(list(self.folder.glob('overheard-*')))}"
        command = self.mosquitto_client("mosquitto_sub", identity, "-q", "1", *options)
        with path.open("wb") as output, subprocess.Popen(command, stdout=output) as listening:
            try:
                yield path
            finally:
                listening.terminate()

    @asynccontextmanager
    async def view(self) -> AsyncIterator[View]:
        """A monitor's view for the time of the block; a member that ends by itself ends it."""
        config = load_for(self.seats["monitor"].config, MonitorConfig)
        member = load_member(config.identity, time.time())
        seen = Seen(FEDERATION)
        async with link_of(config, member, None) as link:
            await link.connected(WAIT_S)
            following = asyncio.create_task(follow(link, seen, lambda metrics: None))
            try:
                yield View(seen)
            except BaseException:
                for name, process in self.running.items():
                    log = self.folder / "broker.log" if name == "broker" else self.seats[name].log
                    print(f"--- {name} ({process.poll()}):\n{tail(log, 40)}")
                raise
            finally:
                following.cancel()
                await asyncio.wait([following])


def enrol(ca: Path, home: Path, tier: str, member: str) -> MemberPaths:
    """The files of a member without a process."""
    now = time.time()
    request = make_request(home, FEDERATION, member, tier, os.urandom).read_bytes()
    issued = sign_request(ca, request, tier, now, 7, os.urandom, None)
    install_certificate(home, issued.pem, (ca / "ca.crt").read_bytes(), now)
    return MemberPaths(home)


@contextmanager
def fleet_of(folder: Path, tree: Tree, rounds: int) -> Iterator[Fleet]:
    """A laid out fleet with its broker running; nothing of it runs after the block."""
    if find_mosquitto() is None:
        pytest.skip("mosquitto is not installed")
    pytest.importorskip("sklearn", reason="the extra 'demo' is not installed")
    folder = folder.resolve()
    bundle = folder / "bundle"
    shutil.copytree(bundle_path(), bundle)
    seats = [Seat(*place, folder / "members" / place[1]) for place in tree]
    seats.append(Seat("monitor", "monitor", None, folder / "members" / "monitor"))
    parts, _ = shared_out(digits(), sum(seat.tier == "device" for seat in seats), seed=0)
    port = free_port()
    broker = lay_out(folder, seats, bundle, parts, rounds, port, "auto")
    intruder = enrol(folder / "ca", folder / "intruder", "device", "dev-9")
    fleet = Fleet(folder, {seat.member: seat for seat in seats}, port, intruder)
    listen = ("--address", HOST, "--port", str(port), "--kind", "mosquitto")
    fleet.broker = ("broker", str(broker), *listen)
    try:
        fleet.start_broker()
        yield fleet
    finally:
        fleet.kill_all()
        left = left_running(str(folder))
    assert left == []


FleetOf = Callable[[Path, Tree, int], Any]
Running = Callable[[str], dict[int, str]]
LeftRunning = Callable[[str], list[str]]


@pytest.fixture(scope="session")
def make_fleet() -> FleetOf:
    return fleet_of


@pytest.fixture(scope="session", name="running")
def give_running() -> Running:
    return running


@pytest.fixture(scope="session", name="left_running")
def give_left_running() -> LeftRunning:
    return left_running
