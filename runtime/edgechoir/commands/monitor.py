"""`edgechoir monitor`: the federation's tree, live, from retained status topics alone."""

import argparse
from pathlib import Path
from typing import Any


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
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Show the tree until told to stop."""
    from edgechoir.commands.serving import serve, set_up_logging
    from edgechoir.config.reading import load_for
    from edgechoir.config.tiers import MonitorConfig

    config = load_for(args.config, MonitorConfig)
    set_up_logging(config.log)
    return serve(_watch(config, as_json=args.json, once=args.once))


async def _watch(config: Any, *, as_json: bool, once: bool) -> None:
    import sys
    import time

    from edgechoir.fleet.enrolment import load_member
    from edgechoir.monitor.terminal import watch
    from edgechoir.monitor.tree import Fleet
    from edgechoir.tiers.process import check_identity, link_of
    from edgechoir.transport.topics import channel_filter

    member = load_member(config.identity, time.time())
    check_identity(config, member)
    async with link_of(config, member, None) as link:
        await link.connected(15)
        await link.subscribe(channel_filter(config.federation, "status"))
        fleet = Fleet(config.federation)
        await watch(link.messages(), fleet, sys.stdout, time.time, as_json=as_json, once=once)
