"""Where a process stands in its federation."""

import os
import time
from dataclasses import dataclass
from typing import Any

from edgechoir.monitor.status import MemberState
from edgechoir.types import Address


@dataclass(frozen=True, slots=True)
class Place:
    """A process of a member: `instance` names it among all that ever ran under this identity.

    `keep_alive` is that of its connection, in seconds.
    """

    federation: str
    me: Address
    parent: Address | None
    instance: bytes
    keep_alive: float


def new_instance() -> bytes:
    """A name for this process."""
    return os.urandom(8)


def base_status(place: Place, state: MemberState, since: float) -> dict[str, Any]:
    """What every status document has, and all that a last will has."""
    return {
        "federation": place.federation,
        "tier": place.me.tier,
        "member": str(place.me.member),
        "instance": place.instance.hex(),
        "state": state,
        "since": since,
        "updated": time.time(),
        "parent": None if place.parent is None else str(place.parent.member),
    }
