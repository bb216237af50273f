"""Who is in a fleet, and what each may do: all that a broker's configuration is made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from edgechoir.broker.access import Access, access, only
from edgechoir.broker.bridges import Bridge
from edgechoir.identity.naming import MONITOR
from edgechoir.types import Address, MemberId


@dataclass(frozen=True)
class Federation:
    """`bridges`: who is behind which."""

    name: str
    members: frozenset[Address]
    bridges: Mapping[MemberId, Bridge] = field(default_factory=dict)

    @cached_property
    def access(self) -> Access:
        return access(self.name, self.members, self.bridges)

    @cached_property
    def monitors(self) -> Access:
        """The rules of monitors alone, for a listener that is theirs."""
        return only(self.access, (m.member for m in self.members if m.tier == MONITOR))
