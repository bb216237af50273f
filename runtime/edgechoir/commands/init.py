"""`edgechoir init`: write a commented configuration file."""

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "init",
        help="write a commented configuration file",
        description="Write a configuration file with every key, its meaning and its default.",
    )
    command.add_argument(
        "tier", choices=["device", "node", "edge-cloud", "cloud", "monitor"], help="what it is for"
    )
    command.add_argument(
        "member", metavar="MEMBER", help="the member's id, unique in the federation"
    )
    command.add_argument(
        "--federation", default="federation", help="the federation's name (federation)"
    )
    command.add_argument("--parent", help="id of the aggregator above; not for the cloud")
    command.add_argument(
        "--parent-tier",
        choices=["node", "edge-cloud", "cloud"],
        help="what that is, where it is not the next tier up",
    )
    command.add_argument("--broker", default="localhost", help="host of the broker (localhost)")
    command.add_argument("--bundle", default="bundle", help="directory of the model bundle")
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="where to write (MEMBER.toml); - is stdout"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Write the file, never over one that is there."""
    from edgechoir.config.template import template
    from edgechoir.errors import OperatorError

    values: dict[str, object] = {
        "federation": args.federation,
        "member": args.member,
        "broker": {"host": args.broker},
    }
    if args.tier in ("device", "cloud"):
        values["model"] = {"bundle": args.bundle}
    if args.tier in ("device", "node", "edge-cloud"):
        if args.parent is None:
            raise OperatorError(f"a {args.tier} has a parent: name it with --parent ID")
        values["parent"] = args.parent
        if args.parent_tier is not None:
            values["parent_tier"] = args.parent_tier
    elif args.parent is not None:
        raise OperatorError(f"a {args.tier} has no parent: leave --parent out")
    text = template(args.tier, **values)
    if args.output is not None and str(args.output) == "-":
        print(text, end="")
        return 0
    path = args.output or Path(f"{args.member}.toml")
    try:
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise OperatorError(f"{path} is there already: move it away, or name another") from None
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror}") from None
    print(f"{path} written; edit it, then run `edgechoir doctor {path}`")
    return 0
