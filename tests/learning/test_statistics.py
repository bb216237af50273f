"""Every statistic equals plain numpy on the pooled rows, to the fixed point's error, when what it
is made of goes through the code, a mask and the sum."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import BadUpdate, Malformed
from edgechoir.learning.fixed_point import Encoding, Figures, heaviest
from edgechoir.learning.statistics import bins, drift, evaluation
from edgechoir.learning.statistics.inquiry import (
    MEAN,
    SCALE,
    About,
    Asked,
    Model,
    Reply,
    counts,
    drifted,
    evaluate,
    fit_linear,
    histogram,
    mean,
    normalisation,
    quantiles,
)
from edgechoir.learning.statistics.local import statistic
from edgechoir.learning.statistics.packed import pack
from edgechoir.learning.task import Task, read_task
from edgechoir.types import Floats, Reals

T = TypeVar("T")
CLASSES = Model(3, ("no", "maybe", "yes"), classifies=True)
VALUES = Model(3, ("left", "right"), classifies=False)


@dataclass
class Site:
    """One device's rows: every fifth is held out."""

    x: Floats
    y: Reals
    said: Floats
    classifies: bool = True
    fresh: Floats | None = None
    fresh_said: Floats | None = None

    @property
    def outputs(self) -> int:
        return len(self.said[0])

    def _of(self, values: Reals, source: str) -> Reals:
        held = np.arange(len(values)) % 5 == 0
        whole: dict[str, Reals] = {
            "stored": values,
            "train": values[~held],
            "held_out": values[held],
        }
        return whole[source]

    def inputs(self, source: str) -> Floats:
        if source == "recent":
            assert self.fresh is not None
            return self.fresh
        return self._of(self.x, source).astype(np.float32)

    def labels(self, source: str) -> Reals:
        return self._of(self.y, source)

    def logits(self, source: str) -> Floats:
        if source == "recent":
            assert self.fresh_said is not None
            return self.fresh_said
        return self._of(self.said, source).astype(np.float32)

    def answers(self, source: str) -> tuple[Reals, Reals]:
        z = self.logits(source).astype(np.float64)
        if not self.classifies:
            return z, np.ones(len(z))
        p = np.exp(z - z.max(1, keepdims=True))
        return z.argmax(1).astype(np.float64), p.max(1) / p.sum(1)


@dataclass
class Federation:
    """Sites whose parts are encoded, masked with pads that cancel, summed and decoded."""

    sites: Sequence[Site]
    rounds: list[Asked] = field(default_factory=list)

    def answer(self, inquiry: Generator[Asked, Reply, T]) -> T:
        numbers = np.random.default_rng(7)
        try:
            asked = next(inquiry)
            while True:
                self.rounds.append(asked)
                asked = inquiry.send(self._round(asked, numbers))
        except StopIteration as done:
            value: T = done.value
            return value

    def _round(self, asked: Asked, numbers: np.random.Generator) -> Reply:
        task = read_task(asked.task.encode())
        most = min(asked.most, heaviest(len(self.sites), 32))
        encoding = Encoding(asked.dimension, len(self.sites), 1.0, most)
        total = np.zeros(encoding.length, np.uint32)
        pads = [
            numbers.integers(0, 2**32, encoding.length, np.uint32) for _ in range(len(self.sites))
        ]
        for i, site in enumerate(self.sites):
            found, n = statistic(task, site)
            part = found.astype(np.float32)
            assert np.abs(part).max() <= 1 + 1e-6
            noise = numbers.integers(0, 2**32, asked.dimension, np.uint32)
            vector = encoding.encode(part, n, Figures(), noise)
            total += vector + pads[i] - pads[i - 1]
        decoded = encoding.decode(total)
        return Reply(decoded.delta, decoded.samples, decoded.devices)


def federation(seed: int, sizes: Sequence[int], *, classifies: bool = True) -> Federation:
    numbers = np.random.default_rng(seed)
    sites = []
    for i, n in enumerate(sizes):
        x = numbers.normal([5 * i, 1e4, -1e-3], [1, 300 * (i + 1), 1e-4], (n, 3))
        said = numbers.normal(0, 1, (n, 3 if classifies else 2)).astype(np.float32)
        y: Reals = numbers.integers(0, 3, n).astype(np.float64)
        if not classifies:
            y = 100 + 10 * said + numbers.normal(0, 3, said.shape)
            said = (100 + 10 * said).astype(np.float32)
        sites.append(Site(x.astype(np.float32), y, said, classifies))
    return Federation(sites)


def pooled(f: Federation, what: str) -> Any:
    return np.concatenate([getattr(site, what) for site in f.sites]).astype(np.float64)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 200), min_size=1, max_size=6))
def test_mean_and_deviation_are_those_of_the_pooled_rows(seed: int, sizes: list[int]) -> None:
    f = federation(seed, sizes)
    x = pooled(f, "x")
    found = f.answer(mean(CLASSES, About()))
    assert (found["samples"], found["devices"]) == (len(x), len(sizes))
    for j, column in enumerate(found["columns"]):
        size = np.abs(x[:, j]).max()
        assert column["mean"] == pytest.approx(x[:, j].mean(), abs=2e-6 * size)
        assert column["variance"] == pytest.approx(x[:, j].var(), abs=1e-5 * size**2)
        assert column["missing"] == pytest.approx(0, abs=1e-7)


def test_a_missing_value_counts_for_nothing_in_its_column_alone() -> None:
    f = federation(1, [80, 50])
    f.sites[0].x[::3, 1] = np.nan
    f.sites[1].x[::2, 1] = np.nan
    x = pooled(f, "x")
    found = f.answer(mean(CLASSES, About()))
    assert found["columns"][1]["missing"] == pytest.approx(np.isnan(x[:, 1]).mean(), abs=1e-5)
    assert found["columns"][1]["mean"] == pytest.approx(np.nanmean(x[:, 1]), rel=1e-5)
    assert found["columns"][1]["deviation"] == pytest.approx(np.nanstd(x[:, 1]), rel=1e-3)
    assert found["columns"][0]["mean"] == pytest.approx(x[:, 0].mean(), rel=1e-5)


def test_a_column_that_nobody_has_is_refused() -> None:
    f = federation(1, [8, 5])
    for site in f.sites:
        site.x[:, 2] = np.nan
    with pytest.raises(BadUpdate, match=r"columns \[2\]"):
        f.answer(mean(CLASSES, About()))


def test_normalisation_is_of_the_rows_that_are_trained_on() -> None:
    f = federation(3, [200, 100])
    found = f.answer(normalisation(CLASSES))
    x = np.concatenate([site.inputs("train") for site in f.sites]).astype(np.float64)
    assert found[MEAN] == pytest.approx(x.mean(0), rel=1e-4)
    assert found[SCALE] == pytest.approx(1 / x.std(0), rel=1e-2)
    assert len(f.rounds) == 2


def test_a_constant_column_is_moved_and_not_blown_up() -> None:
    f = federation(3, [20, 10])
    for site in f.sites:
        site.x[:, 0] = 7.25
    found = f.answer(normalisation(CLASSES))
    assert found[MEAN][0] == pytest.approx(7.25, abs=1e-5)
    assert found[SCALE][0] == 1


def test_the_range_of_the_first_round_encloses_every_value() -> None:
    extremes = np.array([[0, 1e-38, -3e38, 3.4e38, 1, -1, 4, 1e-12, np.nan]], np.float32).T
    low, high = bins.range_of(bins.spread_of(extremes))
    assert low[0] <= -3e38
    assert high[0] >= np.float32(3.4e38)
    low, high = bins.range_of(bins.spread_of(np.array([[4.0], [1.0]])))
    assert (low[0], high[0]) == (1, 16)


def test_classes_are_counted() -> None:
    f = federation(4, [70, 31, 9])
    found = f.answer(counts(CLASSES, About()))
    expected = np.bincount(pooled(f, "y").astype(int), minlength=3)
    assert [c["rows"] for c in found["classes"]] == expected.tolist()
    with pytest.raises(BadUpdate, match="quantities"):
        f.answer(counts(VALUES, About()))


def test_a_histogram_counts_the_pooled_rows() -> None:
    f = federation(5, [70, 31, 9])
    found = f.answer(histogram(CLASSES, About(columns=(0,)), 12, -5.0, 15.0))
    x = pooled(f, "x")[:, 0]
    expected, _ = np.histogram(x, np.r_[-np.inf, np.linspace(-5, 15, 13)[1:-1], np.inf])
    shares = np.array(found["columns"][0]["shares"])
    assert shares * len(x) == pytest.approx(expected, abs=0.01)
    assert len(f.rounds) == 1
    found = f.answer(histogram(CLASSES, About(), 12, None, None))
    assert [sum(c["shares"]) for c in found["columns"]] == pytest.approx([1, 1, 1], abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_quantiles_are_within_the_width_that_is_stated(seed: int) -> None:
    f = federation(seed, [211, 98, 304])
    found = f.answer(quantiles(CLASSES, About(), (0.1, 0.5, 0.93)))
    x = pooled(f, "x")
    for j, column in enumerate(found["columns"]):
        # The slack of a border may cost one row on either side.
        n = len(x)
        for level, value, width in zip(
            (0.1, 0.5, 0.93), column["quantiles"], column["within"], strict=True
        ):
            ordered = np.sort(x[:, j])
            lower = ordered[max(int(np.floor(level * n)) - 2, 0)]
            upper = ordered[min(int(np.ceil(level * n)) + 1, n - 1)]
            assert lower - width <= value <= upper + width
            assert width < 0.01 * np.abs(x[:, j]).max()


def test_an_evaluation_has_the_pooled_confusion_loss_and_auc() -> None:
    f = federation(6, [300, 200])
    found = f.answer(evaluate(CLASSES, About("held_out")))
    y = np.concatenate([s.labels("held_out") for s in f.sites]).astype(int)
    z = np.concatenate([s.logits("held_out") for s in f.sites]).astype(np.float64)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    assert found["samples"] == len(y)
    assert found["accuracy"] == pytest.approx((z.argmax(1) == y).mean(), abs=1e-4)
    assert found["loss"] == pytest.approx(-np.log(p[np.arange(len(y)), y]).mean(), abs=1e-4)
    for c in range(3):
        own, others = p[y == c, c], p[y != c, c]
        exact = np.mean(own[:, None] > others) + np.mean(own[:, None] == others) / 2
        assert found["auc"][c] == pytest.approx(exact, abs=0.01)
        for said in range(3):
            exact = np.mean((y == c) & (z.argmax(1) == said))
            assert found["confusion"][c][said] == pytest.approx(exact, abs=1e-4)


def test_an_evaluation_of_quantities_has_the_pooled_errors() -> None:
    f = federation(6, [300, 200], classifies=False)
    found = f.answer(evaluate(VALUES, About("held_out")))
    y = np.concatenate([s.labels("held_out") for s in f.sites])
    error = np.concatenate([s.logits("held_out") for s in f.sites]) - y
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-3)
    assert found["mae_by_output"] == pytest.approx(np.abs(error).mean(0), rel=1e-3)
    assert found["r2_by_output"] == pytest.approx(1 - (error**2).mean(0) / y.var(0), abs=1e-3)


def test_without_rows_of_a_class_there_is_no_auc() -> None:
    part = evaluation.classified(np.zeros(9), np.random.default_rng(0).normal(size=(9, 2)))
    found = evaluation.read_classified(part, 2)
    assert found["auc"] == [None, None]
    assert found["recall"] == [found["accuracy"], None]


@pytest.mark.parametrize("ridge", [1e-4, 0.5])
def test_a_linear_model_is_the_ridge_regression_of_the_pooled_rows(ridge: float) -> None:
    f = federation(8, [300, 200], classifies=False)
    for site in f.sites:
        site.y = site.y + np.stack([site.x[:, 0], site.x[:, 1] / 100], 1)
    found = f.answer(fit_linear(VALUES, About(), ridge))
    x, y = pooled(f, "x"), pooled(f, "y")
    z = (x - x.mean(0)) / x.std(0)
    w = np.linalg.solve(z.T @ z / len(z) + ridge * np.eye(3), z.T @ (y - y.mean(0)) / len(z))
    predicted = x @ np.array(found["weights"]).T + found["bias"]
    assert predicted == pytest.approx(z @ w + y.mean(0), abs=2e-3 * np.abs(y).max())
    left = ((z @ w + y.mean(0) - y) ** 2).mean(0)
    assert found["r2"] == pytest.approx(1 - left / y.var(0), abs=1e-3)


def test_a_linear_classifier_answers_as_the_pooled_one() -> None:
    f = federation(9, [300, 200])
    for site in f.sites:
        site.y = (site.x[:, 0] > 2).astype(np.float64) + (site.x[:, 0] > 4)
    found = f.answer(fit_linear(CLASSES, About(), 1e-3))
    x, y = pooled(f, "x"), pooled(f, "y")
    scores = x @ np.array(found["weights"]).T + found["bias"]
    z = (x - x.mean(0)) / x.std(0)
    b = np.eye(3)[y.astype(int)]
    w = np.linalg.solve(z.T @ z / len(z) + 1e-3 * np.eye(3), z.T @ (b - b.mean(0)) / len(z))
    agree = (scores.argmax(1) == (z @ w + b.mean(0)).argmax(1)).mean()
    assert agree > 0.99


def test_columns_that_do_not_determine_a_model_are_refused() -> None:
    f = federation(9, [60, 30])
    for site in f.sites:
        site.x[:, 2] = site.x[:, 0] * 2
    with pytest.raises(BadUpdate, match="larger ridge"):
        f.answer(fit_linear(CLASSES, About(), 0.0))
    assert f.answer(fit_linear(CLASSES, About(), 0.1))["condition"] < 100


def test_drift_is_found_in_the_column_that_moved() -> None:
    f = federation(10, [900, 700])
    for site in f.sites:
        site.fresh = site.x[::2].copy()
        site.fresh_said = site.said[::2]
    still = f.answer(drifted(CLASSES, About()))
    assert {c["drift"] for c in still["columns"]} == {"none"}
    assert {a["drift"] for a in still["answers"]} == {"none"}
    for site in f.sites:
        assert site.fresh is not None
        assert site.fresh_said is not None
        site.fresh[:, 1] += 900
        site.fresh_said = np.roll(site.fresh_said, 1, 1) * 3
    moved = f.answer(drifted(CLASSES, About()))
    assert [c["drift"] for c in moved["columns"]] == ["none", "large", "none"]
    assert moved["answers"][1]["drift"] == "large"
    assert moved["samples"] == 800


def test_a_sensor_that_fails_is_a_drift() -> None:
    f = federation(11, [500, 400])
    for site in f.sites:
        site.fresh, site.fresh_said = site.x.copy(), site.said
        site.fresh[::2, 0] = np.nan
    assert f.answer(drifted(CLASSES, About(columns=(0,))))["columns"][0]["drift"] == "large"


def test_the_divergence_is_zero_for_equals_and_one_bit_for_strangers() -> None:
    p, q = np.array([0.2, 0.8, 0, 0]), np.array([0, 0, 0.5, 0.5])
    assert drift.divergence(p, p) == pytest.approx(0)
    assert drift.divergence(p, q) == pytest.approx(1)
    assert drift.stability(p, p) == 0
    assert drift.stability(p, q) > drift.LARGE


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("spread", {"source": "elsewhere"}),
        ("spread", {"of": "z"}),
        ("spread", {"columns": [3]}),
        ("spread", {"columns": [True]}),
        ("spread", {"columns": "0"}),
        ("moments", {"center": pack(np.zeros(3, np.float32))}),
        (
            "moments",
            {"center": pack(np.zeros(3, np.float32)), "half": pack(np.zeros(3, np.float32))},
        ),
        ("moments", {"center": "?", "half": "?"}),
        ("histogram", {"bins": 1, "edges": ""}),
        ("histogram", {"bins": 10**9, "edges": ""}),
        ("histogram", {"bins": 3, "edges": pack(np.array([2, 1] * 3, np.float32))}),
        ("histogram", {"bins": 3, "edges": pack(np.full(6, np.nan, np.float32))}),
        ("gram", {}),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(kind: str, options: dict[str, Any]) -> None:
    site = federation(1, [10]).sites[0]
    with pytest.raises(Malformed):
        statistic(Task(kind, options), site)


def test_spaced_edges_follow_the_density_and_do_not_forget_the_tail() -> None:
    borders = np.linspace(0, 120, 481)[None]
    mass = np.diff(1 - np.exp(-borders / 10))  # an exponential distribution with mean 10
    dense, spaced = bins.refined(borders, mass, 32), bins.spaced(borders, mass, 32)
    assert (np.diff(spaced) >= 0).all()
    # Of exp(-x / 10) the cube root is exp(-x / 30); the edges are at quantiles of both by halves.
    e = spaced[0].astype(np.float64)
    by_root = (1 - np.exp(-e / 30)) / (1 - np.exp(-120 / 30))
    assert (1 - np.exp(-e / 10)) / 2 + by_root / 2 == pytest.approx(np.arange(1, 32) / 32, abs=2e-3)
    assert spaced[0, -1] > 2 * dense[0, -1]


def test_spaced_edges_part_two_values_however_near() -> None:
    borders = np.array([[-1e-12, 1e-12, 9.99e-4, 1.02e-3]])
    edges = bins.spaced(borders, np.array([[0.5, 0.0, 0.5]]), 8)
    assert len(set(bins.place(np.array([[0.0], [1e-3]]), edges)[:, 0])) == 2
