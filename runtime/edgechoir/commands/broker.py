"""`edgechoir broker`: run the fleet's broker, write a configuration for another, check one.

`edgechoir broker FOLDER` is short for `edgechoir broker run FOLDER`.
"""

import argparse
import asyncio
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from edgechoir.broker.bridges import Upper
    from edgechoir.broker.settings import BrokerSettings

ACTIONS: Final = ("run", "generate", "check")
MAKES: Final = ("mosquitto", "bridge", "rabbitmq", "emqx", "hivemq", "nats", "aws-iot")
"""A copy of `edgechoir.broker.generate.MAKES`, which is too heavy for every command's start."""


def with_action(arguments: Sequence[str]) -> list[str]:
    """The command line with `run` put in where `broker` is followed by no action.

    >>> with_action(["broker", "ca/broker", "--port", "1883"])
    ['broker', 'run', 'ca/broker', '--port', '1883']
    """
    given = list(arguments)
    if given[:1] == ["broker"] and given[1:] and given[1] not in (*ACTIONS, "-h", "--help"):
        given.insert(1, "run")
    return given


def add(commands: Any) -> None:
    """Add the parser and those of its actions."""
    command = commands.add_parser(
        "broker",
        help="the fleet's broker: run, generate, check",
        description=(
            "Run the fleet's broker, write the configuration of one that is run by other means, or "
            "check one. `edgechoir broker FOLDER` is short for `edgechoir broker run FOLDER`."
        ),
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)

    serve = actions.add_parser(
        "run",
        help="run it: mosquitto, or the Python one",
        description=(
            "Run a broker with TLS, client certificates and the fleet's access rules. It takes "
            "mosquitto where that is installed. New and revoked members are taken up while it runs."
        ),
    )
    _shared(serve)
    serve.add_argument("--state", type=Path, help="the broker's own directory (FOLDER/state)")
    serve.add_argument(
        "--kind", choices=["auto", "mosquitto", "python"], default="auto", help="which broker"
    )
    serve.add_argument(
        "--persistent", action="store_true", help="keep retained messages over a restart"
    )
    serve.set_defaults(run=run)

    write = actions.add_parser(
        "generate",
        help="write a configuration for a broker",
        description=(
            "Write the configuration of a broker with the fleet's access rules. Each file says in "
            "its head with what it was tested. Write it again after each enrolment or revocation."
        ),
    )
    _shared(write)
    write.add_argument(
        "--for", dest="make", required=True, choices=MAKES, help="the broker's make, or a bridge"
    )
    write.add_argument("--out", type=Path, required=True, metavar="DIR", help="where to write")
    write.add_argument(
        "--place", type=Path, metavar="DIR", help="where the files will lie in the end (--out)"
    )
    write.add_argument(
        "--state", type=Path, help="where that broker keeps its state (/var/lib/edgechoir/broker)"
    )
    write.set_defaults(run=run_generate)

    look = actions.add_parser(
        "check",
        help="look for what is unsafe or wrong in a mosquitto.conf or ACL",
        description=(
            "Look at a mosquitto.conf and its access rules, and the files that they name. One line "
            "for each finding: what was seen, what was expected, what to do. Exit status 0 when "
            "nothing is wrong."
        ),
    )
    look.add_argument(
        "path", type=Path, metavar="PATH", help="a mosquitto.conf, an ACL file, or their directory"
    )
    look.add_argument("--json", action="store_true", help="print the findings as JSON")
    look.set_defaults(run=run_check)


def _shared(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "folder", type=Path, metavar="FOLDER", help="the folder that `edgechoir ca broker` made"
    )
    command.add_argument("--address", default="0.0.0.0", help="where to listen (all addresses)")  # noqa: S104
    command.add_argument("--port", type=int, default=8883, help="the TLS port (8883)")
    command.add_argument(
        "--websockets", type=int, metavar="PORT", help="a second port, for monitors by websockets"
    )
    command.add_argument(
        "--max-connections", type=int, default=1024, metavar="N", help="clients at once (1024)"
    )
    command.add_argument(
        "--bridge", metavar="ID", help="connect to a broker above as this member (tier bridge)"
    )
    command.add_argument("--upper", metavar="HOST:PORT", help="with --bridge: the broker above")
    command.add_argument(
        "--identity", type=Path, metavar="DIR", help="with --bridge: its identity directory"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from edgechoir.broker.run import running_broker
    from edgechoir.commands.pulse import answering
    from edgechoir.commands.serving import serve, set_up_logging
    from edgechoir.config.sections import Log

    set_up_logging(Log())
    settings = _settings(args, args.state or args.folder / "state", args.kind, args.persistent)

    async def run_until_told() -> None:
        async with running_broker(settings) as broker, answering(settings.state, "broker"):
            print(broker, flush=True)
            await asyncio.Event().wait()

    return serve(run_until_told())


def run_generate(args: argparse.Namespace) -> int:
    """Write the files and name them."""
    from edgechoir.broker.generate import generate, write_files
    from edgechoir.broker.roster import read_roster
    from edgechoir.fleet.broker_files import BrokerFiles

    state = args.state or Path("/var/lib/edgechoir/broker")
    settings = _settings(args, state, "auto", True)
    federation = read_roster(BrokerFiles(args.folder)).federation
    place = (args.place or args.out).absolute()
    for path in write_files(generate(args.make, settings, federation, place), args.out):
        print(path)
    return 0


def run_check(args: argparse.Namespace) -> int:
    """Print the findings."""
    from edgechoir.broker.check import check

    found = check(args.path, time.time())
    if args.json:
        print(json.dumps([complaint.as_dict() for complaint in found], indent=2))
    else:
        for complaint in found:
            print(complaint)
        wrong = sum(complaint.weight == "wrong" for complaint in found)
        print(f"{args.path}: {wrong} wrong, {len(found) - wrong} to note")
    return 1 if any(complaint.weight == "wrong" for complaint in found) else 0


def _settings(
    args: argparse.Namespace, state: Path, kind: Any, persistent: bool
) -> "BrokerSettings":
    from edgechoir.broker.settings import BrokerSettings
    from edgechoir.fleet.broker_files import BrokerFiles

    return BrokerSettings(
        files=BrokerFiles(args.folder.absolute()),
        state=state.absolute(),
        address=args.address,
        port=args.port,
        kind=kind,
        persistent=persistent,
        websockets_port=args.websockets,
        max_connections=args.max_connections,
        upper=_upper(args),
    )


def _upper(args: argparse.Namespace) -> "Upper | None":
    from edgechoir.broker.bridges import Upper
    from edgechoir.errors import OperatorError
    from edgechoir.fleet.enrolment import MemberPaths
    from edgechoir.types import member_id

    given = (args.bridge, args.upper, args.identity)
    if not any(given):
        return None
    if not all(given):
        raise OperatorError("a bridge takes all three: --bridge, --upper and --identity")
    host, _, port = args.upper.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise OperatorError(f"--upper {args.upper!r}, expected HOST:PORT")
    return Upper(member_id(args.bridge), host, int(port), MemberPaths(args.identity.absolute()))
