"""What a pipeline says of itself: totals for the status document, and a row for each step."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgechoir.pipeline.flow import Flow
from edgechoir.pipeline.node import Node
from edgechoir.pipeline.outlet import Outlet, OutletStats
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.stage import Reasons, StageStats


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """For status documents.

    `read` samples came of all sources, `dropped` counts by reason what the checks refused, `missed`
    what a model could not answer, and `source` what the sources themselves counted and how often
    they failed.
    """

    read: int
    answered: int
    missed: Mapping[str, int]
    dropped: Mapping[str, int]
    source: Mapping[str, int]
    stages: tuple[StageStats, ...]
    sinks: tuple[OutletStats, ...]
    store: OutletStats | None


@dataclass(frozen=True, slots=True)
class Row:
    """One source, step or sink: what it takes from, what went in and out, and its time.

    `mean_us` and `worst_us` are microseconds a sample (of a block: of the whole), `dropped` what a
    bounded queue lost, `waiting` what is in it now.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    taken: int
    given: int
    dead: Mapping[str, int]
    dropped: int
    waiting: int
    mean_us: float
    worst_us: float
    paused: bool


def stats_of(
    flow: Flow,
    nodes: Mapping[str, Node],
    outlets: Mapping[str, Outlet[Sample]],
    store: Outlet[Sample] | None,
    failures: Mapping[str, Reasons],
) -> PipelineStats:
    sources = [nodes[name].stage.stats() for name in flow.sources]
    models = [node.stage.stats() for node in nodes.values() if node.predictor is not None]
    steps = [node for node in nodes.values() if node.step is not None and node.predictor is None]
    counted: Counter[str] = Counter()
    for name, (source, _) in flow.sources.items():
        counted.update(source.counts)
        counted.update(failures[name].counts())
    return PipelineStats(
        read=sum(source.taken for source in sources),
        answered=sum(model.given for model in models),
        missed=_added(model.dead for model in models),
        dropped=_added(source.dead for source in sources),
        source=dict(counted),
        stages=tuple(node.stage.stats() for node in steps),
        sinks=tuple(outlet.stats() for outlet in outlets.values()),
        store=None if store is None else store.stats(),
    )


def rows_of(
    nodes: Mapping[str, Node], outlets: Mapping[str, Outlet[Sample]], store: Outlet[Sample] | None
) -> list[Row]:
    rows = [
        _outlet_row(node.outlet, node.inputs) if node.outlet is not None else _stage_row(node)
        for node in nodes.values()
    ]
    if store is not None:
        rows.append(_outlet_row(store, ()))
    return rows


def _stage_row(node: Node) -> Row:
    stats, relief = node.stage.stats(), node.relief
    return Row(
        stats.name,
        stats.kind,
        node.inputs,
        stats.taken,
        stats.given,
        stats.dead,
        0 if relief is None else relief.dropped,
        0 if relief is None else relief.waiting,
        round(stats.seconds / stats.taken * 1e6, 2) if stats.taken else 0.0,
        round(stats.worst * 1e6, 2),
        stats.paused,
    )


def _outlet_row(outlet: Outlet[Sample], inputs: tuple[str, ...]) -> Row:
    stats = outlet.stats()
    failed = sum(stats.failed.values())
    taken = stats.written + stats.dropped + failed + stats.waiting
    mean = round(stats.seconds / stats.written * 1e6, 2) if stats.written else 0.0
    return Row(
        stats.name,
        "sink",
        inputs,
        taken,
        stats.written,
        stats.failed,
        stats.dropped,
        stats.waiting,
        mean,
        round(stats.worst * 1e6, 2),
        outlet.paused,
    )


def _added(counts: Iterable[Mapping[str, int]]) -> Mapping[str, int]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    return dict(total)
