"""Starting, following changes, failing with a clear word, and leaving nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgechoir.broker.mosquitto_process import find_mosquitto
from edgechoir.broker.run import RunningBroker, run_broker, running_broker
from edgechoir.errors import OperatorError
from edgechoir.fleet.authority_dir import init_authority

if TYPE_CHECKING:
    from tests.broker.conftest import Fleet

    from edgechoir.broker.settings import BrokerSettings, Kind

pytestmark = pytest.mark.e2e
DEADLINE_S = 20.0


def start_and_stop(settings: BrokerSettings) -> None:
    async def main() -> None:
        async with running_broker(settings):
            pass

    asyncio.run(main())


def children() -> set[int]:
    """Process ids of our children."""
    tasks = Path("/proc/self/task")
    return {int(pid) for task in tasks.iterdir() for pid in (task / "children").read_text().split()}


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_mosquitto_is_taken_where_it_is_installed_and_stops_when_cancelled(fleet: Fleet) -> None:
    async def main() -> RunningBroker:
        ready: asyncio.Future[RunningBroker] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(run_broker(fleet.settings, ready.set_result))
        async with asyncio.timeout(DEADLINE_S):
            broker = await ready
        assert not refuses(fleet.settings.port)
        assert children() - before
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return broker

    before = children()
    broker = asyncio.run(main())
    expected = f"mosquitto broker of alps on 127.0.0.1:{fleet.settings.port} (TLS), 5 members"
    assert str(broker) == expected
    assert children() == before
    assert refuses(fleet.settings.port)


def test_the_python_broker_frees_its_port(fleet: Fleet) -> None:
    pytest.importorskip("amqtt")
    settings = replace(fleet.settings, kind="python")
    start_and_stop(settings)
    start_and_stop(settings)
    assert refuses(settings.port)


@pytest.mark.parametrize("kind", ["mosquitto", "python"])
def test_a_taken_port_is_named(fleet: Fleet, kind: Kind) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        settings = replace(fleet.settings, port=port, kind=kind)
        with pytest.raises(OperatorError, match=f"127.0.0.1:{port} is taken"):
            start_and_stop(settings)


def test_an_address_of_another_machine_is_named(fleet: Fleet) -> None:
    with pytest.raises(OperatorError, match=r"cannot listen on 192\.0\.2\.1"):
        start_and_stop(replace(fleet.settings, address="192.0.2.1"))


@pytest.mark.parametrize("name", ["server.key", "server.crt", "ca.crt", "ca.crl", "registry.json"])
def test_a_missing_file_is_named(fleet: Fleet, name: str) -> None:
    (fleet.settings.files.directory / name).unlink()
    with pytest.raises(OperatorError, match=f"{name} is missing"):
        start_and_stop(fleet.settings)


def test_files_of_two_fleets_are_refused(fleet: Fleet) -> None:
    other = fleet.root / "other"
    init_authority(other, "jura", time.time(), 30, os.urandom, None)
    files = fleet.settings.files
    crl = files.crl.read_bytes()
    files.crl.write_bytes((other / "ca.crl").read_bytes())
    with pytest.raises(OperatorError, match="not signed by the CA"):
        start_and_stop(fleet.settings)
    files.crl.write_bytes(crl)
    files.registry.write_bytes((other / "registry.json").read_bytes())
    with pytest.raises(OperatorError, match="registry is of 'jura'"):
        start_and_stop(fleet.settings)


@pytest.mark.parametrize("kind", ["mosquitto", "python"])
def test_a_server_key_that_does_not_fit_is_reported(fleet: Fleet, kind: Kind) -> None:
    files = fleet.settings.files
    files.key.write_bytes((fleet.root / "dev-1" / "member.key").read_bytes())
    message = "its last lines:\n" if kind == "mosquitto" else "cannot be used"
    with pytest.raises(OperatorError, match=message):
        start_and_stop(replace(fleet.settings, kind=kind))


def test_a_mosquitto_that_ends_by_itself_ends_the_block(fleet: Fleet) -> None:
    async def main() -> None:
        before = children()
        async with running_broker(fleet.settings):
            (pid,) = children() - before
            os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.Event().wait()

    with pytest.raises(OperatorError, match="mosquitto ended with status -9"):
        asyncio.run(main())


def test_an_error_within_the_block_comes_out_as_it_is(fleet: Fleet) -> None:
    async def main() -> None:
        async with running_broker(fleet.settings):
            raise ZeroDivisionError

    before = children()
    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    assert children() == before


def test_mosquitto_dies_with_a_parent_that_is_killed(fleet: Fleet) -> None:
    settings = fleet.settings
    program = textwrap.dedent(
        f"""
        import asyncio, pathlib
        from edgechoir.broker.run import run_broker
        from edgechoir.broker.settings import BrokerSettings, Kind
        from edgechoir.fleet.broker_files import BrokerFiles
        asyncio.run(run_broker(
            BrokerSettings(
                files=BrokerFiles(pathlib.Path({str(settings.files)!r})),
                state=pathlib.Path({str(settings.state)!r}),
                address="127.0.0.1", port={settings.port},
            ),
            lambda broker: print(broker, flush=True),
        ))
        """
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline().startswith("mosquitto broker of alps")
        assert not refuses(settings.port)
        parent.kill()
    deadline = time.monotonic() + DEADLINE_S
    while not refuses(settings.port):
        assert time.monotonic() < deadline, "mosquitto outlived its parent"


def test_without_mosquitto_its_choice_is_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgechoir.broker.run.find_mosquitto", lambda: None)
    with pytest.raises(OperatorError, match="mosquitto is not installed"):
        start_and_stop(replace(fleet.settings, kind="mosquitto"))


class Listener(logging.Handler):
    """Sets an event of the running loop at the first record that holds a phrase."""

    def __init__(self, phrase: str) -> None:
        super().__init__()
        self.phrase = phrase
        self.heard = asyncio.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if self.phrase in record.getMessage():
            self.heard.set()


def test_a_broken_registry_leaves_the_rules_in_force(fleet: Fleet) -> None:
    async def main() -> None:
        listener = Listener("goes on with the rules it has")
        logging.getLogger("edgechoir.broker.run").addHandler(listener)
        try:
            async with running_broker(fleet.settings), asyncio.timeout(DEADLINE_S):
                fleet.settings.files.registry.write_text("{")
                await listener.heard.wait()
                assert not refuses(fleet.settings.port)
        finally:
            logging.getLogger("edgechoir.broker.run").removeHandler(listener)

    asyncio.run(main())


def test_mosquitto_is_found_outside_of_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_mosquitto()
    monkeypatch.setenv("PATH", "/nowhere")
    assert find_mosquitto() == found
