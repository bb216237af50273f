"""`edgechoir tune`: which rule and step sizes do best here, tried on the live federation."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "tune",
        help="try rules and step sizes on the live federation, and write the best",
        description=(
            "Let the running cloud try settings one after the other, from the state that it has, "
            "and judge each by the rows that devices hold out. A third of the rounds for all, all "
            "rounds for the better third. Training pauses meanwhile; at the end, and on Ctrl-C, "
            "the run goes back to where it was. A private run spends epsilon on every trial. Run "
            "it on the cloud's machine."
        ),
    )
    command.add_argument("config", type=Path, metavar="CONFIG", help="the cloud's configuration")
    command.add_argument("--rounds", type=int, default=9, metavar="R", help="of a trial (9)")
    command.add_argument(
        "--grid",
        type=Path,
        metavar="FILE",
        help="TOML with [[trial]] tables: rule = {...}, training = {...} (fedavg, fedavgm and "
        "fedadam, each with 0.3, 1 and 3 times the configured step size)",
    )
    command.add_argument(
        "--write", type=Path, metavar="FILE", help="write the best [rule] and [training] there"
    )
    command.add_argument("--json", action="store_true", help="print the outcome as JSON")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, wait, print and write."""
    from edgechoir.config.reading import load_for
    from edgechoir.config.tiers import CloudConfig
    from edgechoir.errors import OperatorError
    from edgechoir.tiers.local_calls import request
    from edgechoir.tiers.tuning import TRIES

    config = load_for(args.config, CloudConfig)
    trials = [] if args.grid is None else _grid(args.grid)
    # Silence lasts no longer than one round does, with its tries.
    patience = 2.0 * TRIES * config.rounds.deadline_s + 60.0
    found = request(
        config.state,
        {"do": "tune", "rounds": args.rounds, "trials": trials},
        patience,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(json.dumps(found, indent=2) if args.json else table(found))
    if found["rule"] is None:
        raise OperatorError("no trial gave a model that can be judged; nothing is written")
    text = sections(found)
    if args.write is None:
        print("" if args.json else f"\n{text}", end="")
        return 0
    try:
        args.write.write_text(text)
    except OSError as error:
        raise OperatorError(f"cannot write {args.write}: {error.strerror}") from None
    print(f"{args.write}: put these sections into {args.config}", file=sys.stderr)
    return 0


def _grid(path: Path) -> list[dict[str, Any]]:
    import tomllib

    from edgechoir.errors import OperatorError

    try:
        trials = tomllib.loads(path.read_text()).get("trial")
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise OperatorError(f"{path} cannot be read: {error}") from None
    if not isinstance(trials, list) or not trials:
        raise OperatorError(
            f"{path}: no [[trial]] there; a table for each setting to try has "
            'rule = {name = "fedadam", rate = 0.01} or training = {learning_rate = 0.1}, or both'
        )
    return trials


def table(found: dict[str, Any]) -> str:
    """One line a setting, the best first."""
    width = max(len(row["name"]) for row in found["trials"])
    lines = [f"{'setting':<{width}}  rounds  accuracy  loss"]
    for row in found["trials"]:
        accuracy = "-" if row["accuracy"] is None else f"{row['accuracy']:.4f}"
        loss = "-" if row["loss"] is None else f"{row['loss']:.4g}"
        why = f"  {row['reason']}" if row["reason"] else ""
        lines.append(f"{row['name']:<{width}}  {row['rounds']:>6}  {accuracy:>8}  {loss}{why}")
    return "\n".join(lines)


def sections(found: dict[str, Any]) -> str:
    """The chosen settings as a configuration has them."""
    from edgechoir.config.template import toml

    parts = []
    for name in ("rule", "training"):
        keys = [f"{key} = {toml(value)}" for key, value in found[name].items()]
        parts.append("\n".join([f"[{name}]", *keys]))
    return "\n\n".join(parts) + "\n"
