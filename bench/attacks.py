"""What attacks gain from an update, a masked sum, a private round and DP-SGD.

    python -m bench.attacks [mnist har] [--seeds N]

Every update and every released model went through the protocol (`bench/arena.py`). The model is an
MLP with 64 hidden neurons, as in `models/mnist` and `models/har`, on rows scaled beforehand.
`bench/inversion.py` and `bench/membership.py` have the attacks.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
import torch

from bench.arena import Arena, Rows
from bench.figures import Figure
from bench.inversion import Gain, by_division, by_search, gain, with_traps
from bench.membership import Power, by_likelihood, by_sequence, confidence, power
from bench.problems import DATA, available, missing, problem
from edgechoir import wire
from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.load import Bundle
from edgechoir.identity.policy import Policy
from edgechoir.learning.privacy.budget import epsilon
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.private import make_private
from edgechoir.learning.rules.rule import Rule
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import RoundDone
from edgechoir.rounds.schedule import Course, Did, Happened, Publish
from edgechoir.tiers.desk import Examples
from edgechoir.training.fit import fit, predict
from edgechoir.types import FitPlan, Floats, Ring

NAMES: Final = ("mnist", "har")
STEP: Final = 0.1
SOURCE: Final = """from torch import nn

META = {{"name": "attacked", "task": "classification", "input": [{inputs}], "outputs": {outputs}}}


def model():
    return nn.Sequential(nn.Linear({inputs}, 64), nn.ReLU(), nn.Linear(64, {classes}))
"""


@dataclass(frozen=True, slots=True)
class Rowset:
    """Scaled rows x [n, inputs] with labels y [n]; `public` [m, inputs] are what the attacker has
    of the same kind."""

    name: str
    x: Floats
    y: np.ndarray
    public: Floats

    @property
    def limits(self) -> tuple[Floats, Floats]:
        """What a column can be, as far as the public rows say."""
        return self.public.min(0), self.public.max(0)


def rowset(name: str, seed: int) -> Rowset:
    """Of one of NAMES, in an order of its own for each seed."""
    devices = problem(name).devices.values()
    x = np.concatenate([rows.x for rows in devices]).astype(np.float32)
    y = np.concatenate([rows.y for rows in devices]).astype(np.int64)
    x = x / np.float32(255) if name == "mnist" else (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)
    order = np.random.default_rng(seed).permutation(len(x))
    x, y = x[order].astype(np.float32), y[order]
    return Rowset(name, x[1000:], y[1000:], x[:1000])


def bundle_for(rows: Rowset, seed: int) -> Bundle:
    """The MLP."""
    classes = int(rows.y.max()) + 1
    outputs = [str(i) for i in range(classes)]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.py"
        inputs = rows.x.shape[1]
        source.write_text(SOURCE.format(inputs=inputs, outputs=outputs, classes=classes))
        return build_bundle(source, Path(folder) / "bundle", seed)


async def unaccounted(rows: int, plan: FitPlan, noise: float) -> None:
    """Nobody counts here."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What protects a run: noise z of every member on its update, or on the gradients of rows."""

    client: float = 0.0
    example: float = 0.0

    def rule(self, bound: float) -> Rule:
        """FedAvg, private or not."""
        inner = make_rule("fedavg", {})
        return make_private(inner, {"z": self.client, "bound": bound}) if self.client else inner

    @property
    def examples(self) -> Examples | None:
        """For the devices."""
        return Examples(1.0, self.example, unaccounted) if self.example else None


class Watched(Arena):
    """What an adversary sees of an arena: updates before they are masked (which nobody sees, but
    would without masks), sums, and released models."""

    def __init__(
        self,
        bundle: Bundle,
        devices: Mapping[str, Rows],
        course: Course,
        guard: Guard,
        bound: float,
    ) -> None:
        self.updates: dict[str, Floats] = {}
        self.sums: list[Floats] = []
        self.models: list[Floats] = []
        self._size = len(bundle.params)
        policy = Policy(min_devices=2)  # the default refuses a sum of two
        rule, examples = guard.rule(bound), guard.examples
        super().__init__(bundle, devices, course, rule, policy=policy, examples=examples)

    def _contribute(self, name: str, plan: wire.Plan, vector: Ring) -> None:
        self.updates[name] = encoding_of(plan).decode(vector).delta[: self._size]
        super()._contribute(name, plan, vector)

    def _move(self, event: Happened) -> None:
        if isinstance(event, RoundDone):
            self.sums.append(encoding_of(event.plan).decode(event.total).delta[: self._size])
        super()._move(event)

    def _did(self, one: Did) -> None:
        if isinstance(one, Publish):
            self.models.append(one.state.weights)
        super()._did(one)


# ---- inversion


@dataclass(frozen=True, slots=True)
class View:
    """What the attacker looks at: the sum of so many devices (1: a bare update), and how it was
    protected."""

    words: str
    devices: int
    guard: Guard = Guard()
    traps: bool = False


VIEWS: Final = (
    View("one update, bare", 1),
    View("masked sum of 2", 2),
    View("masked sum of 8", 8),
    View("masked sum of 20", 20),
    View("masked sum of 20, the cloud picks the model", 20, traps=True),
    View("sum of 20, client-level z = 0.02", 20, Guard(client=0.02)),
    View("sum of 20, client-level z = 0.1", 20, Guard(client=0.1)),
    View("sum of 20, client-level z = 1", 20, Guard(client=1.0)),
    View("sum of 20, z = 1, the cloud picks the model", 20, Guard(client=1.0), traps=True),
    View("one update, bare, DP-SGD z = 0.02", 1, Guard(example=0.02)),
    View("one update, bare, DP-SGD z = 0.1", 1, Guard(example=0.1)),
    View("one update, bare, DP-SGD z = 1", 1, Guard(example=1.0)),
)
BARE: Final = 8
"""Devices whose bare updates are looked at."""
MOST_SEARCHED: Final = 8
"""Rows that are searched for together; more are not worth the wait."""


@dataclass(frozen=True, slots=True)
class Inverted:
    """By division with one row and with eight on each device, by search with one."""

    one: Gain
    eight: Gain
    searched: Gain | None


def inverted(name: str, view: View, seed: int) -> Inverted:
    """One round, one step over all rows of each device, and what is in it."""
    rows = rowset(name, seed)
    found, searched = [], None
    for each in (1, 8):
        x, y = rows.x[: 20 * each], rows.y[: 20 * each]
        bundle = bundle_for(rows, seed)
        bundle = with_traps(bundle, rows.public) if view.traps else bundle
        of = BARE if view.devices == 1 else view.devices
        devices = {
            f"dev-{i:02}": Rows(x[i * each : (i + 1) * each], y[i * each : (i + 1) * each])
            for i in range(of)
        }
        course = Course(1, 1e6, batch_size=each, learning_rate=STEP, clip=5.0, max_samples=each)
        arena = Watched(bundle, devices, course, view.guard, STEP)
        arena.run(1)
        if view.devices == 1:
            deltas, targets = list(arena.updates.values()), [devices[n].x for n in arena.updates]
            labels = [devices[n].y for n in arena.updates]
        else:
            deltas, targets, labels = arena.sums, [x[: of * each]], [y[: of * each]]
        low, high = rows.limits
        mean = rows.public.mean(0)
        found.append(gain([by_division(bundle, d, low, high) for d in deltas], targets, mean))
        if each == 1 and view.devices <= MOST_SEARCHED and not view.traps:
            w = bundle.params
            guesses = [
                by_search(bundle, w, d, of_, low, high, seed)
                for d, of_ in zip(deltas, labels, strict=True)
            ]
            searched = gain(guesses, targets, mean)
    return Inverted(found[0], found[1], searched)


def nearest(name: str, seed: int) -> Gain:
    """What is known without any update: the nearest of the public rows."""
    rows = rowset(name, seed)
    return gain([rows.public], [rows.x[:160]], rows.public.mean(0))


# ---- membership

HOLDERS: Final = 10
EACH: Final = 50
"""Rows that each of them trains on; as many again are not in."""
TRAINING: Final = Course(
    20, 1e6, epochs=2, batch_size=10, learning_rate=STEP, clip=5.0, max_samples=EACH
)
SHADOWS: Final = 8
GUARDS: Final = (
    ("masked (or bare: the models are the same)", Guard()),
    ("client-level z = 0.1", Guard(client=0.1)),
    ("client-level z = 0.3", Guard(client=0.3)),
    ("client-level z = 1", Guard(client=1.0)),
    ("DP-SGD z = 0.5", Guard(example=0.5)),
    ("DP-SGD z = 1", Guard(example=1.0)),
)


@dataclass(frozen=True, slots=True)
class Inferred:
    """How good the last model is, and how well each attack tells members from others."""

    accuracy: float
    by_loss: Power
    by_likelihood: Power
    by_sequence: Power


class Trial:
    """A federation whose devices each train on half of their rows, and shadows of it."""

    def __init__(self, name: str, seed: int) -> None:
        rows = rowset(name, seed)
        pool = 2 * HOLDERS * EACH
        self._x, self._y = rows.x[:pool], rows.y[:pool]
        self._test = rows.x[pool : pool + 1000], rows.y[pool : pool + 1000]
        self._bundle = bundle_for(rows, seed)
        self._seed = seed
        self._numbers = np.random.default_rng(1000 + seed)
        self._member = self._halves()
        drawn = [self._halves() for _ in range(SHADOWS)]
        self._inside = np.array(drawn)
        self._shadows = np.array([self._confidence(self._shadow(inside)) for inside in drawn])

    def attacked(self, guard: Guard) -> Inferred:
        """Train under this guard and attack what is released. The shadows had no noise."""
        devices = {f"dev-{i:02}": Rows(*self._rows(i, self._member)) for i in range(HOLDERS)}
        course = replace(TRAINING, seed=1000 * self._seed)
        arena = Watched(self._bundle, devices, course, guard, 1.0)
        arena.run(TRAINING.rounds)
        last = arena.models[-1]
        seen = self._confidence(last)
        x, y = self._test
        return Inferred(
            float((predict(self._bundle, last, x).argmax(1) == y).mean()),
            power(seen, self._member),
            power(by_likelihood(seen, self._shadows, self._inside), self._member),
            power(by_sequence(self._bundle, arena.models, self._x, self._y), self._member),
        )

    def _halves(self) -> np.ndarray:
        member = np.zeros(len(self._x), bool)
        for i in range(HOLDERS):
            at = 2 * EACH * i + self._numbers.permutation(2 * EACH)[:EACH]
            member[at] = True
        return member

    def _rows(self, i: int, member: np.ndarray) -> tuple[Floats, np.ndarray]:
        at = np.flatnonzero(member[2 * EACH * i : 2 * EACH * (i + 1)]) + 2 * EACH * i
        return self._x[at], self._y[at]

    def _confidence(self, w: Floats) -> Floats:
        return confidence(self._bundle, w, self._x, self._y)

    def _shadow(self, member: np.ndarray) -> Floats:
        """The same course by the attacker, in one place, with FedAvg and without noise."""
        w = self._bundle.params
        plan = FitPlan(TRAINING.epochs, TRAINING.batch_size, STEP, 0)
        for round_ in range(TRAINING.rounds):
            now = replace(plan, seed=int(self._numbers.integers(2**31)) + round_)
            deltas = [
                fit(self._bundle, w, *self._rows(i, member), now).delta for i in range(HOLDERS)
            ]
            w = w + np.mean(deltas, axis=0, dtype=np.float32)
        return w


# ---- for people


def _mean(found: Sequence[Any], of: Callable[[Any], float]) -> float:
    return fmean(of(one) for one in found)


def _gain(found: Sequence[Gain]) -> str:
    return f"{_mean(found, lambda g: g.error):.2f}, {_mean(found, lambda g: g.recovered):.0%}"


def _power(found: Sequence[Power]) -> str:
    return f"{_mean(found, lambda p: p.auc):.2f}, {_mean(found, lambda p: p.true_rate):.1%}"


def inversion_table(names: Sequence[str], seeds: int) -> str:
    """Rows recovered, by what the attacker sees."""
    lines = [
        "| set | the attacker sees | by division, 1 row a device | 8 rows a device | by search |",
        "|---|---|---|---|---|",
    ]
    for name in names:
        known = _gain([nearest(name, seed) for seed in range(seeds)])
        lines.append(f"| {name} | nothing: nearest of 1,000 public rows | {known} | {known} | |")
        print(lines[-1], flush=True)
        for view in VIEWS:
            found = [inverted(name, view, seed) for seed in range(seeds)]
            search = [f.searched for f in found if f.searched is not None]
            parts = [_gain([f.one for f in found]), _gain([f.eight for f in found])]
            parts.append(_gain(search) if search else "")
            lines.append(f"| {name} | {view.words} | " + " | ".join(parts) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def membership_table(names: Sequence[str], seeds: int) -> str:
    """AUC and true positives, by what protects the run."""
    spent = {z: epsilon(TRAINING.rounds / (2 * z**2), 1e-5) for z in (0.1, 0.3, 1.0)}
    lines = [
        "| set | run | epsilon | accuracy | loss | likelihood ratio | sequence of releases |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in names:
        trials = [Trial(name, seed) for seed in range(seeds)]
        for words, guard in GUARDS:
            found = [trial.attacked(guard) for trial in trials]
            cost = f"{spent[guard.client]:.3g}" if guard.client else _rows_cost(guard)
            parts = [f"{_mean(found, lambda f: f.accuracy):.2f}"]
            parts += [_power([f.by_loss for f in found]), _power([f.by_likelihood for f in found])]
            parts += [_power([f.by_sequence for f in found])]
            lines.append(f"| {name} | {words} | {cost} | " + " | ".join(parts) + " |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def _rows_cost(guard: Guard) -> str:
    from edgechoir.learning.privacy.examples import Steps, private_steps
    from edgechoir.training.account import available as accountable
    from edgechoir.training.account import epsilon_of

    if not guard.example or not accountable():
        return "none"
    count, share = private_steps(EACH, TRAINING.batch_size)
    steps = Steps(guard.example, share, count * TRAINING.epochs * TRAINING.rounds)
    return f"{epsilon_of([steps], 1e-5):.3g} a row"


def measure() -> list[Figure]:
    """The extremes, on one set with one seed."""
    if not available():
        print(f"attacks: no data sets in {DATA}; nothing is measured")
        return []
    torch.set_num_threads(1)
    bare, summed = (inverted("mnist", view, 0).eight for view in (VIEWS[0], VIEWS[2]))
    return [
        Figure("rows found in a bare update of 8", bare.recovered, ""),
        Figure("rows found in a masked sum of 8 such", summed.recovered, ""),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="seeds (1)")
    parser.add_argument("--only", choices=("inversion", "membership"), help="one kind of attack")
    options = parser.parse_args()
    names = options.names or NAMES
    if set(names) - set(NAMES):
        parser.error(f"no such set; there are {', '.join(NAMES)}")
    if missing():
        return 2
    torch.set_num_threads(1)
    began = time.monotonic()
    for kind, table in (("inversion", inversion_table), ("membership", membership_table)):
        if options.only in (None, kind):
            table(names, options.seeds)
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
