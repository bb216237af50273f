"""`edgechoir model`: the versions that a cloud has, how they did, and one of them as a bundle."""

import argparse
import json
import time
from contextlib import closing
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """Add the parser and those of its actions."""
    command = commands.add_parser(
        "model",
        help="versions of the global model",
        description="What a cloud has kept of its run: how each version did, and the best and the "
        "latest versions themselves.",
    )
    actions = command.add_subparsers(title="actions", metavar="ACTION", required=True)
    listed = actions.add_parser(
        "list", help="how each version did", description="How each version of the run did."
    )
    listed.add_argument(
        "config", type=Path, metavar="CONFIG", help="the cloud's configuration file"
    )
    listed.add_argument("--json", action="store_true", help="print JSON, one line a version")
    listed.set_defaults(run=run_list)
    export = actions.add_parser(
        "export",
        help="a version as a bundle",
        description="Write a version as a bundle, to answer with or to begin another run with.",
    )
    export.add_argument(
        "config", type=Path, metavar="CONFIG", help="the cloud's configuration file"
    )
    export.add_argument("output", type=Path, metavar="OUT", help="the directory to write")
    which = export.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the one that did best (the latest)")
    which.add_argument("--version", type=int, metavar="N", help="this one")
    export.set_defaults(run=run_export)


def run_list(args: argparse.Namespace) -> int:
    """One line a version."""
    from edgechoir.bundle.load import load_bundle
    from edgechoir.config import CloudConfig, load_for
    from edgechoir.tiers.aggregator_process import versions_of

    config = load_for(args.config, CloudConfig)
    with closing(versions_of(config.state, load_bundle(config.model.bundle))) as versions:
        best, kept = versions.best(), set(versions.versions())
        history = {version: (figures, at) for version, figures, at in versions.history()}
    for version in sorted(history | dict.fromkeys(kept)):
        figures, at = history.get(version, ({}, None))
        row = {
            "version": version,
            **figures,
            "measured": at,
            "kept": version in kept,
            "best": best is not None and best.version == version,
        }
        print(json.dumps(row) if args.json else _line(row, figures))
    return 0


def _line(row: dict[str, Any], figures: dict[str, float]) -> str:
    at = row["measured"]
    when = "not measured" if at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    measures = "  ".join(f"{name} {value:.4g}" for name, value in sorted(figures.items()))
    marks = ", ".join(mark for mark in ("best", "kept") if row[mark])
    return f"{row['version']:>6}  {when:<19}  {measures}  {marks}".rstrip()


def run_export(args: argparse.Namespace) -> int:
    """A bundle with the version's weights."""
    from edgechoir.bundle.load import load_bundle
    from edgechoir.bundle.manifest import Preprocessing
    from edgechoir.bundle.personal import compose, split
    from edgechoir.bundle.rewrite import write_with
    from edgechoir.config import CloudConfig, load_for
    from edgechoir.errors import OperatorError
    from edgechoir.tiers.aggregator_process import versions_of
    from edgechoir.tiers.statistics import normalisation

    config = load_for(args.config, CloudConfig)
    bundle = load_bundle(config.model.bundle)
    with closing(versions_of(config.state, bundle)) as versions:
        if args.version is not None:
            stored = versions.get(args.version)
        else:
            stored = versions.best() if args.best else versions.latest()
        kept = versions.versions()
    if stored is None:
        what = "version" if args.version is None else f"version {args.version}"
        raise OperatorError(
            f"{config.state}: there is no such {what}; kept: {', '.join(map(str, kept)) or 'none'}"
        )
    params = compose(bundle.manifest, stored.params, split(bundle.manifest, bundle.params)[1])
    preprocessing = None
    if (found := normalisation(stored.extra)) is not None:
        offset, scale = (tuple(map(float, each)) for each in found)
        preprocessing = Preprocessing(offset=offset, scale=scale)
    write_with(bundle, params, args.output, preprocessing)
    print(f"{args.output}: {bundle.manifest.name}, version {stored.version}")
    return 0
