"""From a configuration to the parts of a running process: identity, journal, link, endpoint."""

import asyncio
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from edgechoir import __version__
from edgechoir.config.tiers import (
    CloudConfig,
    DeviceConfig,
    EdgeCloudConfig,
    MonitorConfig,
    NodeConfig,
)
from edgechoir.errors import OperatorError
from edgechoir.fleet.audit import Audit
from edgechoir.fleet.audit_files import DIRECTORY, AuditFiles, Bounds
from edgechoir.fleet.enrolment import Member, endpoint_of, load_member
from edgechoir.identity.envelope import Signer, Verifier
from edgechoir.identity.gate import Gate
from edgechoir.identity.policy import Policy
from edgechoir.monitor.status import MemberState, Status
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.aggregator import Aggregator, Limits
from edgechoir.rounds.endpoint import Endpoint, Outcome
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.participant import Participant
from edgechoir.store.journal import RoundJournal
from edgechoir.tiers.account import Account
from edgechoir.tiers.host import MAX_BLOB, Host
from edgechoir.tiers.place import Place, base_status, new_instance
from edgechoir.tiers.processor import keystream_of, processor_features
from edgechoir.tiers.upkeep import Upkeep
from edgechoir.transport.link import Link, Will
from edgechoir.transport.mqtt import MqttLink, MqttSettings, TlsFiles
from edgechoir.transport.topics import topic
from edgechoir.types import Address, MemberId

MAX_PEERS: Final = 256

TierConfig = DeviceConfig | NodeConfig | EdgeCloudConfig | CloudConfig
OpenLink = Callable[[TierConfig, Member, Will], AbstractAsyncContextManager[Link]]
"""Makes a member's link: over MQTT, or within one process."""


@asynccontextmanager
async def host_of(
    config: TierConfig,
    describe: Callable[[], dict[str, Any]],
    handle: Callable[[Outcome], None],
    open_link: OpenLink,
) -> AsyncIterator[Host]:
    """Identity, journal, link and endpoint of a member, for the time of the block."""
    member = load_member(config.identity, time.time())
    check_identity(config, member)
    check_policy(config, member)
    instance = new_instance()
    place = Place(
        federation=config.federation,
        me=member.address,
        parent=parent_of(config),
        instance=instance,
        keep_alive=config.broker.keep_alive_s,
    )
    journal = RoundJournal(config.state / "journal.db")
    audit: Audit | None = None
    try:
        audit = audit_of(config, member)
        account = Account(audit)
        account.begin(instance, __version__, str(place.parent or "") or None, member.policy)
        verifier = Verifier(member.root, config.federation, MAX_BLOB)
        endpoint = Endpoint(
            _joint(config, member, place, journal, verifier),
            Signer(member.key, member.certificate, instance),
            verifier,
            Gate(MAX_PEERS),
            os.urandom,
        )
        async with open_link(config, member, will_of(place)) as link:
            host = Host(place, link, endpoint, journal, account, member.root, describe, handle)
            url = endpoint_of(config.identity, config.enrolment_url)
            host.upkeep = Upkeep(host, member, url)
            try:
                yield host
            finally:
                await host.farewell()
    finally:
        journal.close()
        if audit is not None:
            audit.record("stopped")
            await asyncio.to_thread(audit.close)


def audit_of(config: TierConfig, member: Member) -> Audit:
    """The member's audit log, in its state directory. Raises OperatorError."""
    bounds = Bounds(config.audit.file_bytes, config.audit.files)
    now = time.time()
    directory = config.state / DIRECTORY
    return Audit(AuditFiles(directory, member.key, member.certificate, bounds, now), time.time)


def _joint(
    config: TierConfig, member: Member, place: Place, journal: RoundJournal, verifier: Verifier
) -> Joint:
    """Both ends, going on from the last round and epoch in which a pad was spent."""
    last_round = journal.last_round(config.federation)
    up = down = None
    if place.parent is not None and not isinstance(config, CloudConfig):
        me = participant.Self(
            config.federation,
            place.me,
            place.parent,
            member.key,
            verifier,
            tightened(member.policy, config),
        )
        last_epoch = journal.last_epoch(config.federation)
        up = Participant(me, last_round=last_round, epoch=last_epoch)
    if not isinstance(config, DeviceConfig):
        rounds = config.rounds
        limits = Limits(
            min_members=max(rounds.min_members, member.policy.min_members),
            colluders_one_in=member.policy.colluders_one_in,
            max_members=rounds.max_members,
            expected=rounds.expected_members or rounds.max_members,
            join_wait=rounds.join_wait_s,
        )
        us = aggregator.Self(
            config.federation,
            place.me,
            verifier,
            limits,
            keystream_of(rounds.keystream, processor_features()),
        )
        down = Aggregator(us, last_round=last_round)
    return Joint(up, down)


def tightened(policy: Policy, config: DeviceConfig | NodeConfig | EdgeCloudConfig) -> Policy:
    """The fleet's policy, as far as this member's own configuration asks for more."""
    return replace(
        policy,
        min_members=max(policy.min_members, config.update.min_cohort),
        max_clip=min(policy.max_clip, config.update.max_clip),
    )


def link_of(config: TierConfig | MonitorConfig, member: Member, will: Will | None) -> MqttLink:
    """A member's link to the fleet's broker.

    Whoever knows a client id can take over its session at some brokers, so its random part is
    drawn here and appears nowhere else.
    """
    paths, broker = member.paths, config.broker
    return MqttLink(
        MqttSettings(
            broker.host,
            broker.port,
            str(member.address.member),
            os.urandom(16),
            tls=TlsFiles(paths.ca, paths.certificate, paths.key, broker.server_name),
            will=will,
            keepalive=broker.keep_alive_s,
            mqtt5={"auto": None, "5": True, "3.1.1": False}[broker.protocol],
        )
    )


def will_of(place: Place) -> Will:
    """The status that the broker sets for a process that goes without a word."""
    will = Status.model_validate(base_status(place, MemberState.LOST, time.time()))
    return Will(str(topic(place.federation, place.me, "status")), will.to_json())


def parent_of(config: TierConfig) -> Address | None:
    """The parent's address; its tier is the next one up unless `parent_tier` says another."""
    if isinstance(config, CloudConfig):
        return None
    return Address(config.parent_tier, MemberId(config.parent))


def check_identity(config: TierConfig | MonitorConfig, member: Member) -> None:
    """Raises OperatorError where the identity directory is another member's."""
    expected = f"{config.federation}/{config.tier}/{config.member}"
    seen = f"{member.certificate.federation}/{member.address}"
    if seen != expected:
        raise OperatorError(
            f"{config.identity} holds the identity of {seen}, the configuration is for "
            f"{expected}; point `identity` at the right directory"
        )


def check_policy(config: TierConfig | MonitorConfig, member: Member) -> None:
    """Raises OperatorError where the fleet's policy forbids what the configuration asks for.

    The other members decide by the policy that they have pinned; this one would only wait for them.
    """
    if not isinstance(config, CloudConfig) or config.robust is None:
        return
    if not member.policy.cohorts_apart:
        raise OperatorError(
            "[robust] needs to see the sum of each node, and the policy pinned in "
            f"{config.identity} does not allow it: sign one with `edgechoir ca policy "
            "--cohorts-apart` and pin it on every member, or leave [robust] out"
        )


@contextmanager
def state_held(directory: Path) -> Iterator[None]:
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
