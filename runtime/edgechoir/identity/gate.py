"""Refuses replays, and a second process under one identity.

For each sender the gate follows one `instance` (one process) and, per kind of message, the last
sequence number it let in. Rules for an envelope whose signature has been checked:

- the instance followed: in, if its number is above the last one of its kind; else Replayed.
  Per kind, because messages of different kinds take different topics and may overtake each other
  (a small reveal answer and a bulk upload; retained plan and roster in any order).
- an instance followed earlier: Replayed; so is one that ended before it had ever spoken here, until
  it is said to be back.
- another instance: DuplicateIdentity while the one followed is alive; if it was released (it said
  goodbye, or the broker's last will said `lost`), the new one takes its place.

A message delivered from the broker's retained store proves nothing about who is alive, so an
instance seen only there holds no claim, and none displaces another by it: the store may still hold
what a process long ended has left. Say `retained=True` for it.

A message of a process long ended may be the first that is heard, out of a queue at the broker or
from somebody who replays. It holds the place only until the sender's status shows another process
on line, unless its own status has confirmed it before.

What it does not do: it forgets all but the last `MAX_RETIRED` instances of a sender, and a sender
that was released when room is needed; a replay from so long ago must be refused by what it says
(round, epoch), which the protocols bind into every body.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from edgechoir.errors import DuplicateIdentity, Replayed, UnknownMember
from edgechoir.identity.envelope import Envelope
from edgechoir.types import Address

MAX_RETIRED: Final = 16


@dataclass(slots=True)
class _Followed:
    instance: bytes
    alive: bool
    released: bool = False
    confirmed: bool = False
    last: dict[int, int] = field(default_factory=dict)
    """kind (one byte) -> sequence number last let in."""
    retired: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_RETIRED))
    unheard: deque[bytes] = field(default_factory=lambda: deque(maxlen=MAX_RETIRED))
    """Processes that ended while another was followed: nothing of theirs could be replayed."""


class Gate:
    """`admit` every envelope of a process through one gate, in the order of arrival."""

    def __init__(self, limit_senders: int) -> None:
        self._limit = limit_senders
        self._senders: dict[Address, _Followed] = {}

    def admit(self, envelope: Envelope, *, retained: bool = False) -> None:
        """Let an envelope in. Raises Replayed, DuplicateIdentity or UnknownMember (no room)."""
        sender, instance = envelope.sender, envelope.instance
        followed = self._senders.get(sender)
        if followed is None:
            self._make_room(sender)
            followed = _Followed(instance, alive=not retained)
        elif instance in followed.retired or instance in followed.unheard:
            raise Replayed(f"{sender}: a message of process {instance.hex()}, which has ended")
        elif instance != followed.instance:
            if retained:
                raise Replayed(
                    f"{sender}: a stored message of process {instance.hex()}, the one followed is "
                    f"{followed.instance.hex()}"
                )
            if followed.alive:
                raise DuplicateIdentity(
                    f"{sender}: process {instance.hex()} speaks while {followed.instance.hex()} "
                    "is alive; two devices may hold the same key"
                )
            followed.retired.append(followed.instance)
            followed = _Followed(
                instance, alive=True, retired=followed.retired, unheard=followed.unheard
            )
        last = followed.last.get(envelope.kind, -1)
        if envelope.sequence <= last:
            raise Replayed(f"{sender}: number {envelope.sequence} after {last}")
        followed.last[envelope.kind] = envelope.sequence
        followed.alive = followed.alive or not (retained or followed.released)
        # Moved to the end, so that the dictionary's front is who has been silent longest.
        self._senders.pop(sender, None)
        self._senders[sender] = followed

    def release(self, sender: Address, instance: bytes) -> None:
        """This process said goodbye, or was reported lost: another one may take its place.

        What it sent before may still arrive and is let in, but holds the place no more.
        """
        followed = self._senders.get(sender)
        if followed is None:
            self._make_room(sender)
            self._senders[sender] = _Followed(instance, alive=False, released=True)
        elif followed.instance == instance:
            followed.alive = False
            followed.released = True
        elif instance not in followed.retired and instance not in followed.unheard:
            followed.unheard.append(instance)

    def reclaim(self, sender: Address, instance: bytes) -> None:
        """The sender's status shows this process on line, perhaps after it was reported lost."""
        followed = self._senders.get(sender)
        if followed is None:
            return
        if followed.instance == instance:
            followed.released = False
            followed.confirmed = True
            return
        if instance in followed.unheard:
            followed.unheard.remove(instance)
        if not followed.confirmed and instance not in followed.retired:
            followed.alive = False
            followed.released = True

    def _make_room(self, newcomer: Address) -> None:
        if len(self._senders) < self._limit:
            return
        for sender, followed in self._senders.items():
            if not followed.alive:
                del self._senders[sender]
                return
        raise UnknownMember(
            f"{newcomer}: {self._limit} senders are alive already, there is no room for another"
        )
