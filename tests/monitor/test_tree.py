"""The tree is folded from status documents, whatever they say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.monitor import tree
from edgechoir.monitor.status import MemberState, Status
from edgechoir.monitor.tree import STALE_S, Fleet, Row, View, count, fold, forget, rows
from edgechoir.types import Address, MemberId


def status(tier: Any, member: str, parent: str | None = None, **more: Any) -> Status:
    fields: dict[str, Any] = {"instance": "aa", "state": MemberState.ONLINE, **more}
    fields.setdefault("updated", 100.0)
    return Status(federation="digits", tier=tier, member=member, parent=parent, since=1.0, **fields)


def fleet_of(*documents: Status, now: float = 100.0) -> Fleet:
    fleet = Fleet("digits")
    for document in documents:
        assert fold(fleet, document, now)
    return fleet


def shape(found: list[Row]) -> list[str]:
    return [
        "  " * row.depth
        + (str(row.entry.address) if row.entry else f"+{row.more}")
        + ("?" if row.orphan else "")
        for row in found
    ]


def test_children_stand_under_their_parent_in_order() -> None:
    fleet = fleet_of(
        status("device", "d2", "n1"),
        status("node", "n1", "c"),
        status("device", "d3", "c"),
        status("cloud", "c"),
        status("device", "d1", "n1"),
        status("monitor", "m"),
    )
    assert shape(list(rows(fleet, 100.0))) == [
        "cloud/c",
        "  node/n1",
        "    device/d1",
        "    device/d2",
        "  device/d3",
        "monitor/m",
    ]


def test_a_member_without_its_parent_is_an_orphan_with_its_children() -> None:
    fleet = fleet_of(status("device", "d1", "n1"), status("node", "n1", "lost"))
    assert shape(list(rows(fleet, 100.0))) == ["node/n1?", "  device/d1"]


def test_members_that_are_each_others_parent_are_shown_once() -> None:
    fleet = fleet_of(
        status("node", "a", "b"), status("node", "b", "a"), status("node", "self", "self")
    )
    assert shape(list(rows(fleet, 100.0))) == ["node/a?", "  node/b", "node/self?"]


def test_a_node_keeps_its_children_when_a_device_takes_its_name() -> None:
    fleet = fleet_of(
        status("device", "n1", "c"),
        status("cloud", "c"),
        status("node", "n1", "c"),
        status("device", "d", "n1"),
    )
    assert shape(list(rows(fleet, 100.0))) == [
        "cloud/c",
        "  node/n1",
        "    device/d",
        "  device/n1",
    ]


def test_of_many_children_the_troubled_ones_are_shown_first() -> None:
    fleet = fleet_of(
        status("cloud", "c"),
        *(status("device", f"d{n}", "c") for n in range(8)),
        status("device", "lost", "c", state=MemberState.LOST),
        status("node", "off", "c", state=MemberState.STOPPED),
        status("device", "below", "d7"),
    )
    assert shape(list(rows(fleet, 100.0, limit=3))) == [
        "cloud/c",
        "  device/lost",
        "  node/off",
        "  device/d0",
        "  +7",
    ]


def test_a_silent_member_is_stale_and_one_that_said_goodbye_is_not() -> None:
    fleet = fleet_of(status("device", "a"), status("device", "b", state=MemberState.STOPPED))
    assert count(fleet, 100.0 + STALE_S)[View.ONLINE] == 1
    later = count(fleet, 100.1 + STALE_S)
    assert (later[View.STALE], later[View.STOPPED], later[View.ONLINE]) == (1, 1, 0)


@pytest.mark.parametrize(
    ("updated", "retained", "heard"),
    [(40.0, True, 40.0), (40.0, False, 100.0), (900.0, True, 100.0)],
)
def test_a_retained_document_is_as_old_as_it_says(
    updated: float, retained: bool, heard: float
) -> None:
    fleet = Fleet("digits")
    fold(fleet, status("device", "a", updated=updated), 100.0, retained=retained)
    (entry,) = fleet.members.values()
    assert entry.heard == heard


def test_the_will_of_an_old_process_does_not_hide_the_new_one() -> None:
    fleet = fleet_of(status("device", "a", instance="bb"))
    assert not fold(fleet, status("device", "a", instance="aa", state=MemberState.LOST), 101.0)
    assert count(fleet, 101.0)[View.ONLINE] == 1
    assert fold(fleet, status("device", "a", instance="bb", state=MemberState.LOST), 102.0)
    assert count(fleet, 102.0)[View.LOST] == 1


def test_members_beyond_the_bound_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "MAX_MEMBERS", 2)
    fleet = fleet_of(status("device", "a"), status("device", "b"))
    assert not fold(fleet, status("device", "c"), 100.0)
    assert fold(fleet, status("device", "a", state=MemberState.LOST), 100.0)
    assert (len(fleet.members), fleet.unlisted) == (2, 1)


def test_a_deleted_document_takes_its_member_away() -> None:
    fleet = fleet_of(status("device", "a"))
    assert forget(fleet, Address("device", MemberId("a")))
    assert not forget(fleet, Address("device", MemberId("a")))
    assert list(rows(fleet, 100.0)) == []


def test_a_deep_tree_is_no_obstacle() -> None:
    chain = (status("node", f"n{n}", f"n{n - 1}" if n else None) for n in range(3000))
    found = list(rows(fleet_of(*chain), 100.0))
    assert found[-1].depth == 2999


NAMES = st.sampled_from(["a", "b", "c", "d", "e"])


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["device", "node", "cloud"]),
            NAMES,
            st.none() | NAMES,
            st.sampled_from(MemberState),
        ),
        max_size=12,
    ),
    st.integers(1, 4),
)
def test_every_member_is_shown_once_or_counted(
    said: list[tuple[str, str, str | None, MemberState]], limit: int
) -> None:
    fleet = Fleet("digits")
    for tier, member, parent, state in said:
        fold(fleet, status(tier, member, parent, state=state), 100.0)
    whole = [row.entry.address for row in rows(fleet, 100.0) if row.entry]
    assert sorted(whole) == sorted(fleet.members)
    cut = [row.entry.address for row in rows(fleet, 100.0, limit) if row.entry]
    assert len(set(cut)) == len(cut)
    assert set(cut) <= set(whole)
