"""Who is there, as the status topics say: the parent, the children, and other processes of this
member's own identity.
"""

import logging
from typing import TYPE_CHECKING, Final

from edgechoir.errors import DuplicateIdentity
from edgechoir.monitor.status import MemberState, Status, parse_at
from edgechoir.rounds.events import Begin, Gone
from edgechoir.rounds.participant import Phase
from edgechoir.tiers.claim import Claim
from edgechoir.transport.link import Message
from edgechoir.transport.topics import Topic, channel_filter, topic
from edgechoir.transport.transfer import Transfers
from edgechoir.types import Address

if TYPE_CHECKING:
    from edgechoir.tiers.host import Host

log: Final = logging.getLogger(__name__)


class Peers:
    """What a host makes of the statuses that it hears."""

    def __init__(self, host: "Host", transfers: Transfers, claim: Claim) -> None:
        self._host = host
        self._transfers = transfers
        self._claim = claim
        self._watched: set[Address] = set()
        self._peers: dict[Address, tuple[str, bytes]] = {}
        """State and process of each, when last heard of."""

    def watch_children(self) -> None:
        """Listen to the status of every child that is new."""
        down = self._host.endpoint.joint.down
        if down is None:
            return
        children = {
            child.entry.address for child in (*down.members.values(), *down.pending.values())
        }
        for child in children - self._watched:
            self._watched.add(child)
            self._host.spawn(self.watch(child), f"watch {child}")

    async def watch(self, peer: Address) -> None:
        """Listen to the status of a peer."""
        self._watched.add(peer)
        await self._host.subscribe(channel_filter(self._host.place.federation, "status", peer))

    def take(self, where: Topic, message: Message) -> None:
        """A status has come. Raises RemoteError."""
        status = parse_at(where, message.payload)
        peer = where.sender
        instance = bytes.fromhex(status.instance)
        if peer == self._host.place.me:
            self._take_own_status(status, instance, message.retained)
            return
        before = self._peers.get(peer)
        if status.state is MemberState.STOPPED or (before and before[1] != instance):
            self._forget_transfers(peer)
        self._peers[peer] = (str(status.state.value), instance)
        if status.state is not MemberState.ONLINE:
            self._host.endpoint.release(peer, instance)
            down = self._host.endpoint.joint.down
            if down is not None and peer != self._host.place.parent:
                word = "was lost" if status.state is MemberState.LOST else "stopped"
                self._host.happen(Gone(str(peer.member), instance, word))
            return
        self._host.endpoint.reclaim(peer, instance)
        if peer == self._host.place.parent and before is not None and before[1] != instance:
            log.info("parent %s is another process now; joining it anew", peer)
            self._rejoin()

    def _forget_transfers(self, peer: Address) -> None:
        """What was under way from or to a peer's process that is gone is of no use to the next."""
        place = self._host.place
        ours, theirs = ("up", "down") if peer == place.parent else ("down", "up")
        me = str(place.me.member)
        self._transfers.forget(str(topic(place.federation, peer, theirs, me)))
        to = topic(place.federation, place.me, ours, str(peer.member))
        self._transfers.cancel_all(str(to))

    def _rejoin(self) -> None:
        """Ask the parent for a place again, if this tier takes part at all."""
        up = self._host.endpoint.joint.up
        if up is not None and up.phase is not Phase.IDLE:
            self._host.happen(Begin(up.devices, up.last_round))

    def _take_own_status(self, status: Status, instance: bytes, retained: bool) -> None:
        if instance == self._host.place.instance:
            if status.state is MemberState.LOST:
                # The broker had lost us and said so: to the parent we are gone.
                log.info("the broker has reported this process as lost; joining anew")
                self._rejoin()
                self._host.changed()
            return
        if not self._host.alone.is_set():
            self._claim.hear(status, retained)
            return
        if status.state is MemberState.ONLINE and not retained:
            self._host.refuse(
                DuplicateIdentity(
                    f"another process ({instance.hex()}) runs as {self._host.place.me}: "
                    "stop it, or enrol it under an id of its own"
                )
            )
        self._host.changed()  # say again who is here
