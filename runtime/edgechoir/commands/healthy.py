"""`edgechoir healthy`: ask the process of a state directory whether it is well.

Meant for health checks that run every few seconds on a small machine: it loads nothing but the
standard library, and reads no configuration.
"""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "healthy",
        help="ask a running tier or broker whether it is well; for health checks",
        description=(
            "Ask the process that uses a state directory, a tier or a broker, whether it is well, "
            "by letting it answer. Exit status 0 if it does in time. A tier that has lost its "
            "broker or its parent is well: its status topic says how it fares."
        ),
    )
    command.add_argument("state", type=Path, metavar="STATE", help="the state directory")
    command.add_argument(
        "--timeout", type=float, default=2.0, metavar="S", help="seconds to wait (2)"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print its answer."""
    from edgechoir.commands.pulse import ask

    print(ask(args.state, args.timeout))
    return 0
