"""Accuracy against bytes: narrow rings, rotation, a share of the coordinates with the rest kept.

    python -m bench.compression [NAME ...] [--rounds N] [--seeds N] [--write]

Bytes are all that a device sends in a round, signatures and sealed boxes included, through the
whole protocol (`bench/arena.py`). `--write` renews the table in docs/learning.md.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Final

import torch

from bench.arena import Arena
from bench.figures import between
from bench.learning import RECIPES, bundle_of, outputs_of
from bench.problems import Problem, missing, problem
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.compressed import make_compressed

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "learning.md"
NAMES: Final = ("mnist", "har")


@dataclass(frozen=True, slots=True)
class Way:
    """How an update travels."""

    bits: int
    clip: float
    rotate: bool = False
    share: float = 1.0
    clipped: float = 0.0

    def words(self) -> str:
        """For a table."""
        parts = [f"{self.bits} bits", f"clip {self.clip:g}"]
        parts += ["rotated"] if self.rotate else []
        parts += [f"{self.share:.0%} sent"] if self.share < 1 else []
        parts += [f"clip follows {self.clipped:.0%}"] if self.clipped else []
        return ", ".join(parts)


WAYS: Final = (
    Way(32, 1.0),
    Way(16, 1.0),
    Way(8, 0.1),
    Way(8, 0.1, clipped=0.01),
    Way(8, 0.1, rotate=True, clipped=0.01),
    Way(16, 1.0, share=0.25),
    Way(16, 1.0, share=0.1),
    Way(8, 0.1, rotate=True, share=0.25, clipped=0.01),
)


def sent(one: Problem, way: Way, rounds: int, seed: int) -> tuple[float, float]:
    """The score at the end, and kilobytes that a device sends in a round."""
    recipe = replace(RECIPES[one.name], rounds=rounds)
    most = max(len(rows.x) for rows in one.devices.values())
    course = replace(recipe.course(seed), bits=way.bits, clip=way.clip, max_samples=most)
    form = {"rotate": way.rotate, "sent_share": way.share, "clipped_share": way.clipped}
    rule = make_compressed(make_rule(recipe.rule, recipe.options), {"seed": seed, **form})
    arena = Arena(
        bundle_of(one, seed), one.devices, course, rule, one.parents, normalise=one.normalise
    )
    before = arena.sent
    arena.run(rounds)
    seen = arena.seen if one.normalise else lambda raw: raw
    score = one.score(outputs_of(arena.bundle, arena.state.weights, seen))
    return score, (arena.sent - before) / len(one.devices) / rounds / 1000


def find(name: str, rounds: int, seeds: int) -> Iterator[tuple[str, float, float]]:
    """Each way's score and kilobytes, the mean over seeds."""
    one = problem(name)
    for way in WAYS:
        each = [sent(one, way, rounds, seed) for seed in range(seeds)]
        yield way.words(), fmean(score for score, _ in each), fmean(size for _, size in each)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.compression", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (all)")
    parser.add_argument("--rounds", type=int, default=15, metavar="N", help="rounds (15)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds (1)")
    parser.add_argument("--write", action="store_true", help="renew the table in docs/learning.md")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no problem {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    if missing():
        return 2
    torch.set_num_threads(1)
    lines = [
        "| set | an update travels as | kB a device sends in a round | score |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in options.names or NAMES:
        for words, score, size in find(name, options.rounds, options.seeds):
            lines.append(f"| {name} | {words} | {size:.1f} | {score:.3f} |")
            print(lines[-1], flush=True)
    if options.write:
        PAGE.write_text(between(PAGE.read_text(), "compression", "\n".join(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
