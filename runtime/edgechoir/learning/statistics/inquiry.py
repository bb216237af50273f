"""A question to the federation, as the rounds that it takes.

Each inquiry is a generator: it yields what a round is to ask, is sent the mean over all rows, and
returns the answer as plain values for JSON. Nothing here knows of rounds, masks or networks.
"""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edgechoir.errors import BadUpdate
from edgechoir.learning.statistics import bins, drift, evaluation, linear
from edgechoir.learning.statistics.moments import PARTS, Moments, read_moments, standard
from edgechoir.learning.statistics.packed import pack
from edgechoir.learning.task import Option, Task
from edgechoir.types import Floats, Reals

MEAN, SCALE = "mean", "scale"
"""Vectors of the global state: what a model sees is (x - mean) * scale."""
SOURCES: Final = ("stored", "train", "held_out", "recent")
"""All stored samples, those trained on, those held out, or the latest that were inferred on."""
SUBJECTS: Final = ("x", "y", "answer", "confidence")
"""The inputs, the labels, what the model answers, and how sure it is of it."""
PLACED: Final = ("edges", "center", "half", "at", "size")
"""Options that only say where bins lie and how values are scaled: they follow from earlier rounds,
so an owner's approval of a task does not depend on them."""
QUANTILES: Final = (0.05, 0.25, 0.5, 0.75, 0.95)
NARROWINGS: Final = 3
INSIDE: Final = 12
DRIFT_BINS: Final = 10
MAX_SAMPLES: Final = 1_000_000
"""A device with more rows than this counts as one of so many."""
MAX_NUMBERS: Final = 11_000
"""Numbers in a task at most, so that it fits a plan."""


@dataclass(frozen=True, slots=True)
class Model:
    """What an inquiry must know of the model: input columns and the names of the outputs."""

    columns: int
    outputs: tuple[str, ...]
    classifies: bool


@dataclass(frozen=True, slots=True)
class About:
    """Which values are asked about; no columns stand for all of them."""

    source: str = "stored"
    of: str = "x"
    columns: tuple[int, ...] = ()

    def options(self) -> dict[str, Option]:
        """As a task has them."""
        return {"source": self.source, "of": self.of, "columns": list(self.columns)}

    def width(self, model: Model) -> int:
        """How many columns that is."""
        if self.of == "x":
            return len(self.columns) or model.columns
        return 1 if model.classifies or self.of == "confidence" else len(model.outputs)


@dataclass(frozen=True, slots=True)
class Asked:
    """One round: the task, and the coordinates of a device's part of it, all within [-1, 1].

    No device has more than `most` rows: the fewer, the finer is the fixed point.
    """

    task: Task
    dimension: int
    most: int = MAX_SAMPLES


@dataclass(frozen=True, slots=True)
class Reply:
    """The mean [d] over `samples` rows of `devices` devices."""

    mean: Reals
    samples: int
    devices: int


Inquiry = Generator[Asked, Reply, dict[str, Any]]


def task_hash(task: Task) -> str:
    """What an owner approves: SHA-256 of the task without what follows from earlier rounds."""
    lasting = {k: v for k, v in task.options.items() if k not in PLACED}
    return hashlib.sha256(Task(task.kind, lasting).encode()).hexdigest()


def by_magnitude(model: Model, about: About) -> Generator[Asked, Reply, tuple[Reals, Reply]]:
    f = about.width(model)
    reply = yield Asked(Task("spread", about.options()), f * (bins.SPREAD + 1))
    return reply.mean.reshape(f, bins.SPREAD + 1), reply


def most_rows(reply: Reply) -> int:
    """No device has more rows than all of them, as far as they were counted."""
    return min(2 * reply.samples, MAX_SAMPLES)


def counted(
    about: About, edges: Reals, most: int = MAX_SAMPLES, kind: str = "histogram"
) -> Generator[Asked, Reply, tuple[Reals, Reply]]:
    """Shares [f, b + 1] in the bins between inner edges [f, b - 1]; the last is missing values."""
    if edges.size > MAX_NUMBERS:
        raise BadUpdate(
            f"{len(edges)} columns of {edges.shape[1] + 1} bins are too many for one round, at "
            f"most {MAX_NUMBERS} edges: ask about fewer columns or with fewer bins"
        )
    options = {**about.options(), "bins": edges.shape[1] + 1, "edges": pack(edges)}
    f, b = len(edges), edges.shape[1] + 2
    reply = yield Asked(Task(kind, options), f * b, most)
    return reply.mean.reshape(f, b), reply


def moments(
    model: Model, about: About
) -> Generator[Asked, Reply, tuple[Moments, Reals, Reals, Reply]]:
    """Mean and variance in two rounds, and the scaling (center [f], half [f]) that holds all."""
    spread, first = yield from by_magnitude(model, about)
    low, high = bins.range_of(spread)
    center = ((low + high) / 2).astype(np.float32)
    # A little wider, for float32 may have rounded the center; never zero.
    half = ((high - low) / 2 * (1 + 1e-6)).clip(1e-30, bins.LARGEST / 2).astype(np.float32)
    options = {**about.options(), "center": pack(center), "half": pack(half)}
    f = about.width(model)
    reply = yield Asked(Task("moments", options), f * PARTS, most_rows(first))
    return read_moments(reply.mean.reshape(f, PARTS), center, half), center, half, reply


def normalisation(model: Model) -> Generator[Asked, Reply, dict[str, Floats]]:
    """MEAN [f] and SCALE [f], 1 / deviation, of the rows to learn from: two rounds."""
    found, _, _, _ = yield from moments(model, About("train"))
    center, scale = standard(found)
    return {MEAN: center, SCALE: scale}


def mean(model: Model, about: About) -> Inquiry:
    """Mean, deviation and missing share of each column: two rounds."""
    found, _, half, reply = yield from moments(model, about)
    names = _names(model, about)
    rows = [
        {
            "column": name,
            "mean": float(found.mean[j]),
            "deviation": float(found.deviation[j]),
            "variance": float(found.variance[j]),
            "missing": float(1 - found.present[j]),
            "precision": float(half[j] * 2.0**-24 / max(found.present[j], 1e-9)),
        }
        for j, name in enumerate(names)
    ]
    return _answer("mean", about, reply, columns=rows)


def counts(model: Model, about: About) -> Inquiry:
    """How many rows each class has: one round."""
    if not model.classifies:
        raise BadUpdate("the model's outputs are quantities, no classes: ask for a histogram of y")
    about = About(about.source, "y" if about.of == "x" else about.of)
    k = len(model.outputs)
    edges = (np.arange(1, k) - 0.5).astype(np.float32)[None]
    shares, reply = yield from counted(about, edges)
    rows = [
        {"class": name, "share": float(shares[0, c]), "rows": round(shares[0, c] * reply.samples)}
        for c, name in enumerate(model.outputs)
    ]
    return _answer("counts", about, reply, classes=rows)


def histogram(
    model: Model, about: About, count: int, low: float | None, high: float | None
) -> Inquiry:
    """`count` equal bins between low and high, or over the range found in a round before."""
    f, most = about.width(model), MAX_SAMPLES
    if low is None or high is None:
        spread, first = yield from by_magnitude(model, about)
        lows, highs = bins.range_of(spread)
        most = most_rows(first)
    else:
        lows, highs = np.full(f, low), np.full(f, high)
    edges = bins.linear_edges(lows, highs, count)
    shares, reply = yield from counted(about, edges, most)
    borders = bins.bordered(lows, edges, highs)
    rows = [
        {
            "column": name,
            "borders": borders[j].tolist(),
            "shares": shares[j, :-1].tolist(),
            "missing": float(shares[j, -1]),
        }
        for j, name in enumerate(_names(model, about))
    ]
    return _answer("histogram", about, reply, columns=rows)


def quantiles(model: Model, about: About, at: Sequence[float] = QUANTILES) -> Inquiry:
    """Each column's quantiles, between borders that three rounds narrow by twelve each."""
    levels = np.array(at, np.float64)
    spread, reply = yield from by_magnitude(model, about)
    low, high = bins.range_of(spread)
    borders: Reals = bins.spread_borders(len(spread))
    mass = spread[:, :-1]
    for _ in range(NARROWINGS):
        edges = bins.narrowed(borders, mass, levels, INSIDE)
        shares, reply = yield from counted(about, edges, most_rows(reply))
        borders, mass = bins.bordered(low, edges, high), shares[:, :-1]
    values = bins.quantiles_of(borders, mass, levels)
    within = bins.widths_of(borders, mass, levels)
    rows = [
        {"column": name, "quantiles": values[j].tolist(), "within": within[j].tolist()}
        for j, name in enumerate(_names(model, about))
    ]
    return _answer("quantiles", about, reply, at=levels.tolist(), columns=rows)


def evaluate(model: Model, about: About) -> Inquiry:
    """The current model on rows held out: one round, or two for quantities."""
    k = len(model.outputs)
    options: dict[str, Option] = {"source": about.source}
    if model.classifies:
        size = evaluation.classified_size(k)
        reply = yield Asked(Task("evaluate", options), size)
        return _answer(
            "evaluate",
            About(about.source, "y"),
            reply,
            classes=list(model.outputs),
            **evaluation.read_classified(reply.mean, k),
        )
    of_y = About(about.source, "y")
    spread, first = yield from by_magnitude(model, of_y)
    low, high = bins.range_of(spread)
    center, half = ((low + high) / 2).astype(np.float32), ((high - low) / 2).astype(np.float32)
    options = {**options, "center": pack(center), "half": pack(half)}
    reply = yield Asked(Task("evaluate", options), 4 * k, most_rows(first))
    read = evaluation.read_regressed(reply.mean.reshape(k, 4), half.astype(np.float64))
    return _answer("evaluate", of_y, reply, outputs=list(model.outputs), **read)


def drifted(model: Model, about: About) -> Inquiry:
    """Recent inputs, answers and confidence against the stored samples: up to nine rounds."""
    then, now = About("stored", "x", about.columns), About("recent", "x", about.columns)
    rows, replies = yield from _drift_of(model, then, now, DRIFT_BINS)
    answers: list[dict[str, Any]] = []
    if model.classifies:
        k = len(model.outputs)
        edges = (np.arange(1, k) - 0.5).astype(np.float32)[None]
        before, _ = yield from counted(About("stored", "answer"), edges)
        after, _ = yield from counted(About("recent", "answer"), edges)
        answers.append({"of": "answers", **_index(before[0], after[0], *replies)})
        edges = (np.arange(1, DRIFT_BINS) / DRIFT_BINS).astype(np.float32)[None]
        before, _ = yield from counted(About("stored", "confidence"), edges)
        after, _ = yield from counted(About("recent", "confidence"), edges)
        answers.append({"of": "confidence", **_index(before[0], after[0], *replies)})
    else:
        then, now = About("stored", "answer"), About("recent", "answer")
        of_answers, _ = yield from _drift_of(model, then, now, DRIFT_BINS)
        answers += [{**row, "of": f"answer {row['column']}"} for row in of_answers]
    before_, after_ = replies
    return _answer(
        "drift",
        About("recent", "x", about.columns),
        after_,
        reference_samples=before_.samples,
        by_chance=drift.by_chance(DRIFT_BINS, before_.samples, after_.samples),
        columns=rows,
        answers=answers,
    )


def _drift_of(
    model: Model, then: About, now: About, count: int
) -> Generator[Asked, Reply, tuple[list[dict[str, Any]], tuple[Reply, Reply]]]:
    """Between bins of equal mass of the reference."""
    spread, first = yield from by_magnitude(model, then)
    low, high = bins.range_of(spread)
    borders: Reals = bins.spread_borders(len(spread))
    mass = spread[:, :-1]
    fine = max(min(8 * count, MAX_NUMBERS // len(mass)), count)
    edges = bins.refined(borders, mass, fine)
    shares, _ = yield from counted(then, edges, most_rows(first))
    edges = bins.refined(bins.bordered(low, edges, high), shares[:, :-1], count)
    before, first = yield from counted(then, edges, most_rows(first))
    after, second = yield from counted(now, edges)
    rows = [
        {"column": name, **_index(before[j], after[j], first, second)}
        for j, name in enumerate(_names(model, then))
    ]
    return rows, (first, second)


def _index(before: Reals, after: Reals, first: Reply, second: Reply) -> dict[str, Any]:
    """Missing values are a bin like the others: sensors that fail are a drift too."""
    index = float(drift.stability(before, after))
    excess = index - drift.by_chance(len(before) - 1, first.samples, second.samples)
    return {
        "stability_index": index,
        "divergence_bits": float(drift.divergence(before, after)),
        "drift": drift.word(excess),
        "before": before.tolist(),
        "after": after.tolist(),
    }


def fit_linear(model: Model, about: About, ridge: float) -> Inquiry:
    """A ridge regression of the labels on the inputs: three rounds, four for quantities."""
    columns = About(about.source, "x", about.columns)
    found, low_center, half, first = yield from moments(model, columns)
    # Around the mean, which a missing value is taken to be; wide enough for the same range.
    center = found.mean.astype(np.float32)
    half = (half + np.abs(center - low_center)).astype(np.float32)
    f, k = about.width(model), len(model.outputs)
    options = {**columns.options(), "center": pack(center), "half": pack(half)}
    at, size = np.zeros(k, np.float32), np.ones(k, np.float32)
    if not model.classifies:
        spread, _ = yield from by_magnitude(model, About(about.source, "y"))
        low, high = bins.range_of(spread)
        at = ((low + high) / 2).astype(np.float32)
        size = ((high - low) / 2).astype(np.float32)
        options = {**options, "at": pack(at), "size": pack(size)}
    reply = yield Asked(Task("gram", options), linear.coordinates(f, k), most_rows(first))
    solved = linear.solve(reply.mean, f, k, ridge)
    wide = [v.astype(np.float64) for v in (center, half, at, size)]
    fitted = linear.in_units(solved, *wide)
    return _answer(
        "linear",
        columns,
        reply,
        outputs=list(model.outputs),
        ridge=ridge,
        condition=fitted.condition,
        weights=fitted.weights.tolist(),
        bias=fitted.bias.tolist(),
        r2=fitted.r2.tolist(),
    )


def _names(model: Model, about: About) -> list[str]:
    if about.of == "x":
        return [f"x{j}" for j in about.columns or range(model.columns)]
    if about.width(model) == 1:
        return [about.of]
    return [f"{about.of} {name}" for name in model.outputs]


def _answer(kind: str, about: About, reply: Reply, **found: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        "source": about.source,
        "of": about.of,
        "samples": reply.samples,
        "devices": reply.devices,
        **found,
    }
