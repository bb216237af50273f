"""Runs the fleet's broker: picks one, starts it, follows changes of its folder, stops it.

    async with running_broker(settings) as broker:   # answers on its TLS port from here on
        ...

Changed files (registry, CRL, certificates) take effect within `settings.poll_s`: rules are made
again, revoked members lose everything. A registry that cannot be read is logged and the rules in
force stay.
"""

import asyncio
import contextlib
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Final, Protocol

from edgechoir.broker.mosquitto_process import MosquittoProcess, find_mosquitto
from edgechoir.broker.roster import Roster, read_roster, stamps
from edgechoir.broker.settings import BrokerSettings
from edgechoir.errors import LinkError, OperatorError

log = logging.getLogger(__name__)

_LOOPBACK: Final = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """What runs, for a message to the operator."""

    kind: str
    address: str
    port: int
    federation: str
    members: int

    def __str__(self) -> str:
        return (
            f"{self.kind} broker of {self.federation} on {self.address}:{self.port} (TLS), "
            f"{self.members} members"
        )


class _Broker(Protocol):
    async def start(self) -> None: ...
    def update(self, roster: Roster) -> None: ...
    async def ended(self) -> None: ...
    async def stop(self) -> None: ...


async def run_broker(
    settings: BrokerSettings, ready: Callable[[RunningBroker], None] | None = None
) -> None:
    """Run until cancelled; `ready` is called once the broker answers.

    Raises OperatorError: a file is missing, the port is taken, no broker is installed, or
    mosquitto has ended by itself.
    """
    async with running_broker(settings) as broker:
        if ready is not None:
            ready(broker)
        await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def running_broker(settings: BrokerSettings) -> AsyncIterator[RunningBroker]:
    """A broker that answers, for the time of the block. Errors as in `run_broker`.

    Where mosquitto ends by itself, the block is cancelled and the error raised in its place.
    """
    before = stamps(settings.files)
    roster = read_roster(settings.files)
    _check_port(settings)
    kind, broker = _choose(settings, roster)
    running = RunningBroker(
        kind, settings.address, settings.port, roster.federation.name, len(roster.members)
    )
    try:
        await broker.start()
        await _until_it_answers(settings, broker, running)
        async with _beside(broker.ended(), _follow(settings, broker, before)):
            yield running
    finally:
        await broker.stop()


def _choose(settings: BrokerSettings, roster: Roster) -> tuple[str, _Broker]:
    program = find_mosquitto() if settings.kind != "python" else None
    if program is not None:
        return "mosquitto", MosquittoProcess(settings, roster, program)
    if settings.upper is not None or settings.websockets_port is not None:
        raise OperatorError(
            "bridges and websockets need mosquitto: install it, and --kind mosquitto"
        )
    if settings.kind == "mosquitto":
        raise OperatorError("mosquitto is not installed: install it, or let the broker be 'python'")
    try:
        from edgechoir.broker.python_broker import PythonBroker
    except ImportError as error:
        raise OperatorError(
            f"no broker to run: mosquitto is not installed, nor the extra 'broker' ({error}); "
            "install one of them"
        ) from None
    return "python", PythonBroker(settings, roster)


def _check_port(settings: BrokerSettings) -> None:
    where = f"{settings.address}:{settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.address, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise OperatorError(
                f"{where} is taken by another program: stop it, or choose another port"
            ) from None
        raise OperatorError(f"cannot listen on {where}: {error.strerror or error}") from None


async def _until_it_answers(
    settings: BrokerSettings, broker: _Broker, running: RunningBroker
) -> None:
    ended = asyncio.create_task(broker.ended())
    answering = asyncio.create_task(_answer(settings))
    try:
        done, _ = await asyncio.wait(
            {ended, answering}, timeout=settings.start_s, return_when=asyncio.FIRST_COMPLETED
        )
        if not done:
            raise LinkError(
                f"{running.kind} did not answer on {settings.address}:{settings.port} "
                f"within {settings.start_s:g} s"
            )
        for task in done:
            task.result()
    finally:
        ended.cancel()
        answering.cancel()
        await asyncio.gather(ended, answering, return_exceptions=True)


async def _answer(settings: BrokerSettings) -> None:
    """Return once a TLS server of the fleet's CA answers on the port.

    The handshake shows no certificate, so mosquitto logs one refused client at its start.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(cafile=settings.files.ca)
    host = _LOOPBACK.get(settings.address, settings.address)
    while True:
        try:
            _, writer = await asyncio.open_connection(host, settings.port, ssl=context)
        except ssl.SSLCertVerificationError as error:
            raise OperatorError(
                f"what answers on {host}:{settings.port} is not a broker of this fleet: "
                f"{error.verify_message}"
            ) from None
        except OSError:
            await asyncio.sleep(0.02)
            continue
        writer.transport.abort()
        return


async def _follow(settings: BrokerSettings, broker: _Broker, before: object) -> None:
    while True:
        await asyncio.sleep(settings.poll_s)
        now = stamps(settings.files)
        if now == before:
            continue
        before = now
        try:
            roster = read_roster(settings.files)
            broker.update(roster)
        except OperatorError as error:
            log.error("the broker goes on with the rules it has: %s", error)
        else:
            log.info("rules made again: %d members", len(roster.members))


@contextlib.asynccontextmanager
async def _beside(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do `work` beside the block; if a part of it fails, cancel the block and raise its error.

    A TaskGroup would wrap the block's own exceptions into a group.
    """
    block = asyncio.current_task()
    failures: list[BaseException] = []

    def watch(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and block is not None:
            failures.append(error)
            block.cancel()

    tasks = [asyncio.create_task(part) for part in work]
    for task in tasks:
        task.add_done_callback(watch)
    try:
        yield
    except asyncio.CancelledError:
        if failures and block is not None and block.uncancel() == 0:
            raise failures[0] from None
        raise
    finally:
        for task in tasks:
            task.remove_done_callback(watch)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
