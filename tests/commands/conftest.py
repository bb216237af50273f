"""The command line as a person uses it: run in this process, or as a process of its own."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edgechoir.broker.mosquitto_process import find_mosquitto
from edgechoir.cli import main
from edgechoir.config import load
from edgechoir.fleet.enrolment import load_member
from edgechoir.monitor.status import MemberState, Status
from edgechoir.tiers.process import link_of
from edgechoir.transport.topics import topic

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / "models" / "digits" / "bundle"


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it said."""

    status: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one line of an error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert self.out == ""
        return lines[0]


class Commands:
    """`run("ca", "list", directory)` is `edgechoir ca list directory`."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str | Path) -> Ended:
        self._capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as end:  # argparse ends that way, with --help and on a wrong command line
            status = int(end.code or 0)
        said = self._capsys.readouterr()
        return Ended(status, said.out, said.err)

    def good(self, *words: str | Path) -> str:
        """What a command that must succeed prints."""
        ended = self(*words)
        assert (ended.status, ended.err) == (0, "")
        return ended.out

    def findings(self, *words: str | Path) -> dict[str, dict[str, str]]:
        """What `edgechoir doctor` finds, by name; a later finding of a name replaces the first."""
        ended = self("doctor", *words, "--json")
        assert ended.err == ""
        found = {finding["what"]: finding for finding in json.loads(ended.out)}
        assert ended.status == int(any(f["level"] == "wrong" for f in found.values()))
        return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(capsys)


@dataclass(frozen=True)
class Site:
    """A CA `alps`, a broker's folder, and members with configurations that fit it."""

    root: Path
    port: int
    run: Commands

    @property
    def ca(self) -> Path:
        return self.root / "ca"

    def member(self, tier: str, member: str, parent: str | None = None, **replaced: str) -> Path:
        """Enrol a member and write its configuration, some lines of it in other words."""
        home = self.root / member
        who = ("--federation", "alps", "--tier", tier, "--member", member)
        self.run.good("enrol", home / "identity", *who, "--ca", self.ca, "--no-passphrase")
        above = () if parent is None else ("--parent", parent)
        config = home / "config.toml"
        given = ("--federation", "alps", "--broker", "127.0.0.1", "--bundle", str(BUNDLE))
        self.run.good("init", tier, member, *above, *given, "--output", config)
        text = config.read_text().replace("port = 8883", f"port = {self.port}")
        for line, other in replaced.items():
            assert f"\n{line} = " in text
            before, _, after = text.partition(f"\n{line} = ")
            text = f"{before}\n{line} = {other}\n{after.partition(chr(10))[2]}"
        config.write_text(text)
        return config

    def publish(self, config: Path, **parts: Any) -> None:
        """Leave a retained status with the broker, as the member itself would."""
        settings = load(config)
        member = load_member(settings.identity, time.time())
        said = {
            "federation": "alps",
            "tier": settings.tier,
            "member": settings.member,
            "instance": "ab" * 8,
            "state": MemberState.ONLINE,
            "since": time.time(),
            "updated": time.time(),
            **parts,
        }
        status = Status.model_validate(said)

        async def send() -> None:
            async with link_of(settings, member, None) as link:
                await link.connected(20)
                where = str(topic("alps", member.address, "status"))
                await link.publish(where, status.to_json(), retain=True)

        asyncio.run(send())

    @contextmanager
    def broker(self) -> Iterator[None]:
        """`edgechoir broker`, from the line that says it is up until it has ended cleanly."""
        if find_mosquitto() is None:
            pytest.skip("mosquitto is not installed")
        log = self.root / "broker.log"
        words = ("broker", str(self.ca / "broker"), "--address", "127.0.0.1")
        with (
            log.open("wb") as errors,
            subprocess.Popen(
                [sys.executable, "-m", "edgechoir", *words, "--port", str(self.port)],
                stdout=subprocess.PIPE,
                stderr=errors,
            ) as process,
        ):
            assert process.stdout is not None
            try:
                said = process.stdout.readline().decode()
                assert said.startswith("mosquitto broker of alps on 127.0.0.1:"), log.read_text()
                yield
            finally:
                process.terminate()
                status = process.wait(30)
        assert status == 0, log.read_text()


@pytest.fixture
def site(tmp_path: Path, run: Commands) -> Site:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    ca = tmp_path / "ca"
    run.good("ca", "init", ca, "--federation", "alps", "--no-passphrase")
    run.good("ca", "broker", ca, "--host", "127.0.0.1", "--no-passphrase")
    run.good("ca", "policy", ca, "--min-devices", "5", "--no-passphrase")
    return Site(tmp_path, port, run)


@pytest.fixture
def alone() -> dict[str, Any]:
    """An environment for a process of its own, without what this one was started with."""
    return {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "NO_COLOR": "1"}
