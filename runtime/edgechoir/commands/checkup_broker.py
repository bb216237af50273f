"""The check-up's part that talks to brokers: as the member would, but under a client id of its own
and without a last will, so that a process that runs meanwhile notices nothing.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from edgechoir.commands.finding import Finding, good, note, wrong
from edgechoir.errors import LinkError, RemoteError
from edgechoir.monitor.status import MemberState, Status, parse_at
from edgechoir.tiers.process import link_of, parent_of
from edgechoir.transport.link import Link
from edgechoir.transport.mqtt import MqttLink, MqttSettings
from edgechoir.transport.topics import channel_filter, parse
from edgechoir.types import Address

if TYPE_CHECKING:
    from edgechoir.config.sensor import MqttSensor
    from edgechoir.config.tiers import Config
    from edgechoir.fleet.enrolment import Member

CONNECT_S: Final = 25.0
"""Longer than a link waits for MQTT 5 and then for 3.1.1."""
ANSWER_S: Final = 5.0
SETTLE_S: Final = 1.0
"""Silence after which the last retained document has come: MQTT does not say which it is."""
MAX_STATUSES: Final = 10_000


async def broker(config: "Config", member: "Member") -> AsyncIterator[Finding]:
    """Connection, certificate, protocol, and what the broker keeps of this member's neighbours."""
    from edgechoir.config.tiers import MonitorConfig

    async with link_of(config, member, None) as link:
        finding = await connection(link, "broker")
        yield finding
        if not link.state.connected:
            return
        if isinstance(config, MonitorConfig):
            watched: list[Address | None] = [None]
        else:
            parent = parent_of(config)
            watched = [member.address, *([] if parent is None else [parent])]
        try:
            for peer in watched:
                pattern = channel_filter(config.federation, "status", peer)
                await link.subscribe(pattern, timeout=ANSWER_S)
        except LinkError as error:
            yield wrong("status topics", str(error), "the broker's access list may be an old one")
            return
        seen = await _statuses(link)
        if isinstance(config, MonitorConfig):
            yield good("status topics", f"readable, {len(seen)} members have published one")
            return
        yield own(seen.get(member.address))
        for peer in watched[1:]:
            if peer is not None:
                yield above(peer, seen.get(peer))


async def sensor_broker(sensor: "MqttSensor") -> Finding:
    """The broker that the samples come from."""
    settings = MqttSettings(sensor.host, sensor.port, "doctor", os.urandom(8))
    async with MqttLink(settings) as link:
        finding = await connection(link, "sensor")
        if link.state.connected:
            try:
                await link.subscribe(sensor.topic, timeout=ANSWER_S)
            except LinkError as error:
                return wrong("sensor", str(error))
        return finding


async def connection(link: Link, what: str) -> Finding:
    """The first outcome of connecting; a link itself would go on trying."""
    before = link.state
    try:
        async with asyncio.timeout(CONNECT_S):
            async for state in link.changes():
                if state.connected:
                    return good(what, state.reason)
                if state != before:
                    return wrong(what, state.reason)
    except TimeoutError:
        pass
    return wrong(what, link.state.reason, f"there was no answer within {CONNECT_S:g} s")


async def _statuses(link: Link) -> dict[Address, Status]:
    seen: dict[Address, Status] = {}
    messages = link.messages()
    try:
        async with asyncio.timeout(ANSWER_S):
            while len(seen) < MAX_STATUSES:
                async with asyncio.timeout(SETTLE_S):
                    message = await anext(messages)
                try:
                    topic = parse(message.topic)
                    seen[topic.sender] = parse_at(topic, message.payload)
                except RemoteError:
                    continue  # what it holds is the monitor's to judge
    except (TimeoutError, StopAsyncIteration):
        pass
    return seen


def own(status: Status | None) -> Finding:
    """What the broker keeps of this member itself."""
    if status is None:
        return good("own status", "readable; none has been published yet")
    seen = f"{status.state.value} since {_moment(status)}"
    if status.state is MemberState.LOST:
        return note("own status", seen, "the last process ended without a goodbye")
    return good("own status", seen)


def above(parent: Address, status: Status | None) -> Finding:
    """Is the parent there?"""
    if status is None:
        advice = "start it, or check `parent` and `parent_tier`"
        return note("parent", f"{parent} has published no status", advice)
    seen = f"{parent} is {status.state.value} since {_moment(status)}"
    if status.state is not MemberState.ONLINE:
        return note("parent", seen, "this member works alone meanwhile")
    return good("parent", seen)


def _moment(status: Status) -> str:
    at = status.since if status.state is MemberState.ONLINE else status.updated
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")
