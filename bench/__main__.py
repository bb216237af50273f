"""Run the benchmarks and print what they found."""

import argparse
import importlib
import json
import logging
import sys
import time
from dataclasses import asdict
from typing import Final

from bench.figures import Figure, table

NAMES: Final = (
    "inference",
    "pipeline",
    "transport",
    "crowd",
    "broker",
    "startup",
    "memory",
    "secagg",
    "exact",
    "rounds",
    "learning",
    "attacks",
    "private",
    "trees",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    logging.disable(logging.WARNING)  # a broker that is not up yet is no news here
    found: dict[str, list[Figure]] = {}
    for name in options.names or NAMES:
        began = time.monotonic()
        found[name] = importlib.import_module(f"bench.{name}").measure()
        if not options.json:
            print(f"{name}  ({time.monotonic() - began:.0f} s)\n{table(found[name])}\n", flush=True)
    if options.json:
        document = {
            name: [{**asdict(figure), "ratio": figure.ratio} for figure in figures]
            for name, figures in found.items()
        }
        print(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
