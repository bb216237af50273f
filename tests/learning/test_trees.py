"""Trees grown from encoded, masked and summed histograms are those of boosting on pooled rows."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import BadUpdate, LocalError
from edgechoir.learning.fixed_point import Encoding, Figures
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.trees import Trees
from edgechoir.learning.state import State
from edgechoir.learning.trees.forest import NEVER, Layout, at_level, scores_of
from edgechoir.learning.trees.grow import Terms, best, gradients, measured, part_of
from edgechoir.learning.trees.prepare import EDGES, REACH, START
from edgechoir.types import Floats, Reals

TWO = Layout(3, 2, classifies=True, trees=6, depth=3)
THREE = Layout(3, 3, classifies=True, trees=6, depth=2)
VALUES = Layout(3, 1, classifies=False, trees=5, depth=3)
LAYOUTS = {"two classes": TWO, "three classes": THREE, "values": VALUES}


@dataclass
class Grower:
    """Devices' rows, and a run of the rule over them."""

    layout: Layout
    sites: list[tuple[Floats, Reals]]
    rule: Trees
    state: State
    versions: list[Floats] = field(default_factory=list)

    def turn(self) -> None:
        """A round: parts are encoded, masked with pads that cancel, added and decoded."""
        numbers = np.random.default_rng(3)
        d, n = self.rule.coordinates(len(self.state.weights)), len(self.sites)
        clip, most = self.rule.weighing(1.0, 10, d, n, 32)
        encoding = Encoding(d, n, clip, most)
        total = np.zeros(encoding.length, np.uint32)
        pads = [numbers.integers(0, 2**32, encoding.length, np.uint32) for _ in range(n)]
        aux, task = self.state.aux, self.rule.task()
        w = self.state.weights.copy()
        self.layout.split(w).bias[:] = aux[START]
        for i, (x, y) in enumerate(self.sites):
            part = part_of(
                self.layout,
                w,
                x,
                y,
                aux[EDGES].reshape(self.layout.columns, -1),
                aux[REACH],
                task.get("step", -1),
                task.get("level", -1),
            )
            assert np.abs(part).max() <= 1
            noise = numbers.integers(0, 2**32, d, np.uint32)
            total += encoding.encode(part, len(x), Figures(), noise) + pads[i] - pads[i - 1]
        self.rule, self.state = self.rule.following(self.state, encoding.decode(total))
        self.versions.append(self.state.weights)

    def grow(self) -> Floats:
        while not self.rule.over():
            self.turn()
        return self.state.weights


def grower(layout: Layout, sizes: tuple[int, ...], *, pool: bool = False) -> Grower:
    numbers = np.random.default_rng(5)
    x = numbers.normal(size=(sum(sizes), 3)).astype(np.float32)
    x[numbers.random(x.shape) < 0.05] = np.nan
    signal = np.nan_to_num(x[:, 0] * 2 + np.abs(x[:, 1]), nan=-2.0)
    if layout.classifies:
        y = np.clip(np.floor(signal + 0.5), 0, layout.outputs - 1).astype(np.float64)
    else:
        y = (signal * 30 + 100)[:, None].astype(np.float64)
    cuts = np.cumsum(sizes)[:-1]
    whole = [(x, y)]
    sites = list(zip(np.split(x, cuts), np.split(y, cuts), strict=True))
    edges = np.nanquantile(x, np.arange(1, 16) / 16, axis=0).T.astype(np.float32)
    if layout.classifies:
        start, reach = np.zeros(layout.scores), np.ones(layout.scores)
    else:
        start, reach = y.mean(0), np.ptp(y, 0) * 2
    aux = {
        EDGES: edges.ravel(),
        START: start.astype(np.float32),
        REACH: reach.astype(np.float32),
    }
    rule = Trees(rate=0.3, min_rows=5, bins=16).of(layout)
    return Grower(layout, whole if pool else sites, rule, State(layout.bare(), aux))


@pytest.mark.parametrize("name", LAYOUTS)
def test_federated_trees_answer_as_those_of_the_pooled_rows(name: str) -> None:
    layout = LAYOUTS[name]
    apart, pooled = grower(layout, (120, 45, 200, 9)), grower(layout, (374,), pool=True)
    w, reference = apart.grow(), pooled.grow()
    x, y = pooled.sites[0]
    seen, expected = layout.sees(w, x), layout.sees(reference, x)
    spread = float(np.ptp(expected))
    # Two splits may be equally good, so a few rows may differ; the model must not.
    assert np.mean(np.abs(seen - expected).max(1) < 1e-3 * spread) > 0.97
    before = measured(layout, layout.bare(), x, y)
    after, reference_after = measured(layout, w, x, y), measured(layout, reference, x, y)
    assert after[1] == pytest.approx(reference_after[1], rel=0.02)
    assert after[1] < 0.7 * before[1]


def test_every_version_on_the_way_answers_and_half_a_tree_says_nothing() -> None:
    run = grower(TWO, (90, 60))
    x = run.sites[0][0]
    for level in range(TWO.depth):
        seen = TWO.sees(run.state.weights, x)
        assert np.isfinite(seen).all()
        if level:
            assert np.ptp(seen) == 0  # the bias alone
        run.turn()
    assert float(np.ptp(TWO.sees(run.state.weights, x))) > 0


def test_a_run_goes_on_from_what_it_remembers() -> None:
    straight, resumed = grower(TWO, (90, 60)), grower(TWO, (90, 60))
    w = straight.grow()
    for _ in range(4):
        resumed.turn()
    fresh = Trees(rate=0.3, min_rows=5, bins=16).of(TWO)
    assert (fresh.step, fresh.level) == (0, 0)
    resumed.rule = fresh.recall(resumed.rule.remember())
    assert (resumed.rule.step, resumed.rule.level) == (1, 1)
    assert np.array_equal(resumed.grow(), w)
    assert straight.rule.over() == "6 trees are grown"


def test_the_gradients_are_the_derivatives_of_the_loss() -> None:
    numbers = np.random.default_rng(0)
    step = 1e-5
    for layout in (TWO, THREE):
        s = numbers.normal(size=(7, layout.scores))
        y = numbers.integers(0, layout.outputs, 7).astype(np.float64)

        def loss(scores: Reals, layout: Layout = layout, y: Reals = y) -> Reals:
            z = np.concatenate([scores * 0, scores], 1) if layout.scores == 1 else scores
            z = z - z.max(1, keepdims=True)
            chosen: Reals = z[np.arange(7), y.astype(int)]
            loss: Reals = np.log(np.exp(z).sum(1)) - chosen
            return loss

        g, h = gradients(layout, s, y, np.ones(layout.scores))
        for k in range(layout.scores):
            e = np.zeros_like(s)
            e[:, k] = step
            slope = (loss(s + e) - loss(s - e)) / (2 * step)
            bend = (loss(s + e) - 2 * loss(s) + loss(s - e)) / step**2
            assert g[:, k] == pytest.approx(slope, abs=1e-6)
            assert h[:, k] == pytest.approx(bend, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 5), st.integers(1, 12))
def test_the_best_split_is_the_best_of_all(seed: int, l2: float, min_rows: int) -> None:
    numbers = np.random.default_rng(seed)
    sums = np.stack(
        [
            numbers.normal(size=(3, 6)),
            numbers.uniform(0, 2, (3, 6)),
            numbers.integers(0, 9, (3, 6)).astype(np.float64),
        ]
    )
    sums[:, 1:] *= sums.sum(2)[:, :1, None] / sums.sum(2)[:, 1:, None]  # every column has all rows
    terms = Terms(l2=l2, min_rows=min_rows)

    def worth(part: Reals) -> float:
        return float(part[0] ** 2 / max(part[1] + l2, 1e-3))

    gains = {
        (j, b): worth(left) + worth(right) - worth(left + right)
        for j in range(3)
        for b in range(5)
        if min((left := sums[:, j, : b + 1].sum(1))[2], (right := sums[:, j, b + 1 :].sum(1))[2])
        >= min_rows - 0.5
        and min(left[1], right[1]) >= 1e-3
    }
    found = best(sums, terms)
    if not gains or max(gains.values()) <= 1e-6:
        assert found is None
    else:
        assert found is not None
        assert gains[found.column, found.edge] == pytest.approx(max(gains.values()))
        assert found.left + found.right == pytest.approx(sums[:, 0].sum(1))


def test_rows_go_where_the_splits_say_and_missing_values_to_the_left() -> None:
    layout = Layout(2, 1, classifies=False, trees=1, depth=2)
    w = layout.bare()
    forest = layout.split(w)
    forest.features[0] = [0, 1, 1]
    forest.thresholds[0] = [1.0, 5.0, NEVER]
    forest.leaves[0] = [10, 20, 30, 40]
    x = np.array([[1, 5], [1, 6], [2, 9], [np.nan, np.nan], [np.inf, 0]], np.float32)
    assert at_level(forest, 0, x, 2).tolist() == [0, 1, 2, 0, 2]
    assert scores_of(layout, w, x)[:, 0].tolist() == [10, 20, 30, 10, 30]


def test_a_forest_that_gains_nothing_splits_nothing() -> None:
    run = grower(VALUES, (30, 30))
    run.sites = [(x, np.full_like(y, 100.0)) for x, y in run.sites]
    run.state = State(run.state.weights, {**run.state.aux, START: np.array([100], np.float32)})
    forest = VALUES.split(run.grow())
    assert (forest.thresholds == NEVER).all()
    assert np.abs(forest.leaves).max() < 1e-4


def test_a_sum_over_nothing_is_refused_and_so_is_a_rule_without_a_forest() -> None:
    run = grower(TWO, (30, 30))
    d = run.rule.coordinates(0)
    encoding = Encoding(d, 2, 1.0, 100)
    zero = encoding.encode(np.zeros(d, np.float32), 10, Figures(), np.zeros(d, np.uint32))
    with pytest.raises(BadUpdate, match="no row"):
        run.rule.following(run.state, encoding.decode(zero))
    with pytest.raises(LocalError):
        make_rule("trees", {}).coordinates(7)
