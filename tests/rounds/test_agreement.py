"""A receipt is for one context, a consent for one survivor set; only a threshold of them counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgechoir import wire
from edgechoir.errors import BadSignature, PolicyViolation
from edgechoir.rounds.agreement import (
    check_agreed,
    check_consent,
    check_receipt,
    make_consent,
    make_receipt,
)
from edgechoir.rounds.epoch import Entry

if TYPE_CHECKING:
    from tests.rounds.conftest import IdentityOf

CONTEXT, OTHER = b"c" * 32, b"o" * 32
NAMES = ("dev-1", "dev-2", "dev-3", "dev-4")
SURVIVORS = ("dev-1", "dev-2", "dev-3")


@pytest.fixture
def entries(identify: IdentityOf) -> dict[str, Entry]:
    join = wire.Join("node-1", b"", 1, 0, 0, 0)
    members = {name: identify("device", name) for name in NAMES}
    return {
        name: Entry(one.address, one.certificate, bytes(8), join) for name, one in members.items()
    }


def test_a_receipt_holds_for_its_context_and_signer_alone(
    identify: IdentityOf, entries: dict[str, Entry]
) -> None:
    receipt = make_receipt(identify("device", "dev-1").key, CONTEXT)
    check_receipt(entries["dev-1"], receipt, CONTEXT)
    for entry, given, context in (
        (entries["dev-2"], receipt, CONTEXT),
        (entries["dev-1"], receipt, OTHER),
        (entries["dev-1"], bytes(64), CONTEXT),
    ):
        with pytest.raises(BadSignature):
            check_receipt(entry, given, context)


def test_a_consent_holds_for_its_set_context_and_signer_alone(
    identify: IdentityOf, entries: dict[str, Entry]
) -> None:
    consent = make_consent(identify("device", "dev-1").key, CONTEXT, SURVIVORS)
    check_consent(entries["dev-1"], consent, CONTEXT, SURVIVORS)
    check_consent(entries["dev-1"], consent, CONTEXT, SURVIVORS[::-1])  # a set has no order
    for entry, context, survivors in (
        (entries["dev-2"], CONTEXT, SURVIVORS),
        (entries["dev-1"], OTHER, SURVIVORS),
        (entries["dev-1"], CONTEXT, SURVIVORS[:2]),
        (entries["dev-1"], CONTEXT, NAMES),
        (entries["dev-1"], CONTEXT, ("dev-1", "dev-2", "dev-4")),
    ):
        with pytest.raises(BadSignature):
            check_consent(entry, consent, context, survivors)


def test_a_receipt_is_no_consent(identify: IdentityOf, entries: dict[str, Entry]) -> None:
    """Nor the other way round, whatever context and set might look alike."""
    key = identify("device", "dev-1").key
    with pytest.raises(BadSignature):
        check_consent(entries["dev-1"], make_receipt(key, CONTEXT), CONTEXT, ())
    with pytest.raises(BadSignature):
        check_receipt(entries["dev-1"], make_consent(key, CONTEXT, ()), CONTEXT)


def signed(
    identify: IdentityOf, *names: str, survivors: tuple[str, ...] = SURVIVORS
) -> list[tuple[str, bytes]]:
    return [
        (name, make_consent(identify("device", name).key, CONTEXT, survivors)) for name in names
    ]


def test_a_threshold_of_signatures_is_agreement(
    identify: IdentityOf, entries: dict[str, Entry]
) -> None:
    """Whoever gives them: those who are missing too."""
    for names in (("dev-1", "dev-2", "dev-3"), ("dev-4", "dev-3", "dev-1"), NAMES):
        consents = signed(identify, *names)
        check_agreed(entries, NAMES, consents, 3, CONTEXT, SURVIVORS)


def test_fewer_are_none_however_they_are_made_to_look_like_more(
    identify: IdentityOf, entries: dict[str, Entry]
) -> None:
    two = signed(identify, "dev-1", "dev-2")
    for padding in (
        [],
        two,
        [("dev-3", bytes(64))],
        [("dev-3", two[0][1])],
        signed(identify, "dev-3", survivors=NAMES),
        signed(identify, "dev-9"),
    ):
        with pytest.raises(PolicyViolation, match=r"2 members have signed .* expected 3"):
            check_agreed(entries, NAMES, [*two, *padding], 3, CONTEXT, SURVIVORS)


def test_a_member_of_the_roster_outside_of_the_cohort_does_not_count(
    identify: IdentityOf, entries: dict[str, Entry]
) -> None:
    consents = signed(identify, "dev-1", "dev-2", "dev-4")
    check_agreed(entries, NAMES, consents, 3, CONTEXT, SURVIVORS)
    with pytest.raises(PolicyViolation, match=r"2 members have signed"):
        check_agreed(entries, SURVIVORS, consents, 3, CONTEXT, SURVIVORS)
