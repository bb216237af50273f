"""`edgechoir consent`: what the owner of a device agrees to, while it runs."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser and those of its actions."""
    command = commands.add_parser(
        "consent",
        help="see what was asked of this device, approve tasks, or withdraw",
        description=(
            "The word of a device's owner, kept in its state directory. It holds from the next "
            "plan on, without a restart; what is not agreed to is declined with the reason."
        ),
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    for name, what, run in (
        ("list", "what was asked, and what became of it", run_list),
        ("approve", "agree to a task", run_approve),
        ("revoke", "take an approval back", run_revoke),
        ("withdraw", "decline everything from now on, training too", run_withdraw),
        ("resume", "take part again", run_resume),
    ):
        action = actions.add_parser(name, help=what, description=f"{what.capitalize()}.")
        if name in ("approve", "revoke"):
            action.add_argument(
                "hash", metavar="HASH", help="the task's hash, or how it begins (6 characters)"
            )
        if name == "list":
            action.add_argument("--json", action="store_true", help="print it as JSON")
        where = action.add_mutually_exclusive_group(required=True)
        where.add_argument("--state", type=Path, metavar="DIR", help="the device's state directory")
        where.add_argument("--config", type=Path, metavar="FILE", help="its configuration")
        action.set_defaults(run=run)


def run_list(args: argparse.Namespace) -> int:
    """Print what was asked."""
    from edgechoir.commands.query_table import table
    from edgechoir.tiers.consent import read_asked, read_word

    state = _state(args)
    word, asked = read_word(state), read_asked(state)
    if args.json:
        document = {**word.model_dump(mode="json"), **asked.model_dump(mode="json")}
        print(json.dumps(document, indent=2))
        return 0
    if word.withdrawn:
        print("withdrawn: everything is declined, training too\n")
    rows = [
        [
            question.hash[:12],
            json.dumps(question.kind)[1:-1],  # a peer chose it
            "approved" if question.hash in word.approved else question.decision,
            str(question.times),
            datetime.fromtimestamp(question.last, UTC).strftime("%Y-%m-%d %H:%M"),
            question.about,
        ]
        for question in asked.questions
    ]
    print("\n".join(table(("task", "kind", "state", "asked", "last (UTC)", "about"), rows)))
    return 0


def run_approve(args: argparse.Namespace) -> int:
    """Agree to a task."""
    from edgechoir.tiers.consent import approve

    print(f"approved {approve(_state(args), args.hash)}")
    return 0


def run_revoke(args: argparse.Namespace) -> int:
    """Take an approval back."""
    from edgechoir.tiers.consent import revoke

    print(f"{revoke(_state(args), args.hash)} approvals taken back")
    return 0


def run_withdraw(args: argparse.Namespace) -> int:
    """Decline everything."""
    from edgechoir.tiers.consent import withdraw

    withdraw(_state(args), True)
    print("withdrawn: this device answers its sensor and nobody else, until `consent resume`")
    return 0


def run_resume(args: argparse.Namespace) -> int:
    """Take part again."""
    from edgechoir.tiers.consent import withdraw

    withdraw(_state(args), False)
    print("this device takes part again")
    return 0


def _state(args: argparse.Namespace) -> Path:
    from edgechoir.config.reading import load_for
    from edgechoir.config.tiers import DeviceConfig
    from edgechoir.errors import OperatorError

    state: Path = load_for(args.config, DeviceConfig).state if args.config else args.state
    if not state.is_dir():
        raise OperatorError(f"{state} is no state directory: has the device run yet?")
    return state
