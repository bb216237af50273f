"""`edgechoir audit`: read and verify the audit log of a member."""

import argparse
import json
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgechoir.fleet.audit_check import Verdict
    from edgechoir.identity.certificate import Root


def add(commands: Any) -> None:
    """Add the parser and those of its actions."""
    command = commands.add_parser(
        "audit",
        help="verify or show a member's audit log",
        description="The hash-chained, signed log that every tier keeps in its state directory.",
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)

    verify = actions.add_parser(
        "verify",
        help="find what was changed, removed or put in another order",
        description=(
            "Go through the log and name every line that does not hold. Exit status 0 when all "
            "of it does. The log may be in use meanwhile."
        ),
    )
    _where(verify)
    verify.add_argument(
        "--head", metavar="HASH", help="a record that must be in it: `audit.head` of a status"
    )
    verify.add_argument("--json", action="store_true", help="print the verdict as JSON")
    verify.set_defaults(run=run_verify)

    show = actions.add_parser(
        "show", help="print records", description="Print the log's records, oldest first."
    )
    _where(show)
    show.add_argument("--kind", action="append", help="only records of this kind; repeat")
    show.add_argument("--last", type=int, metavar="N", help="only the last N")
    show.add_argument("--json", action="store_true", help="one JSON document a line")
    show.set_defaults(run=run_show)


def _where(command: argparse.ArgumentParser) -> None:
    group = command.add_mutually_exclusive_group(required=True)
    group.add_argument("--state", type=Path, metavar="DIR", help="the member's state directory")
    group.add_argument("--config", type=Path, metavar="FILE", help="the member's configuration")
    command.add_argument(
        "--ca", type=Path, metavar="FILE", help="the fleet's ca.crt (from the configuration)"
    )


def run_verify(args: argparse.Namespace) -> int:
    """Verify, and say what was found."""
    from edgechoir.fleet.audit_check import verify_log

    directory, root = _place(args)
    verdict = verify_log(directory, root, args.head)
    if args.json:
        print(json.dumps(_as_dict(verdict, root), indent=2))
    else:
        for note in verdict.notes:
            print(f" note  {note}")
        for wrong in verdict.wrong:
            print(f"wrong  {wrong}")
        print(_summary(verdict, root))
    return 1 if verdict.wrong else 0


def run_show(args: argparse.Namespace) -> int:
    """Print records."""
    from edgechoir.errors import Malformed
    from edgechoir.fleet.audit_check import records
    from edgechoir.identity.chain import Line

    directory, _ = _place(args)
    chosen: deque[tuple[str, int, Line | Malformed]] = deque(maxlen=args.last)
    for name, number, line in records(directory):
        if args.kind and (isinstance(line, Malformed) or line.kind not in args.kind):
            continue
        if args.last is None:
            _print(name, number, line, as_json=args.json)
        else:
            chosen.append((name, number, line))
    for name, number, line in chosen:
        _print(name, number, line, as_json=args.json)
    return 0


def _print(name: str, number: int, line: Any, *, as_json: bool) -> None:
    from edgechoir.errors import Malformed

    where = f"{name}:{number}"
    if isinstance(line, Malformed):
        print(json.dumps({"where": where, "wrong": str(line)}) if as_json else f"{where}: {line}")
        return
    if as_json:
        print(json.dumps({"n": line.number, "at": line.at, "kind": line.kind, **line.fields}))
        return
    # Nothing of a log that somebody may have changed goes to the terminal as it is.
    said = " ".join(f"{json.dumps(key)[1:-1]}={json.dumps(v)}" for key, v in line.fields.items())
    print(f"{line.number:>7}  {_moment(line.at)}  {json.dumps(line.kind)[1:-1]:<10} {said}")


def _moment(at: float) -> str:
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"


def _place(args: argparse.Namespace) -> "tuple[Path, Root | None]":
    """The log's directory, and the fleet's root where it is known."""
    from edgechoir.errors import OperatorError, RemoteError
    from edgechoir.fleet.audit_files import DIRECTORY
    from edgechoir.fleet.files import read_file
    from edgechoir.identity.certificate import from_pem, read_root

    state, ca = args.state, args.ca
    if args.config is not None:
        from edgechoir.config.reading import load
        from edgechoir.config.tiers import MonitorConfig

        config = load(args.config)
        if isinstance(config, MonitorConfig):
            raise OperatorError(f"{args.config} is a monitor's: it keeps no audit log")
        state, ca = config.state, ca or config.identity / "ca.crt"
    try:
        root = None if ca is None else read_root(from_pem(read_file(ca, "name it with --ca")))
    except RemoteError as error:
        raise OperatorError(f"{ca}: {error}") from None
    return state / DIRECTORY, root


def _summary(verdict: "Verdict", root: "Root | None") -> str:
    who = "nobody" if verdict.signer is None else str(verdict.signer.address)
    trust = "" if root is not None else "; its certificate was not checked: give --ca or --config"
    state = f"{len(verdict.wrong)} wrong" if verdict.wrong else "the log holds"
    return (
        f"{state}: {verdict.records} records in {verdict.files} files, number {verdict.first} to "
        f"{verdict.next - 1}, {verdict.seals} seals of {who}{trust}\nhead {verdict.head}"
    )


def _as_dict(verdict: "Verdict", root: "Root | None") -> dict[str, Any]:
    return {
        "holds": not verdict.wrong,
        "files": verdict.files,
        "records": verdict.records,
        "first": verdict.first,
        "next": verdict.next,
        "head": verdict.head,
        "seals": verdict.seals,
        "signer": None if verdict.signer is None else str(verdict.signer.address),
        "signer_checked": root is not None,
        "wrong": verdict.wrong,
        "notes": verdict.notes,
    }
