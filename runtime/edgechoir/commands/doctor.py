"""`edgechoir doctor`: look at everything a member needs before it runs, one line each."""

import argparse
import asyncio
import json
import logging
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "doctor",
        help="check this machine, and a member's configuration, identity, model and broker",
        description=(
            "Look at what a member needs and change nothing: this machine, and with CONFIG its "
            "configuration, identity, state, model, sensor and broker. One line each, good, note "
            "or wrong. Exit status 0 when nothing is wrong."
        ),
    )
    command.add_argument(
        "config", type=Path, metavar="CONFIG", nargs="?", help="a member's configuration"
    )
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings as they are made."""
    from edgechoir.commands.checkup import check_up
    from edgechoir.commands.finding import Finding, Level

    # What the parts log on the way is in the findings, in better words.
    logging.getLogger("edgechoir").addHandler(logging.NullHandler())

    async def look() -> list[Finding]:
        findings = []
        async for finding in check_up(args.config):
            findings.append(finding)
            if not args.json:
                print(finding, flush=True)
        return findings

    findings = asyncio.run(look())
    if args.json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    return 1 if any(finding.level is Level.WRONG for finding in findings) else 0
