"""Replays and second processes are refused; a restart is not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import DuplicateIdentity, Replayed, UnknownMember
from edgechoir.identity.authority import Authority
from edgechoir.identity.envelope import Envelope, Signer, Verifier
from edgechoir.identity.gate import MAX_RETIRED, Gate
from edgechoir.types import Address, MemberId

if TYPE_CHECKING:
    from tests.identity.conftest import Enrolled

A, B, C = b"process1", b"process2", b"process3"


@pytest.fixture(scope="module")
def message(authority: Authority, device: Enrolled, now: float) -> Envelope:
    data = Signer(device.key, device.certificate, A).wrap(1, b"", 0)
    return Verifier(authority.root, "alps", 10_000).open(data, now)


def test_a_message_is_let_in_once(message: Envelope) -> None:
    gate = Gate(10)
    gate.admit(message)
    with pytest.raises(Replayed, match="number 0 after 0"):
        gate.admit(message)
    gate.admit(replace(message, sequence=1))


def test_messages_of_different_kinds_may_overtake_each_other(message: Envelope) -> None:
    gate = Gate(10)
    gate.admit(replace(message, kind=1, sequence=8))
    gate.admit(replace(message, kind=2, sequence=7))
    with pytest.raises(Replayed):
        gate.admit(replace(message, kind=2, sequence=6))


def test_a_second_live_process_is_a_duplicate(message: Envelope) -> None:
    gate = Gate(10)
    gate.admit(message)
    with pytest.raises(DuplicateIdentity, match="same key"):
        gate.admit(replace(message, instance=B))
    gate.admit(replace(message, sequence=1))


def test_a_restarted_process_takes_over_once_the_old_one_is_released(message: Envelope) -> None:
    gate = Gate(10)
    gate.admit(replace(message, sequence=9))
    gate.release(message.sender, message.instance)
    gate.admit(replace(message, instance=B, sequence=0))
    with pytest.raises(Replayed, match="has ended"):
        gate.admit(replace(message, instance=A, sequence=10))


def test_a_retained_message_claims_nothing(message: Envelope) -> None:
    gate = Gate(10)
    gate.admit(message, retained=True)
    gate.admit(replace(message, instance=B))
    with pytest.raises(DuplicateIdentity):
        gate.admit(replace(message, instance=C))


def test_a_stored_message_displaces_no_process(message: Envelope) -> None:
    gate = Gate(10)
    gate.admit(message, retained=True)
    with pytest.raises(Replayed, match="stored"):
        gate.admit(replace(message, instance=B), retained=True)
    gate.admit(replace(message, sequence=message.sequence + 1))


def test_a_late_message_of_a_released_process_holds_no_place(message: Envelope) -> None:
    gate = Gate(10)
    gate.admit(message)
    gate.release(message.sender, message.instance)
    gate.admit(replace(message, sequence=message.sequence + 1))
    gate.admit(replace(message, instance=B))


def test_a_process_that_came_back_holds_its_place_again(message: Envelope) -> None:
    gate = Gate(10)
    gate.admit(message)
    gate.release(message.sender, message.instance)
    gate.reclaim(message.sender, message.instance)
    gate.admit(replace(message, sequence=message.sequence + 1))
    with pytest.raises(DuplicateIdentity):
        gate.admit(replace(message, instance=B))


def test_a_process_lost_before_it_was_heard_is_let_in_once_it_is_back(message: Envelope) -> None:
    """Its predecessor had been followed, and the broker's word of its own end came first."""
    gate, second = Gate(8), replace(message, instance=b"process2")
    gate.admit(message)
    gate.release(message.sender, message.instance)
    gate.release(second.sender, second.instance)
    with pytest.raises(Replayed):
        gate.admit(second)
    gate.reclaim(second.sender, second.instance)
    gate.admit(second)
    with pytest.raises(Replayed):
        gate.admit(replace(message, sequence=message.sequence + 1))
    gate.reclaim(message.sender, message.instance)  # once followed, it stays ended
    with pytest.raises(Replayed):
        gate.admit(replace(message, sequence=message.sequence + 1))


def test_a_process_long_ended_makes_room_for_the_one_whose_status_is_seen(
    message: Envelope,
) -> None:
    """Its message came out of a queue, or of a replay, and was the first that was heard."""
    gate, living = Gate(8), replace(message, instance=b"process2")
    gate.admit(message)
    with pytest.raises(DuplicateIdentity):
        gate.admit(living)
    gate.reclaim(living.sender, living.instance)
    gate.admit(living)
    with pytest.raises(Replayed):
        gate.admit(replace(message, sequence=message.sequence + 1))


def test_a_process_confirmed_by_its_status_makes_no_room_for_a_second_one(
    message: Envelope,
) -> None:
    gate, second = Gate(8), replace(message, instance=b"process2")
    gate.admit(message)
    gate.reclaim(message.sender, message.instance)
    gate.reclaim(second.sender, second.instance)
    with pytest.raises(DuplicateIdentity):
        gate.admit(second)
    gate.admit(replace(message, sequence=message.sequence + 1))


def test_no_release_is_needed_of_a_stranger(message: Envelope) -> None:
    gate = Gate(10)
    gate.release(message.sender, message.instance)
    gate.admit(message)


def test_a_full_gate_forgets_only_who_was_released(message: Envelope) -> None:
    gate = Gate(2)
    senders = [Address("device", MemberId(f"dev-{i}")) for i in range(4)]
    gate.admit(replace(message, sender=senders[0]))
    gate.admit(replace(message, sender=senders[1]))
    with pytest.raises(UnknownMember, match="2 senders are alive"):
        gate.admit(replace(message, sender=senders[2]))
    gate.release(senders[0], message.instance)
    gate.admit(replace(message, sender=senders[2]))
    with pytest.raises(Replayed):
        gate.admit(replace(message, sender=senders[1]))


@given(steps=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans())))
def test_nothing_is_let_in_twice(message: Envelope, steps: list[tuple[int, int, bool]]) -> None:
    """Whatever the order of messages and releases, with fewer processes than are remembered."""
    assert MAX_RETIRED > 4
    gate = Gate(10)
    seen = set()
    for process, sequence, release in steps:
        if release:
            gate.release(message.sender, message.instance)
        try:
            gate.admit(replace(message, instance=bytes([process] * 8), sequence=sequence))
        except (Replayed, DuplicateIdentity):
            continue
        assert (process, sequence) not in seen
        seen.add((process, sequence))
