"""A chained log shows every change of what is sealed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import Malformed
from edgechoir.identity.authority import Authority
from edgechoir.identity.chain import (
    MAX_LINE,
    Auditor,
    Head,
    extend,
    introduce,
    read_line,
    seal,
)

if TYPE_CHECKING:
    from tests.identity.conftest import Enrol, Enrolled

NOW = 1_800_000_000.0


def written(member: Enrolled, count: int) -> list[bytes]:
    """A log with a seal after every third record, as lines without newline."""
    head, line = introduce(Head(), NOW, member.certificate)
    lines = [line]
    for number in range(count):
        head, line = extend(head, NOW + number, "round", {"round": number})
        lines.append(line)
        if number % 3 == 2:
            head, line = seal(head, NOW + number, member.key)
            lines.append(line)
    head, line = seal(head, NOW, member.key)
    return [line.rstrip(b"\n") for line in (*lines, line)]


def verdict(lines: list[bytes], authority: Authority) -> list[str]:
    auditor = Auditor(authority.root)
    wrong: list[str] = []
    for number, line in enumerate(lines):
        try:
            wrong += [f"{number}: {what}" for what in auditor.read(read_line(line))]
        except Malformed as error:
            wrong.append(f"{number}: {error}")
    return wrong


def test_a_log_that_nobody_touched_holds(device: Enrolled, authority: Authority) -> None:
    lines = written(device, 10)
    assert verdict(lines, authority) == []
    auditor = Auditor(authority.root)
    for line in lines:
        auditor.read(read_line(line))
    assert auditor.head is not None
    assert (auditor.seals, auditor.sealed) == (4, auditor.head.next - 1)
    assert auditor.signer == device.certificate


@given(data=st.data())
def test_any_change_of_any_line_is_found_at_that_line_or_the_next(
    data: st.DataObject, device: Enrolled, authority: Authority
) -> None:
    lines = written(device, 8)
    at = data.draw(st.integers(0, len(lines) - 1))
    kind = data.draw(st.sampled_from(["change", "remove", "repeat", "swap", "cut"]))
    changed = list(lines)
    match kind:
        case "change":
            where = data.draw(st.integers(0, len(lines[at]) - 1))
            byte = data.draw(st.integers(0, 255).filter(lambda b: b != lines[at][where]))
            changed[at] = lines[at][:where] + bytes([byte]) + lines[at][where + 1 :]
        case "remove" if at < len(lines) - 1:
            del changed[at]
        case "repeat":
            changed.insert(at, lines[at])
        case "swap" if at < len(lines) - 1:
            changed[at], changed[at + 1] = changed[at + 1], changed[at]
        case "cut":
            changed[at] = lines[at][: data.draw(st.integers(0, len(lines[at]) - 1))]
        case _:
            return
    wrong = verdict(changed, authority)
    if kind == "change" and changed[at].lower() == lines[at]:
        return  # the hash in capitals is the same hash
    assert wrong
    assert int(wrong[0].partition(":")[0]) in (at, at + 1)


def test_a_record_rewritten_with_all_hashes_after_it_breaks_the_next_seal(
    device: Enrolled, authority: Authority
) -> None:
    lines = written(device, 3)
    head, _ = introduce(Head(), NOW, device.certificate)
    forged = lines[:1]
    for line in map(read_line, lines[1:]):
        fields = {"round": 99} if line.number == 2 else line.fields
        head, again = extend(head, line.at, line.kind, fields)
        forged.append(again.rstrip(b"\n"))
    wrong = verdict(forged, authority)
    assert [what.partition(":")[0] for what in wrong] == ["4", "5"]
    assert "a seal that device/dev-1 has not made" in wrong[0]


def test_another_member_cannot_take_a_log_over(
    device: Enrolled, enrol: Enrol, authority: Authority
) -> None:
    other = enrol("device", "dev-2")
    lines = written(device, 2)
    head = Head(read_line(lines[-1]).number + 1, read_line(lines[-1]).hash)
    head, line = introduce(head, NOW, other.certificate)
    lines.append(line.rstrip(b"\n"))
    assert "hands the log of device/dev-1 to device/dev-2" in verdict(lines, authority)[0]


def test_the_same_member_may_go_on_under_another_key(
    device: Enrolled, enrol: Enrol, authority: Authority
) -> None:
    renewed = enrol("device", "dev-1", 90)
    lines = written(device, 2)
    head = Head(read_line(lines[-1]).number + 1, read_line(lines[-1]).hash)
    head, first = introduce(head, NOW, renewed.certificate)
    head, second = seal(head, NOW, renewed.key)
    lines += [first.rstrip(b"\n"), second.rstrip(b"\n")]
    assert verdict(lines, authority) == []


def test_a_signer_of_another_ca_is_not_believed(
    device: Enrolled, authority: Authority, foreign: Authority
) -> None:
    lines = written(device, 1)
    assert verdict(lines, authority) == []
    wrong = verdict(lines, foreign)
    assert "a signer that cannot be trusted" in wrong[0]
    assert "nobody is named as its signer" in wrong[1]


def test_without_a_root_a_log_is_held_to_its_own_word(device: Enrolled) -> None:
    auditor = Auditor(None)
    assert not [what for line in written(device, 4) for what in auditor.read(read_line(line))]
    assert auditor.signer == device.certificate


def test_a_seal_before_any_signer_counts_for_nothing(
    device: Enrolled, authority: Authority
) -> None:
    _, line = seal(Head(), NOW, device.key)
    assert "nobody is named" in verdict([line.rstrip(b"\n")], authority)[-1]


@given(
    kind=st.text(max_size=20),
    fields=st.dictionaries(
        st.text(min_size=1, max_size=10).filter(lambda name: name not in ("n", "at", "kind")),
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=50),
        max_size=5,
    ),
)
def test_what_is_recorded_is_read_back(kind: str, fields: dict[str, object]) -> None:
    head, line = extend(Head(7, bytes(32)), NOW, kind, fields)
    read = read_line(line.rstrip(b"\n"))
    assert (read.number, read.at, read.kind, read.fields) == (7, NOW, kind, fields)
    assert (head.next, head.hash) == (8, read.hash)
    assert line.count(b"\n") == 1


def test_a_record_has_a_bound() -> None:
    with pytest.raises(Malformed, match="the limit is"):
        extend(Head(), NOW, "long", {"text": "x" * MAX_LINE})


@given(st.binary(max_size=200))
def test_no_bytes_but_records_are_read(data: bytes) -> None:
    try:
        line = read_line(data)
    except Malformed:
        return
    assert isinstance(json.loads(line.body), dict)


def test_a_change_behind_the_last_seal_is_all_that_a_log_cannot_show(
    device: Enrolled, authority: Authority
) -> None:
    lines = written(device, 9)
    sealed = [n for n, line in enumerate(lines) if read_line(line).kind == "seal"]
    assert verdict(lines[: sealed[0] + 1], authority) == []
