"""`edgechoir broker`: run the fleet's broker from the folder that the CA made."""

import argparse
import asyncio
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser."""
    command = commands.add_parser(
        "broker",
        help="run the fleet's broker: mosquitto, or the Python one",
        description=(
            "Run a broker with TLS, client certificates and the fleet's access rules. It takes "
            "mosquitto where that is installed. New and revoked members are taken up while it runs."
        ),
    )
    command.add_argument("folder", type=Path, help="the folder that `edgechoir ca broker` made")
    command.add_argument("--state", type=Path, help="the broker's own directory (FOLDER/state)")
    command.add_argument("--address", default="0.0.0.0", help="where to listen (all addresses)")  # noqa: S104
    command.add_argument("--port", type=int, default=8883, help="the TLS port (8883)")
    command.add_argument(
        "--kind", choices=["auto", "mosquitto", "python"], default="auto", help="which broker"
    )
    command.add_argument(
        "--persistent", action="store_true", help="keep retained messages over a restart"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from edgechoir.broker.run import running_broker
    from edgechoir.broker.settings import BrokerSettings
    from edgechoir.commands.pulse import answering
    from edgechoir.commands.serving import serve, set_up_logging
    from edgechoir.config.sections import Log
    from edgechoir.fleet.broker_files import BrokerFiles

    set_up_logging(Log())
    settings = BrokerSettings(
        files=BrokerFiles(args.folder),
        state=args.state or args.folder / "state",
        address=args.address,
        port=args.port,
        kind=args.kind,
        persistent=args.persistent,
    )

    async def run_until_told() -> None:
        async with running_broker(settings) as broker, answering(settings.state, "broker"):
            print(broker, flush=True)
            await asyncio.Event().wait()

    return serve(run_until_told())
