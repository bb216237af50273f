"""What the federation learns on real data, through the whole protocol, and what others reach.

    python -m bench.learning [NAME ...] [--seeds N] [--write]   measure; renew docs/results.md
    python -m bench.learning NAME --choose                      try settings on rows kept back

A recipe was chosen on rows (or devices) kept back from the training rows, never on the test rows.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Final

import numpy as np
import torch

from bench.arena import Arena, Rows
from bench.figures import Figure
from bench.problems import DATA, PROBLEMS, Problem, available, for_choosing, missing, problem
from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.load import Bundle
from edgechoir.learning.rates import Rates, Shape
from edgechoir.learning.rules.choose import make_rule
from edgechoir.rounds.schedule import Course
from edgechoir.training.fit import fit, predict
from edgechoir.types import FitPlan, Floats

RESULTS: Final = Path(__file__).resolve().parent.parent / "docs" / "results.md"
CLIP: Final = 5.0


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a problem is learned: the rule and its options, the course, and the local options."""

    rounds: int
    learning_rate: float
    batch_size: int
    rule: str = "fedavg"
    options: Mapping[str, float] = field(default_factory=dict)
    epochs: int = 1
    schedule: Shape = "constant"
    equal: bool = False
    """Do all devices weigh the same, whatever their number of rows?"""
    local: Mapping[str, float] = field(default_factory=dict)

    def course(self, seed: int) -> Course:
        """As the root runs it."""
        return Course(
            rounds=self.rounds,
            deadline=1e6,
            epochs=self.epochs,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            rates=Rates(self.schedule, self.rounds),
            local=self.local,
            clip=CLIP,
            max_samples=1 if self.equal else 40_000,
            seed=1_000_000 * seed,
        )

    def words(self) -> str:
        """For a table."""
        parts = [self.rule, *(f"{name} {value:g}" for name, value in self.options.items())]
        parts += [f"{self.rounds} rounds", f"step {self.learning_rate:g}"]
        parts += [f"batch {self.batch_size}"] if self.batch_size < 4096 else ["whole batch"]
        parts += [f"{self.epochs} epochs"] if self.epochs > 1 else []
        parts += [self.schedule] if self.schedule != "constant" else []
        parts += ["devices weigh alike"] if self.equal else []
        return ", ".join([*parts, *(f"{k} {v:g}" for k, v in self.local.items())])


RECIPES: Final[dict[str, Recipe]] = {
    "heart": Recipe(15, 0.01, 4, equal=True, schedule="cosine"),
    "har": Recipe(30, 0.1, 8, schedule="cosine"),
    "har-two": Recipe(30, 0.1, 32, "fedavgm", {"momentum": 0.8}),
    "turbofan": Recipe(200, 0.1, 4096, "fedadam", {"rate": 0.01}),
    "air": Recipe(30, 0.05, 64, schedule="cosine", local={"momentum": 0.5}),
    "mnist": Recipe(30, 0.1, 8, "fedavgm", {"momentum": 0.8}, schedule="cosine"),
}
TARGETS: Final = {
    "heart": (0.795, 0.815),
    "har": (0.92, 0.945),
    "har-two": (0.80, 0.88),
    "turbofan": (15.0, 14.0),
    "air": (18.5, 18.1),
    "mnist": (0.905, 0.94),
}
MOMENTUM: Final = {"momentum": 0.8}
CHOICES: Final[dict[str, tuple[Recipe, ...]]] = {
    "heart": (
        Recipe(15, 0.01, 4),
        Recipe(15, 0.01, 4, equal=True),
        Recipe(15, 0.01, 4, equal=True, schedule="cosine"),
        Recipe(15, 0.003, 4, equal=True),
        Recipe(15, 0.03, 4, equal=True, schedule="cosine"),
        Recipe(15, 0.01, 4, equal=True, local={"weight_decay": 0.01}),
        Recipe(15, 0.01, 4, "fedadam", {"rate": 0.03}, equal=True),
    ),
    "har": (
        Recipe(30, 0.05, 32),
        Recipe(30, 0.1, 16),
        Recipe(30, 0.1, 16, schedule="cosine"),
        Recipe(30, 0.1, 16, schedule="cosine", epochs=2),
        Recipe(30, 0.1, 16, schedule="cosine", local={"weight_decay": 0.001}),
        Recipe(30, 0.1, 8, schedule="cosine"),
        Recipe(30, 0.1, 16, "fedavgm", {"momentum": 0.5}, schedule="cosine"),
    ),
    "har-two": (
        Recipe(30, 0.05, 32),
        Recipe(30, 0.1, 32, "fedavgm", MOMENTUM),
        Recipe(30, 0.1, 32, "fedavgm", MOMENTUM, schedule="cosine"),
        Recipe(30, 0.1, 16, "fedavgm", MOMENTUM, schedule="cosine"),
        Recipe(30, 0.05, 32, "fedavgm", {"momentum": 0.9}, schedule="cosine"),
        Recipe(30, 0.1, 32, "fedavgm", MOMENTUM, schedule="cosine", equal=True),
    ),
    "turbofan": (
        Recipe(60, 0.05, 32),
        Recipe(200, 0.1, 4096, "fedadam", {"rate": 0.01}),
        Recipe(200, 0.1, 4096, "fedadam", {"rate": 0.01}, schedule="cosine"),
        Recipe(200, 0.1, 4096, "fedavgm", {"momentum": 0.9}, schedule="cosine"),
    ),
    "air": (
        Recipe(30, 0.05, 256),
        Recipe(30, 0.05, 64, schedule="cosine"),
        Recipe(30, 0.1, 128, schedule="cosine"),
        Recipe(30, 0.05, 64, schedule="cosine", local={"momentum": 0.5}),
    ),
    "mnist": (
        Recipe(30, 0.1, 32),
        Recipe(30, 0.1, 16, "fedavgm", MOMENTUM),
        Recipe(30, 0.1, 16, "fedavgm", MOMENTUM, schedule="cosine"),
        Recipe(30, 0.1, 8, "fedavgm", MOMENTUM, schedule="cosine"),
        Recipe(30, 0.1, 32, "fedadam", {"rate": 0.01}),
    ),
}
"""What a recipe was chosen among."""


def federated(one: Problem, recipe: Recipe, seed: int) -> Iterator[tuple[int, float]]:
    """(rounds done, score) ten times in a run, the last at its end."""
    arena = _arena(one, recipe, seed)
    step = max(recipe.rounds // 10, 1)
    for done in range(step, recipe.rounds + 1, step):
        arena.run(min(step, recipe.rounds - done + step))
        weights = arena.state.weights
        seen = arena.seen if one.normalise else lambda raw: raw
        yield done, one.score(outputs_of(arena.bundle, weights, seen))


def _arena(one: Problem, recipe: Recipe, seed: int) -> Arena:
    bundle = bundle_of(one, seed)
    rule = make_rule(recipe.rule, recipe.options)
    course = recipe.course(seed)
    return Arena(bundle, one.devices, course, rule, one.parents, normalise=one.normalise)


def bundle_of(one: Problem, seed: int) -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        return build_bundle(one.model, Path(folder), seed)


def outputs_of(
    bundle: Bundle, weights: Floats, seen: Callable[[Floats], Floats]
) -> Callable[[Floats], Floats]:
    return lambda x: predict(bundle, weights, seen(x))


# ---- what it is compared with


@dataclass(frozen=True, slots=True)
class Alone:
    """Plain SGD in one place: on all rows together, or on one device's own."""

    epochs: int
    learning_rate: float
    batch_size: int


PLAIN: Final[dict[str, Alone]] = {
    "heart": Alone(50, 0.01, 4),
    "har": Alone(20, 0.05, 32),
    "har-two": Alone(20, 0.05, 32),
    "turbofan": Alone(20, 0.05, 64),
    "air": Alone(10, 0.05, 256),
    "mnist": Alone(20, 0.1, 32),
}
SAMPLED: Final = 10
"""Devices that are tried alone, where there are more."""


def alone(one: Problem, rows: Sequence[Rows], plain: Alone, seed: int) -> float:
    """Score of a model trained on these rows alone, normalised by their own mean and deviation."""
    bundle = bundle_of(one, seed)
    x = np.concatenate([r.x for r in rows])
    y = np.concatenate([r.y for r in rows])
    seen = _standard(x) if one.normalise else lambda raw: raw
    plan = FitPlan(plain.epochs, plain.batch_size, plain.learning_rate, seed)
    update = fit(bundle, bundle.params, seen(x), y, plan)
    return one.score(outputs_of(bundle, bundle.params + update.delta, seen))


def _standard(x: Floats) -> Callable[[Floats], Floats]:
    """Each column of the raw rows [n, d] to mean 0 and deviation 1; what is missing to the mean."""
    mean, std = np.nanmean(x, 0, dtype=np.float64), np.nanstd(x, 0, dtype=np.float64)
    mean, std = np.nan_to_num(mean), np.where(np.nan_to_num(std) > 1e-6, std, 1.0)

    def seen(raw: Floats) -> Floats:
        return np.nan_to_num((raw - mean) / std).astype(np.float32)

    return seen


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem over several seeds."""

    name: str
    metric: str
    recipe: Recipe
    federated: Sequence[float]
    curve: Sequence[tuple[int, float]]
    local: float
    pooled: float
    seconds: float


def find(name: str, seeds: int, told: Callable[[str], None]) -> Finding:
    """Learn a problem with its recipe. `told` hears of the progress."""
    one, recipe = problem(name), RECIPES[name]
    began = time.monotonic()
    finals: list[float] = []
    curves: list[list[tuple[int, float]]] = []
    for seed in range(seeds):
        curve: list[tuple[int, float]] = []
        for done, score in federated(one, recipe, seed):
            curve.append((done, score))
            told(f"{name} seed {seed}: {done} rounds, {score:.4f}")
        finals.append(curve[-1][1])
        curves.append(curve)
    seconds = time.monotonic() - began
    devices = list(one.devices.values())
    few = devices[:: max(len(devices) // SAMPLED, 1)]
    local = fmean(alone(one, [rows], PLAIN[name], 0) for rows in few)
    told(f"{name}: {local:.4f} alone")
    pooled = fmean(alone(one, devices, PLAIN[name], seed) for seed in range(seeds))
    told(f"{name}: {pooled:.4f} pooled")
    mean = [(at[0][0], fmean(score for _, score in at)) for at in zip(*curves, strict=True)]
    return Finding(name, one.metric, recipe, finals, mean, local, pooled, seconds)


def choose(name: str, seeds: int, told: Callable[[str], None]) -> None:
    """Every choice for a problem, judged on what was kept back of the training rows."""
    whole = problem(name)
    one = for_choosing(whole)
    for recipe in CHOICES.get(name, ()):
        scores = [[score for _, score in federated(one, recipe, seed)][-1] for seed in range(seeds)]
        told(f"{fmean(scores):.4f}  {recipe.words()}  {[round(s, 4) for s in scores]}")


# ---- for people


def measure() -> list[Figure]:
    """One seed of what takes seconds; `python -m bench.learning` for all."""
    if not available():
        print(f"learning: no data sets in {DATA}; nothing is measured")
        return []
    figures = []
    for name in ("heart", "mnist"):
        found = find(name, 1, lambda _: None)
        figures.append(
            Figure(f"{name}: {found.metric}", found.federated[0], "", "pooled", found.pooled)
        )
    return figures


def page(findings: Sequence[Finding], seeds: int) -> str:
    """docs/results.md."""
    rows = []
    for f in findings:
        goal, stretch = TARGETS[f.name]
        spread = f" ± {_shown(stdev(f.federated))}" if len(f.federated) > 1 else ""
        rows.append(
            f"| {f.name} | {f.metric} | **{_shown(fmean(f.federated))}**{spread} | {goal:g} / "
            f"{stretch:g} | {_shown(f.local)} | {_shown(f.pooled)} | {f.recipe.words()} |"
        )
    curves = [
        f"| {f.name} | " + ", ".join(f"{done}: {_shown(score)}" for done, score in f.curve) + " |"
        for f in findings
    ]
    return PAGE.format(
        seeds=seeds, rows="\n".join(rows), curves="\n".join(curves), about="\n".join(ABOUT)
    )


def _shown(value: float) -> str:
    return f"{value:.3f}" if value < 2 else f"{value:.2f}"


ABOUT: Final = (
    "- **heart**: UCI Heart Disease as FLamby splits it, four hospitals; FLamby's own figures:"
    " pooled .735, local .730, FedAvg .685, best federated .731 (its FedYogi and FedAdagrad).",
    "- **har**: UCI HAPT, 21 persons, 114 features of each window; judged on nine persons that no"
    " device belongs to. **har-two**: each person has two of the six activities.",
    "- **turbofan**: NASA C-MAPSS FD001, 100 devices with one engine each under ten nodes; the last"
    " window of 100 other engines. Published, centralised: LSTM 14.93, CNN 16.97.",
    "- **air**: PRSA Beijing, twelve stations, PM2.5 in an hour; the last year. Persistence 19.78.",
    "- **mnist**: the 10,000 test images of MNIST; 20 devices, labels skewed by a Dirichlet(0.3).",
)
PAGE: Final = """# Results on real data

Written by `python -m bench.learning --write`. Every figure went through the whole protocol: a
certificate and an endpoint for each member, plans, masks, shares, sealed uploads, signed models;
only MQTT and the clock are left out (`bench/arena.py`). Where columns are normalised, mean and
deviation come of secure rounds before training. {seeds} seeds; mean ± standard deviation.

| set | measure | federated | goal / stretch | one device alone | all rows in one place | recipe |
|---|---|---|---|---|---|---|
{rows}

*Alone*: plain SGD on one device's rows with their own mean and deviation, the mean over devices
(ten of them where there are more), judged on the same test rows. *In one place*: on all rows.

Recipes were chosen on rows kept back from the training rows (`python -m bench.learning NAME
--choose`): every fifth row of each device (heart, mnist), the last fifth of them (air), every
fourth device (har). Turbofan's recipe is the one that the set's own notes name, one step on the
whole batch and Adam at the root; it takes the longest, and is measured where its row is there.

## By rounds

| set | score after so many rounds, mean of the seeds |
|---|---|
{curves}

## The sets

{about}
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.learning", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PROBLEMS)}")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="seeds (3)")
    parser.add_argument("--choose", action="store_true", help="try the choices on rows kept back")
    parser.add_argument("--recipe", metavar="JSON", help="with --choose: this one instead")
    parser.add_argument("--write", action="store_true", help="write docs/results.md")
    options = parser.parse_args()
    unknown = set(options.names) - set(PROBLEMS)
    if unknown:
        parser.error(f"no problem {', '.join(sorted(unknown))}; there are {', '.join(PROBLEMS)}")
    if missing():
        return 2
    torch.set_num_threads(1)
    names = options.names or list(PROBLEMS)

    def told(line: str) -> None:
        print(line, flush=True)

    if options.choose:
        for name in names:
            given: dict[str, Any] = json.loads(options.recipe) if options.recipe else {}
            if given:
                CHOICES[name] = (replace(RECIPES[name], **given),)
            choose(name, options.seeds, told)
        return 0
    findings = [find(name, options.seeds, told) for name in names]
    text = page(findings, options.seeds)
    if options.write:
        RESULTS.write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
