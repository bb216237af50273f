"""What the demo sees of its fleet: the topics that any monitor may read."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgechoir.errors import LinkError, Malformed, OperatorError
from edgechoir.monitor.recording import Recording, recorded
from edgechoir.monitor.records import Metrics
from edgechoir.monitor.status import MemberState, Status, parse_at
from edgechoir.transport.link import Link
from edgechoir.transport.topics import monitor_filters, parse


@dataclass(slots=True)
class Seen:
    """The latest status of each member, and the cloud's account of each round."""

    federation: str
    statuses: dict[str, Status] = field(default_factory=dict)
    rounds: list[Metrics] = field(default_factory=list)
    predictions: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def online(self, tier: str) -> int:
        """How many members of a tier are there."""
        return sum(
            status.tier == tier and status.state is MemberState.ONLINE
            for status in self.statuses.values()
        )

    async def until(self, holds: Callable[["Seen"], bool], seconds: float, what: str) -> None:
        """Wait for something to be seen. Raises OperatorError at the deadline."""
        try:
            async with asyncio.timeout(seconds):
                while not holds(self):
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise OperatorError(f"{what} was not seen within {seconds:g} s") from None


async def follow(
    link: Link,
    seen: Seen,
    on_round: Callable[[Metrics], None],
    recording: Recording | None = None,
) -> None:
    """Take in what is published, and record it, until cancelled."""
    for pattern in monitor_filters(seen.federation):
        try:
            await link.subscribe(pattern)
        except LinkError as error:
            raise OperatorError(f"the monitor cannot subscribe: {error}") from None
    messages = link.messages()
    if recording is not None:
        messages = recorded(messages, seen.federation, recording, time.time, metrics=True)
    async for message in messages:
        try:
            where = parse(message.topic)
            if where.channel == "status":
                seen.statuses[str(where.member)] = parse_at(where, message.payload)
            elif where.channel == "metrics":
                metrics = Metrics.from_json(message.payload)
                seen.rounds.append(metrics)
                on_round(metrics)
            else:
                seen.predictions += 1
        except Malformed:
            continue  # nothing of ours; a monitor shows what it can read
        seen.changed.set()
