"""`edgechoir query`: ask the federation something, by way of the running cloud."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

KINDS: Final = {
    "mean": "mean, deviation and missing share of every column",
    "counts": "rows of each class",
    "histogram": "equal bins of every column",
    "quantiles": "quantiles of every column",
    "evaluate": "how well the current model does on rows held out",
    "drift": "what devices infer on now against what they have stored",
    "linear": "a ridge regression of the labels on the inputs, in closed form",
}


def add(commands: Any) -> None:
    """Add the parser."""
    kinds = "; ".join(f"{kind}: {what}" for kind, what in KINDS.items())
    command = commands.add_parser(
        "query",
        help="ask the devices a statistic, as masked sums",
        description=(
            "Ask all devices for a statistic. It takes some rounds beside training, or after it, "
            "and shows what all rows together come to, never those of one device. Run it on the "
            f"cloud's machine, while it runs. {kinds}."
        ),
    )
    command.add_argument("kind", choices=KINDS, metavar="KIND", help=", ".join(KINDS))
    command.add_argument("config", type=Path, metavar="CONFIG", help="the cloud's configuration")
    command.add_argument(
        "--source",
        choices=("stored", "train", "held_out", "recent"),
        help="rows: stored (all labelled ones), train, held_out, or recent (inferred on lately)",
    )
    command.add_argument(
        "--of",
        choices=("x", "y", "answer", "confidence"),
        help="inputs (x), labels (y), the model's answers, or their confidence",
    )
    command.add_argument("--columns", metavar="J,K", help="columns of x, counted from 0 (all)")
    command.add_argument("--bins", type=int, metavar="N", help="of a histogram (20)")
    command.add_argument(
        "--range", nargs=2, type=float, metavar=("LOW", "HIGH"), help="of a histogram (found)"
    )
    command.add_argument("--at", metavar="P,Q", help="quantiles (0.05,0.25,0.5,0.75,0.95)")
    command.add_argument("--ridge", type=float, help="weight of the penalty of linear (0.001)")
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="write linear as a bundle, made of a linear one"
    )
    command.add_argument("--timeout", type=float, metavar="S", help="for the whole answer (600)")
    command.add_argument("--json", action="store_true", help="print the answer as JSON")
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Ask, wait, and print."""
    from edgechoir.config.reading import load_for
    from edgechoir.config.tiers import CloudConfig
    from edgechoir.tiers.local_calls import request

    config = load_for(args.config, CloudConfig)
    wanted = _request(args)
    answer = request(
        config.state,
        wanted,
        wanted.get("timeout", 600.0) + 30.0,
        lambda text: print(text, file=sys.stderr, flush=True),
    )
    if args.out is not None:
        _write_bundle(config.model.bundle, args.out, answer)
    if args.json:
        print(json.dumps(answer, indent=2))
    else:
        from edgechoir.commands.query_table import lines_of

        print("\n".join(lines_of(answer)))
    return 0


def _request(args: argparse.Namespace) -> dict[str, Any]:
    """What is sent; the cloud knows the defaults, and checks all of it."""
    from edgechoir.errors import OperatorError

    wanted: dict[str, Any] = {"do": "query", "kind": args.kind}
    for name in ("source", "of", "bins", "ridge", "timeout"):
        value = getattr(args, name)
        if value is not None:
            wanted[name] = value
    try:
        if args.columns is not None:
            wanted["columns"] = [int(part) for part in args.columns.split(",")]
        if args.at is not None:
            wanted["at"] = [float(part) for part in args.at.split(",")]
    except ValueError as error:
        raise OperatorError(
            f"--columns and --at take numbers with commas between: {error}"
        ) from None
    if args.range is not None:
        wanted["low"], wanted["high"] = args.range
    if args.out is not None and (args.kind != "linear" or args.columns):
        raise OperatorError("--out goes with linear of all columns")
    return wanted


def _write_bundle(source: Path, out: Path, answer: dict[str, Any]) -> None:
    import numpy as np

    from edgechoir.bundle.load import load_bundle
    from edgechoir.bundle.rewrite import write_linear

    weights, bias = (np.array(answer[name], np.float64) for name in ("weights", "bias"))
    write_linear(load_bundle(source), weights, bias, out)
    print(f"{out}: a bundle with these weights", file=sys.stderr)
