"""From a configuration to a running process of a tier: identity, state, link, state machines."""

import fcntl
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgechoir.bundle.load import load_bundle
from edgechoir.config.tiers import CloudConfig, DeviceConfig, EdgeCloudConfig, NodeConfig
from edgechoir.errors import OperatorError
from edgechoir.fleet.enrolment import Member, load_member
from edgechoir.identity.envelope import Signer, Verifier
from edgechoir.identity.gate import Gate
from edgechoir.monitor.status import MemberState, Status
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.aggregator import Aggregator, Limits
from edgechoir.rounds.endpoint import Endpoint, Outcome
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.participant import Participant, Policy
from edgechoir.rounds.schedule import Course, Schedule
from edgechoir.store.journal import RoundJournal
from edgechoir.store.samples import SampleStore
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.aggregator import AggregatorTier
from edgechoir.tiers.device import Device
from edgechoir.tiers.host import (
    MAX_BLOB,
    Host,
    Place,
    base_status,
    fatal_is_plain,
    new_instance,
)
from edgechoir.transport.link import Will
from edgechoir.transport.mqtt import MqttLink, MqttSettings, TlsFiles
from edgechoir.transport.topics import topic
from edgechoir.types import Address, MemberId

log: Final = logging.getLogger(__name__)

FOREVER: Final = 2**31
MAX_PEERS: Final = 256

TierConfig = DeviceConfig | NodeConfig | EdgeCloudConfig | CloudConfig


async def run_device(config: DeviceConfig) -> None:
    """Serve as a device until cancelled. Raises EdgechoirError."""
    bundle = load_bundle(config.model.bundle)
    manifest = bundle.manifest
    with _state(config.state):
        samples = SampleStore(
            config.state / "samples.db",
            manifest.input_shape,
            0 if manifest.task == "classification" else len(manifest.outputs),
            max_rows=config.sensor.store.rows,
            max_bytes=config.sensor.store.bytes,
        )
        versions = ModelVersions(config.state / "models.db")
        try:
            device = Device(config, bundle, samples, versions)
            async with _host(config, device.describe, device.handle) as host:
                device.host = host
                async with fatal_is_plain():
                    await device.run()
        finally:
            samples.close()
            versions.close()


async def run_aggregator(config: NodeConfig | EdgeCloudConfig | CloudConfig) -> None:
    """Serve as node, edge cloud or cloud until cancelled. Raises EdgechoirError."""
    with _state(config.state):
        versions = ModelVersions(config.state / "models.db")
        try:
            schedule = _schedule(config, versions) if isinstance(config, CloudConfig) else None
            tier = AggregatorTier(config, versions, schedule)
            async with _host(config, tier.describe, tier.handle) as host:
                tier.host = host
                async with fatal_is_plain():
                    await tier.run()
        finally:
            versions.close()


def _schedule(config: CloudConfig, versions: ModelVersions) -> Schedule:
    """The root's schedule, going on where an earlier process stopped."""
    rounds, training, update = config.rounds, config.training, config.update
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
        seed=int.from_bytes(os.urandom(4)),
    )
    kept = versions.latest()
    if kept is None:
        weights, version = load_bundle(config.model.bundle).params, 0
    else:
        weights, version = kept.params, kept.version
    journal = RoundJournal(config.state / "journal.db")
    try:
        last = journal.last_round(config.federation)
    finally:
        journal.close()
    return Schedule(course, np.array(weights, np.float32), version, last, done=version)


@asynccontextmanager
async def _host(
    config: TierConfig,
    describe: Callable[[], dict[str, Any]],
    handle: Callable[[Outcome], None],
) -> AsyncIterator[Host]:
    """Identity, journal, link and endpoint of a member, for the time of the block."""
    member = load_member(config.identity, time.time())
    _check_identity(config, member)
    instance = new_instance()
    place = Place(
        federation=config.federation,
        me=member.address,
        parent=parent_of(config),
        instance=instance,
        keep_alive=config.broker.keep_alive_s,
    )
    journal = RoundJournal(config.state / "journal.db")
    try:
        last = journal.last_round(config.federation)
        endpoint = Endpoint(
            _joint(config, member, place, last),
            Signer(member.key, member.certificate, instance),
            Verifier(member.root, config.federation, MAX_BLOB),
            Gate(MAX_PEERS),
            os.urandom,
        )
        async with link_of(config, member, place) as link:
            host = Host(place, link, endpoint, journal, describe, handle)
            try:
                yield host
            finally:
                await host.farewell()
    finally:
        journal.close()


def _joint(config: TierConfig, member: Member, place: Place, last_round: int) -> Joint:
    up = down = None
    if place.parent is not None and not isinstance(config, CloudConfig):
        policy = Policy(config.update.min_cohort, config.update.max_clip)
        me = participant.Self(
            config.federation,
            place.me,
            place.parent,
            member.key,
            Verifier(member.root, config.federation, MAX_BLOB),
            policy,
        )
        up = Participant(me, last_round=last_round)
    if not isinstance(config, DeviceConfig):
        rounds = config.rounds
        limits = Limits(
            min_members=rounds.min_members,
            max_members=rounds.max_members,
            expected=rounds.expected_members or rounds.max_members,
            join_wait=rounds.join_wait_s,
        )
        us = aggregator.Self(
            config.federation,
            place.me,
            Verifier(member.root, config.federation, MAX_BLOB),
            limits,
        )
        down = Aggregator(us, last_round=last_round)
    return Joint(up, down)


def link_of(config: TierConfig, member: Member, place: Place) -> MqttLink:
    """The member's link, with a last will that says `lost`."""
    will = Status.model_validate(base_status(place, MemberState.LOST, time.time()))
    paths = member.paths
    return MqttLink(
        MqttSettings(
            config.broker.host,
            config.broker.port,
            str(place.me.member),
            place.instance,
            tls=TlsFiles(paths.ca, paths.certificate, paths.key),
            will=Will(str(topic(place.federation, place.me, "status")), will.to_json()),
            keepalive=config.broker.keep_alive_s,
        )
    )


def parent_of(config: TierConfig) -> Address | None:
    """The parent's address; its tier is the next one up unless `parent_tier` says another."""
    if isinstance(config, CloudConfig):
        return None
    return Address(config.parent_tier, MemberId(config.parent))


def _check_identity(config: TierConfig, member: Member) -> None:
    expected = f"{config.federation}/{config.tier}/{config.member}"
    seen = f"{member.certificate.federation}/{member.address}"
    if seen != expected:
        raise OperatorError(
            f"{config.identity} holds the identity of {seen}, the configuration is for "
            f"{expected}; point `identity` at the right directory"
        )


@contextmanager
def _state(directory: Path) -> Iterator[None]:
    """Hold the state directory for this process alone."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OperatorError(
                f"another process uses {directory}: stop it, or give this one a state directory "
                "of its own"
            ) from None
        yield
    finally:
        os.close(lock)
