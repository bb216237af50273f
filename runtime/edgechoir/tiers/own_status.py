"""A member's status document: what it says of itself, at every change and every few seconds."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from edgechoir.errors import LinkError
from edgechoir.monitor.health import health, usage
from edgechoir.monitor.status import MemberState, Status
from edgechoir.tiers.place import base_status
from edgechoir.transport.topics import parse, topic
from edgechoir.transport.transfer import Transfers

if TYPE_CHECKING:
    from edgechoir.tiers.host import Host

log: Final = logging.getLogger(__name__)

STATUS_S: Final = 5.0
"""Seconds between two status documents when nothing changes."""
SETTLE_S: Final = 0.5
"""Seconds that changes are gathered into one status document."""
SLOW_S: Final = 2.0
"""Seconds after which the status speaks of a transfer."""
TRANSFERS_SHOWN: Final = 8


class OwnStatus:
    """`describe` gives what only this tier has to say."""

    def __init__(
        self, host: "Host", transfers: Transfers, describe: Callable[[], dict[str, Any]]
    ) -> None:
        self._host = host
        self._transfers = transfers
        self._describe = describe
        self._started = time.time()
        self._began = time.monotonic()
        self._usage = usage(self._began)
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """There is something new to say."""
        self._changed.set()

    async def run(self) -> None:
        """Publish it, again and again, once no other process speaks for this member."""
        await self._host.alone.wait()
        while True:
            self._changed.clear()
            try:
                await self.say(MemberState.ONLINE)
            except LinkError as error:
                log.debug("status not published: %s", error)
            await asyncio.sleep(SETTLE_S)
            try:
                async with asyncio.timeout(STATUS_S - SETTLE_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def say(self, state: MemberState) -> None:
        where = str(topic(self._host.place.federation, self._host.place.me, "status"))
        await self._host.link.publish(
            where, self.document(state).to_json(), retain=True, timeout=10
        )

    def _under_way(self) -> list[dict[str, object]]:
        """Transfers that take long, for the status document."""
        now = time.monotonic()
        return [
            {
                "sender": str(where.member),
                "receiver": where.rest,
                "arrived": one.arrived,
                "total": one.total,
                "seconds": round(now - one.since, 1),
            }
            for one in self._transfers.progress(SLOW_S)[:TRANSFERS_SHOWN]
            for where in (parse(one.key),)
        ]

    def document(self, state: MemberState) -> Status:
        """The status document as it would be published now."""
        counters = self._host.link.counters
        before, self._usage = self._usage, usage(time.monotonic())
        return Status.model_validate(
            {
                **base_status(self._host.place, state, self._started),
                **self._describe(),
                "drops": dict(self._host.endpoint.drops),
                "broker": {
                    "reconnects": counters.reconnects,
                    "bytes_up": counters.bytes_up,
                    "bytes_down": counters.bytes_down,
                    "dropped": counters.dropped + counters.crowded_out,
                },
                "certificate": None if self._host.upkeep is None else self._host.upkeep.figures(),
                "audit": self._host.account.audit.figures(),
                "transfers": self._under_way() or None,
                "spool": None if self._host.spool is None else self._host.spool.figures(),
                "health": health(self._began, before, self._usage),
            }
        )
