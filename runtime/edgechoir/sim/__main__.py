"""`python -m edgechoir.sim`: run seeds, print what happened, replay one with `--seed`."""

import argparse
import os
import sys
import time
from contextlib import closing

from edgechoir.sim.soak import try_seeds, try_world
from edgechoir.sim.world import World

LISTED = 100
"""With more seeds than this only violations are printed, and progress on stderr."""
PROGRESS_S = 5.0
INTERRUPTED = 130


def main() -> int:
    """Returns 0 when every seed held, 1 otherwise, 130 when interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m edgechoir.sim",
        description="Run the round protocol on a simulated network with seeded faults.",
    )
    parser.add_argument("--seed", type=int, help="run this one seed and print its whole trace")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds to run (20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (one for each core)"
    )
    args = parser.parse_args()
    if args.seed is not None:
        return replay(args.seed)
    return soak(range(args.first, args.first + args.seeds), max(args.jobs, 1))


def replay(seed: int) -> int:
    """One seed with its whole trace."""
    world = World(seed)
    outcome = try_world(world)
    print("\n".join(world.trace))
    print(outcome)
    return 1 if outcome.wrong else 0


def soak(seeds: range, jobs: int) -> int:
    """All seeds, on `jobs` processes."""
    began = told = time.monotonic()
    tried = bad = 0
    code = INTERRUPTED
    try:
        with closing(try_seeds(seeds, min(jobs, max(len(seeds), 1)))) as outcomes:
            for outcome in outcomes:
                tried += 1
                bad += bool(outcome.wrong)
                if outcome.wrong or len(seeds) <= LISTED:
                    print(outcome, flush=True)
                now = time.monotonic()
                if now - told >= PROGRESS_S:
                    told = now
                    rate = tried / (now - began)
                    print(f"{tried} of {len(seeds)}, {rate:.1f} seeds/s", file=sys.stderr)
        code = 1 if bad else 0
    except KeyboardInterrupt:
        print(f"interrupted after {tried} of {len(seeds)}", file=sys.stderr)
    print(f"{tried - bad} passed, {bad} failed")
    return code


if __name__ == "__main__":
    sys.exit(main())
