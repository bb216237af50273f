"""The demo from start to end."""

import asyncio
import json
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgechoir.broker.mosquitto_process import find_mosquitto
from edgechoir.bundle.load import load_bundle
from edgechoir.config.reading import load_for
from edgechoir.config.tiers import MonitorConfig
from edgechoir.demo.layout import DEVICES, EDGE_CLOUDS, FEDERATION, NODES, lay_out, seats
from edgechoir.demo.outcome import accuracies, draw, report, table
from edgechoir.demo.processes import Processes, processes
from edgechoir.demo.split import digits, shared_out
from edgechoir.demo.watch import Seen, follow
from edgechoir.errors import OperatorError
from edgechoir.fleet.enrolment import load_member
from edgechoir.monitor.recording import Recording
from edgechoir.monitor.records import Metrics
from edgechoir.report.reading import write_report
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.host import fatal_is_plain
from edgechoir.tiers.process import link_of
from edgechoir.training.trainer import Trainer, available

MARK: Final = ".edgechoir-demo"
RECORDING: Final = "recording.jsonl"
RECORDING_BYTES: Final = 256_000_000
BROKER_S: Final = 30.0
FIRST_ROUND_S: Final = 120.0
ROUND_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen. `say` prints progress; None for silence."""

    directory: Path
    rounds: int
    broker: str
    port: int
    seed: int
    say: Callable[[str], None] | None

    def tell(self, line: str) -> None:
        if self.say is not None:
            self.say(line)


async def show(options: Options, outcome: dict[str, Any]) -> None:
    """Run the demo and fill `outcome`. Raises EdgechoirError."""
    if options.seed < 0 or not 0 <= options.port <= 65535:
        raise OperatorError(
            f"--seed is {options.seed} and --port {options.port}; allowed: 0 and up, and 0 to 65535"
        )
    if not available():
        raise OperatorError("the demo trains with torch: pip install 'edgechoir[train,demo]'")
    began = time.monotonic()
    directory = fresh(options.directory)
    bundle = bundle_path()
    parts, test = shared_out(digits(), DEVICES, options.seed)
    port = options.port or _free_port()
    mosquitto = find_mosquitto() is not None and options.broker != "python"
    protocol = "auto" if mosquitto else "3.1.1"
    files = lay_out(directory, seats(directory), bundle, parts, options.rounds, port, protocol)
    options.tell(
        f"fleet in {directory}: 1 cloud, {EDGE_CLOUDS} edge clouds, {NODES} nodes, {DEVICES} "
        f"devices with {min(len(p.y) for p in parts)} to {max(len(p.y) for p in parts)} digits each"
    )
    seen = Seen(FEDERATION)
    async with processes() as running:
        await running.start(
            "broker",
            directory / "broker.log",
            *("broker", str(files), "--address", "127.0.0.1", "--port", str(port)),
            *("--kind", options.broker),
        )
        with closing(Recording(directory / RECORDING, RECORDING_BYTES)) as recording:
            await _run_fleet(options, directory, seen, running, began, recording)
        options.tell("the fleet has stopped; training the comparisons")
    first = load_bundle(bundle).params
    versions = ModelVersions(directory / "members" / "cloud" / "state" / "models.db")
    try:
        last = versions.latest()
    finally:
        versions.close()
    if last is None:
        raise OperatorError(f"the cloud has kept no model; see {directory}/members/cloud/log.txt")
    async with Trainer(bundle) as trainer:
        measured = await accuracies(trainer, first, last.params, parts, test, options.rounds)
    picture = draw(directory / "trace", directory / "what-the-node-saw.png")
    told = directory / "report.html"
    write_report([directory / "members" / "cloud" / "state", directory / RECORDING], told)
    outcome.update(report(seen, measured, len(first), picture))
    outcome["report"] = str(told)
    outcome["seconds"] = {
        "to_first_round": None if not seen.rounds else seen.rounds[0].at - _wall(began),
        "in_all": time.monotonic() - began,
    }
    (directory / "outcome.json").write_text(json.dumps(outcome, indent=2) + "\n")
    options.tell("\n" + table(outcome))


async def _run_fleet(
    options: Options,
    directory: Path,
    seen: Seen,
    running: Processes,
    began: float,
    recording: Recording,
) -> None:
    """Start the members, follow them until the last round, and stop them."""
    monitor = load_for(directory / "members" / "monitor" / "config.toml", MonitorConfig)
    member = load_member(monitor.identity, time.time())

    def on_round(metrics: Metrics) -> None:
        options.tell(_line(metrics, len(seen.rounds), options.rounds))

    async with fatal_is_plain(), asyncio.TaskGroup() as group:
        watching = group.create_task(running.ended(), name="broker")
        await _until_listening(monitor.broker.host, monitor.broker.port)
        watching.cancel()
    # The group within the link: who follows must have ended before the link does.
    async with (
        link_of(monitor, member, None) as link,
        fatal_is_plain(),
        asyncio.TaskGroup() as group,
    ):
        for seat in seats(directory):
            if seat.tier != "monitor":
                await running.start_seat(seat)
        watching = group.create_task(running.ended(), name="processes")
        await link.connected(BROKER_S)
        following = group.create_task(follow(link, seen, on_round, recording), name="follow")
        options.tell("broker is up (TLS, client certificates, access rules); starting members")
        await seen.until(
            lambda s: s.online("device") == DEVICES, FIRST_ROUND_S, "every device on line"
        )
        options.tell(f"{DEVICES} devices infer, {time.monotonic() - began:.1f} s after the start")
        await seen.until(lambda s: bool(s.rounds), FIRST_ROUND_S, "a first round")
        while not seen.rounds[-1].final:
            count = len(seen.rounds)
            await seen.until(
                lambda s, n=count: len(s.rounds) > n,  # type: ignore[misc]
                ROUND_S,
                f"a round after {count}",
            )
        version = options.rounds
        await seen.until(
            lambda s: all(
                status.model is not None and status.model.version >= version
                for status in s.statuses.values()
                if status.tier == "device"
            ),
            ROUND_S,
            "the last model on every device",
        )
        watching.cancel()
        # Members first, so that each can say goodbye to the broker.
        await running.stop(*(s.member for s in seats(directory) if s.tier != "monitor"))
        following.cancel()


async def _until_listening(host: str, port: int) -> None:
    """Wait until the broker's port is open. Raises OperatorError at the deadline."""
    try:
        async with asyncio.timeout(BROKER_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(host, port)
                except OSError:
                    await asyncio.sleep(0.05)
                    continue
                writer.close()
                return
    except TimeoutError:
        raise OperatorError(f"the broker did not listen within {BROKER_S:g} s") from None


def bundle_path() -> Path:
    """The digits model's bundle. Raises OperatorError outside of a checkout."""
    bundle = Path(__file__).parents[3] / "models" / "digits" / "bundle"
    if not bundle.is_dir():
        raise OperatorError(f"the demo runs from a checkout: there is no {bundle}")
    return bundle


def _line(metrics: Metrics, count: int, rounds: int) -> str:
    if metrics.outcome != "done":
        return f"round {metrics.round:>3}  failed: {metrics.reason}"
    accuracy = "  -  " if metrics.accuracy is None else f"{metrics.accuracy:.3f}"
    loss = "  -  " if metrics.loss is None else f"{metrics.loss:.3f}"
    moved = (metrics.bytes_up or 0) + (metrics.bytes_down or 0)
    return (
        f"round {metrics.round:>3} of {rounds}  {metrics.devices} devices  accuracy {accuracy}  "
        f"loss {loss}  {metrics.seconds:.2f} s  {moved / 1e3:.0f} kB at the cloud"
    )


def _wall(monotonic: float) -> float:
    """Unix seconds of a monotonic moment."""
    return time.time() - (time.monotonic() - monotonic)


def fresh(directory: Path) -> Path:
    """An empty directory; only what an earlier demo left is ever removed. Raises OperatorError."""
    try:
        if directory.exists():
            if not (directory / MARK).exists() and any(directory.iterdir()):
                raise OperatorError(
                    f"{directory} holds something else than an earlier demo; name another directory"
                )
            shutil.rmtree(directory)
        directory.mkdir(parents=True)
        (directory / MARK).touch()
    except OSError as error:
        raise OperatorError(
            f"{directory} cannot be used: {error.strerror}; name another with --directory"
        ) from None
    return directory.resolve()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
