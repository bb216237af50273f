"""`python -m edgechoir.sim`: run seeds, print what happened, replay one with `--seed`."""

import argparse
import sys

from edgechoir.sim.world import ViolationError, World


def main() -> int:
    """Returns 0 when every seed held, 1 otherwise."""
    parser = argparse.ArgumentParser(
        prog="python -m edgechoir.sim",
        description="Run the round protocol on a simulated network with seeded faults.",
    )
    parser.add_argument("--seed", type=int, help="run this one seed and print its whole trace")
    parser.add_argument("--seeds", type=int, default=20, help="how many seeds to run (20)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (0)")
    args = parser.parse_args()
    seeds = [args.seed] if args.seed is not None else range(args.first, args.first + args.seeds)
    bad = 0
    for seed in seeds:
        world = World(seed)
        try:
            world.run()
            outcome = "ok"
        except ViolationError as error:
            outcome = f"VIOLATION: {error} (replay: make sim SEED={seed})"
            bad += 1
        if args.seed is not None:
            print("\n".join(world.trace))
        done = sum(result.total is not None for result in world.results)
        failed = len(world.results) - done
        print(
            f"seed {seed}: {done} rounds done, {failed} failed, {world.network.elapsed:.0f} s, "
            f"trace {world.fingerprint()[:16]}: {outcome}",
            flush=True,
        )
    print(f"{len(seeds) - bad} passed, {bad} failed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
