"""The process of a tier with children: node, edge cloud or cloud."""

import os
from typing import Final

import numpy as np

from edgechoir.bundle.load import load_bundle
from edgechoir.config.tiers import CloudConfig, EdgeCloudConfig, NodeConfig
from edgechoir.errors import OperatorError
from edgechoir.rounds.schedule import Course, Schedule
from edgechoir.store.journal import RoundJournal
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.aggregator import AggregatorTier
from edgechoir.tiers.host import fatal_is_plain
from edgechoir.tiers.process import OpenLink, host_of, link_of, state_held

FOREVER: Final = 2**31


async def run_aggregator(
    config: NodeConfig | EdgeCloudConfig | CloudConfig, open_link: OpenLink = link_of
) -> None:
    """Serve as node, edge cloud or cloud until cancelled. Raises EdgechoirError."""
    with state_held(config.state):
        versions = ModelVersions(config.state / "models.db")
        try:
            schedule = _schedule(config, versions) if isinstance(config, CloudConfig) else None
            tier = AggregatorTier(config, versions, schedule)
            async with host_of(config, tier.describe, tier.handle, open_link) as host:
                tier.host = host
                async with fatal_is_plain():
                    await tier.run()
        finally:
            versions.close()


def _schedule(config: CloudConfig, versions: ModelVersions) -> Schedule:
    """The root's schedule, going on where an earlier process stopped."""
    rounds, training, update = config.rounds, config.training, config.update
    bundle = load_bundle(config.model.bundle)
    classifies = bundle.manifest.task == "classification"
    if rounds.target_accuracy is not None and not classifies:
        raise OperatorError(
            f"{bundle.manifest.name} is a {bundle.manifest.task}: it has no accuracy to reach; "
            "leave rounds.target_accuracy out, and stop it by rounds or patience"
        )
    course = Course(
        rounds=rounds.rounds or FOREVER,
        deadline=rounds.deadline_s,
        pause=rounds.pause_s,
        target_accuracy=rounds.target_accuracy,
        patience=rounds.patience,
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=training.learning_rate,
        clip=update.clip,
        max_samples=update.max_samples,
        bits=update.ring_bits,
        seed=int.from_bytes(os.urandom(4)),
        classifies=classifies,
    )
    kept = versions.latest()
    if kept is None:
        weights, version = bundle.params[: bundle.manifest.shared], 0
    else:
        weights, version = kept.params, kept.version
    journal = RoundJournal(config.state / "journal.db")
    try:
        last = journal.last_round(config.federation)
    finally:
        journal.close()
    return Schedule(course, np.array(weights, np.float32), version, last, done=version)
