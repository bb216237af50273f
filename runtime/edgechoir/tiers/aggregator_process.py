"""The process of a tier with children: node, edge cloud or cloud."""

import json
import math
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import numpy as np

from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.manifest import Preprocessing
from edgechoir.config.tiers import CloudConfig, EdgeCloudConfig, NodeConfig
from edgechoir.errors import OperatorError
from edgechoir.learning.rules.distil import Distil
from edgechoir.learning.rules.rule import Rule
from edgechoir.learning.rules.trees import Trees
from edgechoir.learning.state import State
from edgechoir.learning.statistics.inquiry import MEAN, Asked, Model, Reply, normalisation
from edgechoir.learning.trees.prepare import EDGES
from edgechoir.learning.trees.prepare import preparation as trees_preparation
from edgechoir.rounds.schedule import Schedule
from edgechoir.rounds.watch import Best, Watch
from edgechoir.store.journal import RoundJournal
from edgechoir.store.rounds import NAME as ROUNDS_NAME
from edgechoir.store.rounds import RoundHistory
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.aggregator import AggregatorTier
from edgechoir.tiers.base import recover
from edgechoir.tiers.course import course_of, rule_of
from edgechoir.tiers.host import fatal_is_plain
from edgechoir.tiers.local_calls import serving
from edgechoir.tiers.models import ROUNDS_DONE, aux_of, latest, memory_of
from edgechoir.tiers.process import OpenLink, TierConfig, host_of, link_of, state_held
from edgechoir.tiers.queries import Desk as QueryDesk
from edgechoir.tiers.tuning import Desk as TuningDesk
from edgechoir.types import Floats


async def run_aggregator(
    config: NodeConfig | EdgeCloudConfig | CloudConfig, open_link: OpenLink = link_of
) -> None:
    """Serve as node, edge cloud or cloud until cancelled. Raises EdgechoirError."""
    with state_held(config.state):
        bundle = load_bundle(config.model.bundle) if isinstance(config, CloudConfig) else None
        versions = versions_of(config.state, bundle)
        history = None
        try:
            schedule = subject = preparation = None
            if isinstance(config, CloudConfig) and bundle is not None:
                schedule, subject = _schedule(config, bundle, versions), subject_of(bundle)
                preparation = preparation_for(schedule.rule, subject)
                history = RoundHistory(config.state / ROUNDS_NAME)
                history.set_to(settings_of(config, bundle))
            tier = AggregatorTier(config, versions, schedule, subject, preparation, history)
            async with host_of(config, tier.describe, tier.handle, open_link) as host:
                tier.host = host
                async with fatal_is_plain(), _asked(config, bundle, tier):
                    await tier.run()
        finally:
            versions.close()
            if history is not None:
                history.close()


def settings_of(config: CloudConfig, bundle: Bundle) -> bytes:
    """What a run is set to, for its report: JSON, sections of settings by their names."""
    manifest = bundle.manifest
    model = {"name": manifest.name, "task": manifest.task, "parameters": len(bundle.params)}
    names = ("rule", "training", "rounds", "update", "privacy")
    sections = config.model_dump(mode="json", include=set(names), exclude_none=True)
    document = {"federation": config.federation, "model": model}
    return json.dumps({**document, **{n: sections[n] for n in names if n in sections}}).encode()


def versions_of(state: Path, bundle: Bundle | None) -> ModelVersions:
    """The versions that a tier keeps; the best of them, where it has the bundle, by its metric."""
    metric = "accuracy" if bundle is None else bundle.manifest.metric
    path = state / "models.db"
    return ModelVersions(path, metric=metric, higher_is_better=metric == "accuracy")


@asynccontextmanager
async def _asked(
    config: TierConfig, bundle: Bundle | None, tier: AggregatorTier
) -> AsyncIterator[None]:
    """(root) Take queries and trials at the control socket meanwhile."""
    if not isinstance(config, CloudConfig) or bundle is None or tier.subject is None:
        yield
        return
    handlers = {"tune": TuningDesk(config, bundle, tier).tune}
    if config.queries.enabled:
        record = tier.host.account.audit.record
        desk = QueryDesk(config.queries, tier.subject, tier.ask, tier.devices, record)
        handlers["query"] = desk.query
    async with serving(config.state, handlers, "edgechoir query and tune"):
        yield


def subject_of(bundle: Bundle) -> Model:
    """What is known of the model to whoever asks about its federation."""
    manifest = bundle.manifest
    return Model(manifest.input_shape[-1], manifest.outputs, manifest.task == "classification")


def preparation_for(
    rule: Rule, subject: Model
) -> Callable[[], Generator[Asked, Reply, dict[str, Floats]]]:
    """What is asked before the first round of a run that waits."""
    if isinstance(rule, Trees):
        return partial(trees_preparation, subject, rule.bins)
    return partial(normalisation, subject)


def _schedule(config: CloudConfig, bundle: Bundle, versions: ModelVersions) -> Schedule:
    """The root's schedule, going on where an earlier process stopped."""
    training = config.training
    rule, course = rule_of(config, bundle), course_of(config, bundle)
    recover(config.state, versions)
    kept = latest(versions)
    if kept is None:
        first = State(np.array(bundle.params[: bundle.manifest.shared], np.float32))
        state, version = rule.first() if isinstance(rule, Distil) else first, 0
    else:
        state, version = State(kept.weights, kept.aux), kept.version
        rule = rule.recall(memory_of(versions))
    begun = MEAN in state.aux or EDGES in state.aux
    waits = (training.normalise or isinstance(rule, Trees)) and not begun
    if waits and training.normalise and bundle.manifest.preprocessing != Preprocessing():
        raise OperatorError(
            f"{bundle.manifest.name} moves or scales its samples itself; leave "
            "training.normalise out, or offset and scale out of the model file"
        )
    if waits and training.normalise and version:
        raise OperatorError(
            f"model version {version} was trained without training.normalise; leave it out, or "
            f"begin anew with an empty {config.state}"
        )
    journal = RoundJournal(config.state / "journal.db")
    try:
        last = journal.last_round(config.federation)
    finally:
        journal.close()
    # A version kept by an earlier program does not say it; the one that brought what was asked
    # before came of no training.
    known = memory_of(versions).get(ROUNDS_DONE)
    done = (max(version - 1, 0) if begun else version) if known is None else int(known[0])
    watch = watch_of(versions)
    return Schedule(course, state, rule, version, last, done=done, waits=waits, watch=watch)


def watch_of(versions: ModelVersions) -> Watch:
    """What an earlier process knew of the best version."""
    kept = versions.best()
    if kept is None:
        return Watch()
    loss, accuracy = kept.metrics.get("loss"), kept.metrics.get("accuracy")
    lowest = min(figures.get("loss", math.inf) for _, figures, _ in versions.history())
    return Watch(Best(kept.version, State(kept.params, aux_of(kept)), loss, accuracy), lowest)
