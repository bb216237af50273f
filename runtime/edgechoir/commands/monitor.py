"""`edgechoir monitor`: the federation's tree, live, from retained status topics alone."""

import argparse
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgechoir.monitor.recording import Recording


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "monitor",
        help="show the federation's tree, live",
        description=(
            "Show who is there and how rounds go, from the retained status topics alone. "
            "Ctrl-C ends it."
        ),
    )
    command.add_argument("config", type=Path, metavar="CONFIG", help="a monitor's configuration")
    command.add_argument("--json", action="store_true", help="one JSON document a line per change")
    command.add_argument("--once", action="store_true", help="print the tree as it is, and end")
    command.add_argument(
        "--record",
        type=Path,
        metavar="FILE",
        help="add every status and metrics document to FILE, for `edgechoir report`",
    )
    command.add_argument(
        "--record-mb",
        type=float,
        default=64.0,
        metavar="MB",
        help="size of the recording; the older half goes to FILE.1, and then away (64)",
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the tree until told to stop."""
    from edgechoir.commands.serving import serve, set_up_logging
    from edgechoir.config.reading import load_for
    from edgechoir.config.tiers import MonitorConfig
    from edgechoir.errors import OperatorError

    config = load_for(args.config, MonitorConfig)
    set_up_logging(config.log)
    if not 0.1 <= args.record_mb <= 100_000:
        raise OperatorError(f"--record-mb is {args.record_mb:g}, expected 0.1 to 100000")
    with _recording(args.record, args.record_mb) as recording:
        return serve(_watch(config, recording, as_json=args.json, once=args.once))


@contextmanager
def _recording(path: Path | None, megabytes: float) -> "Iterator[Recording | None]":
    from edgechoir.monitor.recording import Recording

    if path is None:
        yield None
        return
    with closing(Recording(path, round(megabytes * 1e6))) as recording:
        yield recording


async def _watch(config: Any, recording: "Recording | None", *, as_json: bool, once: bool) -> None:
    import sys
    import time

    from edgechoir.fleet.enrolment import load_member
    from edgechoir.monitor.recording import recorded
    from edgechoir.monitor.terminal import watch
    from edgechoir.monitor.tree import Fleet
    from edgechoir.tiers.process import check_identity, link_of
    from edgechoir.transport.topics import channel_filter

    member = load_member(config.identity, time.time())
    check_identity(config, member)
    async with link_of(config, member, None) as link:
        await link.connected(15)
        await link.subscribe(channel_filter(config.federation, "status"))
        messages = link.messages()
        if recording is not None:
            await link.subscribe(channel_filter(config.federation, "metrics"))
            messages = recorded(messages, config.federation, recording, time.time)
        fleet = Fleet(config.federation)
        await watch(messages, fleet, sys.stdout, time.time, as_json=as_json, once=once)
