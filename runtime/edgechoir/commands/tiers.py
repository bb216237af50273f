"""`edgechoir device|node|edge-cloud|cloud`: run a tier."""

import argparse
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgechoir.tiers.process import TierConfig

WORDS = {
    "device": "read a sensor, infer on every sample, train and send masked updates",
    "node": "coordinate the devices below, and sum their masked updates",
    "edge-cloud": "coordinate the nodes below, and sum theirs",
    "cloud": "run the rounds at the root, and release the global model",
}


def add(commands: Any) -> None:
    """Add one parser a tier."""
    for tier, what in WORDS.items():
        command = commands.add_parser(
            tier,
            help=what,
            description=f"{what[0].upper()}{what[1:]}. Stops cleanly on SIGINT or SIGTERM.",
        )
        command.add_argument("config", type=Path, metavar="CONFIG", help="its TOML configuration")
        command.set_defaults(run=run, tier=tier)


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    from edgechoir.commands import footprint

    footprint.prepare()  # before the imports that follow
    if args.tier == "device":
        from edgechoir.commands.natives import check_natives

        check_natives(args.config)
    from edgechoir.commands.serving import serve, set_up_logging
    from edgechoir.config.reading import load_for
    from edgechoir.config.tiers import KINDS, CloudConfig, DeviceConfig, EdgeCloudConfig, NodeConfig

    config = load_for(args.config, KINDS[args.tier])
    if isinstance(config, DeviceConfig):
        from edgechoir.tiers.device_process import run_device

        set_up_logging(config.log)
        return serve(_asked_after(config, run_device(config)))
    if isinstance(config, NodeConfig | EdgeCloudConfig | CloudConfig):
        from edgechoir.tiers.aggregator_process import run_aggregator

        set_up_logging(config.log)
        return serve(_asked_after(config, run_aggregator(config)))
    raise AssertionError(f"{args.tier} is no tier with a process")


async def _asked_after(config: "TierConfig", work: Coroutine[Any, Any, None]) -> None:
    """Do the work, and answer `edgechoir healthy` meanwhile."""
    from edgechoir.commands.pulse import answering

    async with answering(config.state, f"{config.tier}/{config.member}"):
        await work
