"""What bad devices do to the mean, and what is left of it under a robust estimate.

    python -m bench.poison [NAME ...] [--rounds N] [--seeds N] [--write]

A fifth of the devices is bad, and all of them are under one or two nodes, through the whole
protocol (`bench/arena.py`). `--write` renews the table in docs/learning.md.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import torch

from bench.arena import Arena
from bench.figures import between
from bench.learning import RECIPES, bundle_of, outputs_of
from bench.problems import Problem, missing, problem
from edgechoir.identity.policy import Policy
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.robust import make_robust
from edgechoir.learning.rules.rule import Rule
from edgechoir.types import Floats

PAGE: Final = Path(__file__).resolve().parent.parent / "docs" / "learning.md"
NODES: Final = {"mnist": 5, "har": 7}
"""mnist: five nodes of four devices, har: seven of three; sorted by name."""
POLICY: Final = Policy(cohorts_apart=True)
Spoil = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Attack:
    """What a bad device does to its update, or to its labels before it trains."""

    words: str
    update: Spoil | None = None
    labels: bool = False


ATTACKS: Final = (
    Attack("none"),
    Attack("sign flip: −Δ", lambda delta: -delta),
    Attack("scaling: 10 Δ", lambda delta: 10 * delta),
    Attack("both: −10 Δ", lambda delta: -10 * delta),
    Attack("label flip: class c is called k − 1 − c", labels=True),
)
RULES: Final[dict[str, Mapping[str, Any] | None]] = {
    "mean": None,
    "median": {"estimate": "median"},
    "trimmed mean": {"estimate": "trimmed-mean"},
    "Krum": {"estimate": "krum", "keep": 1},
    "multi-Krum": {"estimate": "krum"},
}


def tree(one: Problem) -> tuple[dict[str, str], list[str]]:
    """Who is under which node, and a fifth of the devices, from the last node on."""
    names = sorted(one.devices)
    each = len(names) // NODES[one.name]
    parents = {name: f"node-{i // each}" for i, name in enumerate(names)}
    bad = names[-round(len(names) / 5) :]
    return parents, bad


def spoiled(one: Problem, attack: Attack, rule: Rule, rounds: int, seed: int) -> float:
    """The score at the end of a run with bad devices."""
    parents, bad = tree(one)
    devices = dict(one.devices)
    if attack.labels:
        classes = max(int(rows.y.max()) for rows in devices.values())
        for name in bad:
            devices[name] = replace(devices[name], y=classes - devices[name].y)
    spoiling = {} if attack.update is None else dict.fromkeys(bad, attack.update)
    recipe = replace(RECIPES[one.name], rounds=rounds)
    arena = Arena(
        bundle_of(one, seed),
        devices,
        recipe.course(seed),
        rule,
        parents,
        POLICY,
        normalise=one.normalise,
        spoiling=spoiling,
    )
    arena.run(rounds)
    seen = arena.seen if one.normalise else lambda raw: raw
    return one.score(outputs_of(arena.bundle, arena.state.weights, seen))


def rule_of(name: str, estimate: str) -> Rule:
    """The recipe's rule, on the mean or on an estimate."""
    recipe, options = RECIPES[name], RULES[estimate]
    rule = make_rule(recipe.rule, recipe.options)
    return rule if options is None else make_robust(rule, options)


def find(name: str, rounds: int, seeds: int) -> Iterator[tuple[str, Sequence[float]]]:
    """For each attack the score of each rule, the mean over seeds."""
    one = problem(name)
    for attack in ATTACKS:
        yield (
            attack.words,
            [
                fmean(
                    spoiled(one, attack, rule_of(name, estimate), rounds, s) for s in range(seeds)
                )
                for estimate in RULES
            ],
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.poison", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NODES)} (all)")
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="rounds (10)")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds (1)")
    parser.add_argument("--write", action="store_true", help="renew the table in docs/learning.md")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NODES):
        parser.error(f"no problem {', '.join(sorted(unknown))}; there are {', '.join(NODES)}")
    if missing():
        return 2
    torch.set_num_threads(1)
    lines = [f"| set | attack | {' | '.join(RULES)} |", "|---" * (2 + len(RULES)) + "|"]
    print("\n".join(lines), flush=True)
    for name in options.names or NODES:
        for words, scores in find(name, options.rounds, options.seeds):
            shown = " | ".join(f"{score:.3f}" for score in scores)
            lines.append(f"| {name} | {words} | {shown} |")
            print(lines[-1], flush=True)
    if options.write:
        PAGE.write_text(between(PAGE.read_text(), "poison", "\n".join(lines)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
