"""The federation as its status documents show it: who is under whom, and who is silent.

Nothing here reads a clock or a link. What is kept of a member is a few words, so that a monitor
of `MAX_MEMBERS` members stays small; documents of further members are counted and not kept.

A member is `stale` when it says that it is online but was not heard for `STALE_S`. A retained
document may be old, so it counts as heard when it was written (by the member's clock, never later
than now); any other when it came.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from edgechoir.monitor.status import MemberState, Status
from edgechoir.monitor.summary import Summary, summarise
from edgechoir.types import Address, MemberId

MAX_MEMBERS: Final = 100_000
STALE_S: Final = 30.0
"""Members say how they are every few seconds."""

_RANK: Final = {"cloud": 0, "edge-cloud": 1, "node": 2, "device": 3, "monitor": 4}


class View(Enum):
    """How a member looks from here; troubled ones first."""

    LOST = "lost"
    STALE = "stale"
    STOPPED = "stopped"
    ONLINE = "online"


_TROUBLE: Final = {view: place for place, view in enumerate(View)}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is kept of one member's last document; `heard` is unix seconds by our clock."""

    address: Address
    parent: MemberId | None
    instance: str
    state: MemberState
    heard: float
    summary: Summary

    def view(self, now: float) -> View:
        if self.state is MemberState.ONLINE and now - self.heard > STALE_S:
            return View.STALE
        return View(self.state.value)


@dataclass(slots=True)
class Fleet:
    """The members seen so far. `refused` counts documents by the reason they were not taken."""

    federation: str
    members: dict[Address, Entry] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    unlisted: int = 0
    """Documents of members beyond MAX_MEMBERS."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the tree: a member, or how many more its parent has (`entry` is None)."""

    depth: int
    entry: Entry | None
    orphan: bool = False
    """It names a parent that was not seen, or that is below itself."""
    more: int = 0


def fold(fleet: Fleet, status: Status, now: float, *, retained: bool = False) -> bool:
    """Take a document of the fleet's federation; False where it is not taken."""
    address = Address(status.tier, MemberId(status.member))
    known = fleet.members.get(address)
    if known is None and len(fleet.members) >= MAX_MEMBERS:
        fleet.unlisted += 1
        return False
    # The will of an old process comes late, when another one already runs under the same id.
    old_news = (
        known is not None
        and known.state is MemberState.ONLINE
        and status.state is not MemberState.ONLINE
        and status.instance != known.instance
    )
    if old_news:
        return False
    fleet.members[address] = Entry(
        address,
        None if status.parent is None else MemberId(status.parent),
        status.instance,
        status.state,
        min(status.updated, now) if retained else now,
        summarise(status),
    )
    return True


def forget(fleet: Fleet, address: Address) -> bool:
    """A member whose retained document was deleted; False where it was not known."""
    return fleet.members.pop(address, None) is not None


def count(fleet: Fleet, now: float) -> dict[View, int]:
    """How many members look how."""
    counts = Counter(entry.view(now) for entry in fleet.members.values())
    return {view: counts[view] for view in View}


def rows(fleet: Fleet, now: float, limit: int = MAX_MEMBERS) -> Iterator[Row]:
    """The tree from the top, children after their parent, then the orphans.

    At most `limit` children of one parent are shown; of more, the troubled ones first.
    """
    # Ids are unique in a federation. Should two members claim one, children go to the higher tier.
    by_id: dict[MemberId, Address] = {}
    for address in sorted(fleet.members, key=_place, reverse=True):
        by_id[address.member] = address
    children: dict[Address | None, list[Entry]] = {}
    unparented: list[Entry] = []
    for entry in fleet.members.values():
        above = None if entry.parent is None else by_id.get(entry.parent)
        if entry.parent is not None and above is None:
            unparented.append(entry)
        else:
            children.setdefault(above, []).append(entry)

    shown: set[Address] = set()
    yield from _descend(children.get(None, []), children, shown, now, limit, orphan=False)
    yield from _descend(unparented, children, shown, now, limit, orphan=True)
    # What is left hangs in circles: each says that the other is its parent.
    for address in sorted(fleet.members.keys() - shown, key=_place):
        if address not in shown:
            circle = [fleet.members[address]]
            yield from _descend(circle, children, shown, now, limit, orphan=True)


def _descend(
    top: Iterable[Entry],
    children: dict[Address | None, list[Entry]],
    shown: set[Address],
    now: float,
    limit: int,
    *,
    orphan: bool,
) -> Iterator[Row]:
    """Depth first, with a stack of our own: a tree may be deeper than Python recurses."""

    def level(entries: Iterable[Entry], depth: int) -> list[Row]:
        """The rows of one level, last first, as a stack gives them out."""
        chosen = sorted(entries, key=lambda entry: _place(entry.address))
        more = max(0, len(chosen) - limit)
        if more:
            by_trouble = sorted(chosen, key=lambda entry: _TROUBLE[entry.view(now)])
            hidden = by_trouble[limit:]
            chosen = by_trouble[:limit]
            _hide(hidden, children, shown)
        found = [Row(depth, entry, orphan and depth == 0) for entry in chosen]
        return [*([Row(depth, None, more=more)] if more else []), *reversed(found)]

    stack = level(top, 0)
    while stack:
        row = stack.pop()
        if row.entry is not None:
            if row.entry.address in shown:
                continue
            shown.add(row.entry.address)
            stack += level(children.get(row.entry.address, ()), row.depth + 1)
        yield row


def _hide(
    entries: Iterable[Entry], children: dict[Address | None, list[Entry]], shown: set[Address]
) -> None:
    """Count members, and all below them, as shown: they are behind a "more"."""
    stack = list(entries)
    while stack:
        entry = stack.pop()
        if entry.address not in shown:
            shown.add(entry.address)
            stack += children.get(entry.address, ())


def _place(address: Address) -> tuple[int, str]:
    return _RANK[address.tier], address.member
