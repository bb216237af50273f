"""`edgechoir report`: one page of HTML about a run."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "report",
        help="write a page about a run, with plots and the privacy account",
        description=(
            "Write one page of HTML that holds all it shows: accuracy and loss by round, tier and "
            "device, failed rounds, bytes, the privacy account, versions and settings. RUN is a "
            "cloud's state directory or configuration, a recording of `edgechoir monitor "
            "--record`, or both: only a recording knows of single tiers and devices."
        ),
    )
    command.add_argument("run_", type=Path, nargs="+", metavar="RUN", help="what to report on")
    command.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="(report.html)"
    )
    command.add_argument("--json", action="store_true", help="print the figures as JSON instead")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read, and write."""
    import json

    from edgechoir.report.document import document
    from edgechoir.report.reading import read_run, write_page

    found = read_run(args.run_)
    if args.json:
        print(json.dumps(document(found), indent=2))
        return 0
    write_page(found, args.out)
    print(args.out)
    return 0
