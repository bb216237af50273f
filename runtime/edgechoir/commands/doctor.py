"""`edgechoir doctor`: look at everything a member needs before it runs, one line each."""

import argparse
import json
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "doctor",
        help="check a member's configuration, identity, broker, model and machine",
        description="Check what a member needs. Exit status 0 when nothing is wrong.",
    )
    command.add_argument("config", type=Path, metavar="CONFIG", help="a member's configuration")
    command.add_argument("--json", action="store_true", help="print the findings as JSON")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the findings."""
    import asyncio

    from edgechoir.fleet.checkup import Level, check_up

    findings = asyncio.run(check_up(args.config))
    if args.json:
        print(json.dumps([finding.as_dict() for finding in findings], indent=2))
    else:
        for finding in findings:
            print(f"{finding.level.value:>5}  {finding.what}: {finding.seen}")
    return 1 if any(finding.level is Level.WRONG for finding in findings) else 0
