"""One process a member: a second one gives way to a first that is alive.

Both read the member's own status topic. A process says nothing there before it has found out that
no other lives; one that has says again that it is here whenever another claims to be.
"""

import asyncio
import logging
from typing import Final

from edgechoir.errors import OperatorError
from edgechoir.monitor.status import MemberState, Status
from edgechoir.tiers.place import Place

log: Final = logging.getLogger(__name__)

FIRST_S: Final = 1.0
"""Seconds within which a broker gives what it retains."""
MAX_SAID: Final = 64


class Claim:
    """This process's claim on its member's identity. `alone` is set once nobody contests it."""

    def __init__(self) -> None:
        self.alone = asyncio.Event()
        self._said: asyncio.Queue[tuple[Status, bool]] = asyncio.Queue(MAX_SAID)

    def hear(self, status: Status, retained: bool) -> None:
        """Another process of this identity has spoken, while this one was not alone yet."""
        if not self._said.full():
            self._said.put_nowait((status, retained))

    async def settle(self, place: Place) -> None:
        """Wait until alone. Raises OperatorError where another process is alive.

        A process killed without its connection noticing still counts as on line at the broker for
        one and a half keep-alives (MQTT 5, 3.1.2.10).
        """
        patience = 1.5 * place.keep_alive + 2.0
        try:
            async with asyncio.timeout(FIRST_S):
                status, retained = await self._said.get()
            async with asyncio.timeout(patience):
                while status.state is MemberState.ONLINE:
                    if not retained:
                        raise OperatorError(
                            f"another process already runs as {place.me} (instance "
                            f"{status.instance}): stop it first, or enrol this one under its own id"
                        )
                    log.info("waiting to see whether an earlier process of %s lives", place.me)
                    status, retained = await self._said.get()
        except TimeoutError:
            pass
        self.alone.set()
