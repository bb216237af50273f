"""`edgechoir demo`: the whole system on this machine, on real data."""

import argparse
import json
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "demo",
        help="run the whole system on this machine, on real data",
        description=(
            "Make a fleet CA and certificates, start a broker with TLS, a cloud, edge clouds, "
            "nodes and devices as processes of their own, stream handwritten digits to the devices "
            "and let them learn together. Needs the extras train and demo."
        ),
    )
    command.add_argument(
        "--directory", type=Path, default=Path("demo-run"), help="where it works (demo-run)"
    )
    command.add_argument("--rounds", type=int, default=60, help="rounds to run (60)")
    command.add_argument(
        "--broker", choices=["auto", "mosquitto", "python"], default="auto", help="which broker"
    )
    command.add_argument("--port", type=int, default=0, help="the broker's port (a free one)")
    command.add_argument("--seed", type=int, default=0, help="of the split of the data (0)")
    command.add_argument("--json", action="store_true", help="print the outcome as JSON")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run it and print what came of it."""
    from edgechoir.commands.serving import serve
    from edgechoir.demo.show import Options, show
    from edgechoir.errors import OperatorError

    if not 2 <= args.rounds <= 1000:
        raise OperatorError(f"--rounds is {args.rounds}, expected 2 to 1000")
    options = Options(
        directory=args.directory,
        rounds=args.rounds,
        broker=args.broker,
        port=args.port,
        seed=args.seed,
        say=None if args.json else print,
    )
    outcome: dict[str, Any] = {}
    status = serve(show(options, outcome))
    if args.json and outcome:
        print(json.dumps(outcome, indent=2))
    return status if outcome else 130
