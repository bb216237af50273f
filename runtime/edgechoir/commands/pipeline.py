"""`edgechoir pipeline`: look at a running device's pipeline, pause parts of it, or change it."""

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

ANSWER_S: Final = 60.0
"""Seconds to wait for an answer: an update may import the user's modules."""


def add(commands: Any) -> None:
    """Add the parser and those of its actions."""
    command = commands.add_parser(
        "pipeline",
        help="list, pause or update the pipeline of a running device",
        description=(
            "Speak with a running device on this machine, by a socket in its state directory that "
            "only its own user may use."
        ),
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)

    listed = actions.add_parser(
        "list",
        help="every source, step and sink with its counts",
        description=(
            "Every source, step and sink: samples in and out, dead letters, samples dropped by a "
            "full queue, microseconds a sample (mean and worst)."
        ),
    )
    _config(listed)
    listed.add_argument("--json", action="store_true", help="print it as JSON")
    listed.set_defaults(run=run_list)

    letters = actions.add_parser(
        "letters",
        help="the last dead letters of a step",
        description="The last few samples that a source's check or a step could not take, and why.",
    )
    _config(letters)
    _name(letters)
    letters.set_defaults(run=run_letters)

    for do, what in (("pause", "hold back what reaches it"), ("resume", "let it pass again")):
        action = actions.add_parser(
            do,
            help=f"{what}: a source, step or sink",
            description=f"{what[0].upper()}{what[1:]}; what is held back is counted, not kept.",
        )
        _config(action)
        _name(action)
        action.set_defaults(run=run_pause, do=do)

    update = actions.add_parser(
        "update",
        help="put the file's operators and sinks in place of those that run",
        description=(
            "Read [[pipeline]] and [[sinks]] of the configuration again and put them in place "
            "while the device runs. A step that is declared as before keeps its state and counts. "
            "Where the file cannot work nothing changes. Sources, and the code of your own "
            "modules, change at a restart."
        ),
    )
    _config(update)
    update.set_defaults(run=run_update)


def _config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, metavar="CONFIG", help="the device's configuration")


def _name(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="as `list` shows it")


def run_list(args: argparse.Namespace) -> int:
    """Print the table."""
    rows = _ask(args.config, {"do": "list"})["rows"]
    if args.json:
        print(json.dumps(rows, indent=2))
        return 0
    head = ("name", "kind", "from", "in", "out", "dead", "dropped", "waiting", "us", "worst", "")
    table = [head, *map(_cells, rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    for row in table:
        cells = (
            cell.ljust(width) if i < 3 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join(cells).rstrip())
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    counts = (row["taken"], row["given"], sum(row["dead"].values()), row["dropped"], row["waiting"])
    times = (f"{row['mean_us']:.1f}", f"{row['worst_us']:.0f}")
    state = "paused" if row["paused"] else ""
    return (row["name"], row["kind"], " ".join(row["inputs"]), *map(str, counts), *times, state)


def run_letters(args: argparse.Namespace) -> int:
    """Print them, oldest first."""
    for letter in _ask(args.config, {"do": "letters", "name": args.name})["letters"]:
        print(f"{_when(letter['time'])} {letter['key']} {letter['values']}: {letter['error']}")
    return 0


def _when(time: float) -> str:
    """A sample's time may be anything: that may be what is wrong with it."""
    try:
        return datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(time)


def run_pause(args: argparse.Namespace) -> int:
    """Pause or resume."""
    _ask(args.config, {"do": args.do, "name": args.name})
    return 0


def run_update(args: argparse.Namespace) -> int:
    """Print the steps that run now."""
    answer = _ask(args.config, {"do": "update", "config": str(args.config.resolve())})
    print("now running:", ", ".join(answer["steps"]))
    return 0


def _ask(path: Path, document: dict[str, object]) -> dict[str, Any]:
    from edgechoir.config.reading import load_for
    from edgechoir.config.tiers import DeviceConfig
    from edgechoir.tiers.local_calls import request

    return request(load_for(path, DeviceConfig).state, document, ANSWER_S, print)
