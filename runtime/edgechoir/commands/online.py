"""`edgechoir ca token` and `edgechoir ca serve`: enrolment over the network."""

import argparse
import asyncio
import logging
import os
import shlex
import time
from pathlib import Path
from typing import Any, Final

from edgechoir.commands import passphrase

AFTER_S: Final = 60.0
log: Final = logging.getLogger(__name__)


def add(actions: Any, tiers: list[str]) -> None:
    """Add the parsers to those of `edgechoir ca`."""
    token = actions.add_parser(
        "token",
        help="make a one-time token with which a machine enrols itself",
        description=(
            "Make a token for one member. It is good once, for a limited time, and holds all that "
            "`edgechoir enrol --token` needs; only its hash is kept."
        ),
    )
    token.add_argument("directory", type=Path, metavar="DIR", help="the CA's directory")
    token.add_argument("--member", required=True, help="the member's id")
    token.add_argument("--tier", required=True, choices=tiers, help="what it may be")
    token.add_argument("--parent", help="id of its aggregator, for the configuration")
    token.add_argument(
        "--url", required=True, help="where `edgechoir ca serve` answers: https://HOST:8884"
    )
    token.add_argument("--hours", type=float, default=24.0, help="how long it is good (24)")
    token.add_argument(
        "--days", type=int, default=365, help="how long the certificate is valid (365)"
    )
    token.add_argument(
        "--replace", action="store_true", help="the id moves from an enrolled machine to this one"
    )
    token.set_defaults(run=run_token)

    serve = actions.add_parser(
        "serve",
        help="answer machines that enrol with a token, and members that renew",
        description=(
            "Serve enrolment and renewal over HTTPS. The CA's key is in this process's memory "
            "while it runs: run it on a machine of its own, and only as long as it is needed."
        ),
    )
    serve.add_argument("directory", type=Path, metavar="DIR", help="the CA's directory")
    serve.add_argument(
        "--host", action="append", required=True, help="a name or address it answers at; repeat"
    )
    serve.add_argument("--address", default="0.0.0.0", help="where to listen (all addresses)")  # noqa: S104
    serve.add_argument("--port", type=int, default=8884, help="the port (8884)")
    serve.add_argument(
        "--after",
        metavar="COMMAND",
        help="run this whenever the registry has changed, to copy it to the broker, say",
    )
    passphrase.add(serve)
    serve.set_defaults(run=run_serve)


def run_token(args: argparse.Namespace) -> int:
    """Print a new token, and nothing else, for a script to take."""
    from edgechoir.fleet.authority_dir import make_token
    from edgechoir.fleet.tokens import Wanted

    wanted = Wanted(args.tier, args.member, args.parent, args.hours, args.days, args.replace)
    print(make_token(args.directory, wanted, args.url, time.time(), os.urandom).text())
    return 0


def run_serve(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from edgechoir.commands.serving import serve, set_up_logging
    from edgechoir.config.sections import Log
    from edgechoir.fleet.authority_dir import open_authority
    from edgechoir.fleet.enrolment_server import EnrolmentSettings

    set_up_logging(Log())
    authority = open_authority(args.directory, passphrase.read(args))
    settings = EnrolmentSettings(args.directory, tuple(args.host), args.address, args.port)
    return serve(_serve(settings, authority, shlex.split(args.after or "")))


async def _serve(settings: Any, authority: Any, after: list[str]) -> None:
    from edgechoir.fleet.enrolment_server import enrolment_server

    changed = asyncio.Event()
    async with enrolment_server(settings, authority, changed.set) as port:
        federation = authority.root.federation
        print(f"enrolment of {federation} on https://{settings.hosts[0]}:{port}", flush=True)
        while True:
            await changed.wait()
            changed.clear()
            if after:
                await _run(after)


async def _run(command: list[str]) -> None:
    """Run the operator's command; what comes of it is logged and changes nothing here."""
    process = None
    try:
        async with asyncio.timeout(AFTER_S):
            process = await asyncio.create_subprocess_exec(
                *command, stdin=asyncio.subprocess.DEVNULL
            )
            status = await process.wait()
    except TimeoutError:
        log.error("%s did not end within %g s", command[0], AFTER_S)
    except OSError as error:
        log.error("%s cannot be run: %s", command[0], error.strerror)
    else:
        if status:
            log.error("%s ended with %d", command[0], status)
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()
