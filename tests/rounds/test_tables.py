"""Whatever happens in whichever phase: it has a place in the table, or it is refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, get_args

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import LocalError, OutOfPlace
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.events import (
    Back,
    Begin,
    Cancel,
    Contribution,
    Event,
    Gone,
    MaskReady,
    ModelHeld,
    NoContribution,
    Order,
    Received,
    Tick,
    Withdraw,
)

if TYPE_CHECKING:
    from tests.rounds.conftest import OrderOf, Stage

FROM_PARENT: Final = (wire.Roster, wire.Delivery, wire.Call, wire.Reveal, wire.Abort)
FROM_CHILD: Final = (
    wire.Join,
    wire.Bundles,
    wire.Prepare,
    wire.Upload,
    wire.Consent,
    wire.Answer,
    wire.Abort,
    wire.Leave,
)
TO_PARTICIPANT: Final = (
    Begin,
    Withdraw,
    ModelHeld,
    Contribution,
    NoContribution,
    MaskReady,
    Tick,
)
TO_AGGREGATOR: Final = (Order, Cancel, Gone, Back, Tick)
Up, Down = participant.Phase, aggregator.Phase

MESSAGES: Final[dict[type, wire.Message]] = {
    type(message): message
    for message in (
        wire.Join("cloud", bytes(1216), 1, 0, 0, 0),
        wire.Roster(9, 0, 0, bytes(1216), ()),
        wire.Bundles(1, bytes(32), ()),
        wire.Delivery(1, bytes(32), ()),
        wire.Call(b"", ()),
        wire.Prepare(1, 9, (), b"", bytes(32), bytes(32)),
        wire.Upload(1, 9, bytes(32), bytes(64), b""),
        wire.Reveal(1, 9, bytes(32), (), (), ()),
        wire.Consent(1, 9, bytes(32), bytes(64)),
        wire.Answer(1, 9, bytes(32), b""),
        wire.Abort(1, 9, "?"),
        wire.Leave("?"),
        wire.Model(1, 1, bytes(32), b"", (), 0, 0, 0),
    )
}


def test_every_event_goes_to_one_end_or_both() -> None:
    assert {*TO_PARTICIPANT, *TO_AGGREGATOR, Received} == set(get_args(Event))
    assert {*FROM_PARENT, *FROM_CHILD, wire.Model} == set(wire.KINDS.values())
    assert set(MESSAGES) == set(wire.KINDS.values())


def test_the_tables_hold_nothing_but_phases_and_what_may_happen_to_this_end() -> None:
    assert {what for _, what in participant.MOVES} == {*FROM_PARENT, *TO_PARTICIPANT}
    assert {what for _, what in aggregator.MOVES} == {*FROM_CHILD, *TO_AGGREGATOR}
    assert {phase for phase, _ in participant.MOVES} == set(Up)
    assert {phase for phase, _ in aggregator.MOVES} == set(Down)


def test_a_participant_has_no_place_for_these() -> None:
    """Everything else has: the whole table, read the other way round."""
    missing = {
        (phase, what)
        for phase in Up
        for what in (*FROM_PARENT, *TO_PARTICIPANT)
        if (phase, what) not in participant.MOVES
    }
    assert missing == {
        *((phase, wire.Delivery) for phase in Up if phase is not Up.KEYING),
        (Up.IDLE, wire.Call),
        (Up.OUT, wire.Call),
    }


def test_an_aggregator_has_no_place_for_these() -> None:
    missing = {
        (phase, what)
        for phase in Down
        for what in (*FROM_CHILD, *TO_AGGREGATOR)
        if (phase, what) not in aggregator.MOVES
    }
    uploading = (Down.COLLECTING, Down.UNMASKING)
    assert missing == {
        *((phase, wire.Upload) for phase in Down if phase not in uploading),
        *((phase, wire.Bundles) for phase in Down if phase is not Down.KEYING),
        (Down.GATHERING, wire.Prepare),
        *((phase, Order) for phase in uploading),
    }


def events_of(stage: Stage, order: OrderOf, sender: str) -> dict[type, Event]:
    """One event of each type that can be told from its type alone."""
    voice = stage.voices[sender]
    received: dict[type, Event] = {
        what: Received(voice.identity.address, voice.instance, message, b"")
        for what, message in MESSAGES.items()
    }
    own: list[Event] = [
        Begin(1),
        Withdraw("?"),
        ModelHeld(9, bytes(32)),
        Contribution(9, np.zeros(1, np.uint32)),
        NoContribution(9, "?"),
        MaskReady(9, np.zeros(1, np.uint32)),
        Tick(),
        order(9),
        Cancel(9, "?"),
        Gone("dev-9", bytes(8), "?"),
        Back("dev-9", bytes(8)),
    ]
    return {**received, **{type(event): event for event in own}}


@pytest.mark.parametrize("phase", Up)
def test_a_participant_refuses_what_has_no_place(
    trio: Stage, order: OrderOf, phase: participant.Phase
) -> None:
    voice = trio.voices["dev-1"]
    state = replace(voice.up, phase=phase)
    for what, event in events_of(trio, order, "cloud").items():
        if (phase, what) in participant.MOVES:
            continue
        expected = OutOfPlace if isinstance(event, Received) else LocalError
        with pytest.raises(expected, match=f"{what.__name__} has no place while {phase.value}"):
            participant.step(state, event, trio.now, voice.entropy)


@pytest.mark.parametrize("phase", Down)
def test_an_aggregator_refuses_what_has_no_place(
    trio: Stage, order: OrderOf, phase: aggregator.Phase
) -> None:
    voice = trio.voices["cloud"]
    state = replace(voice.down, phase=phase)
    for what, event in events_of(trio, order, "dev-1").items():
        if (phase, what) in aggregator.MOVES:
            continue
        expected = OutOfPlace if isinstance(event, Received) else LocalError
        with pytest.raises(expected, match=f"{what.__name__} has no place while {phase.value}"):
            aggregator.step(state, event, trio.now, voice.entropy)


@pytest.mark.parametrize("phase", [Up.IDLE, Up.OUT, Up.READY, Up.SENT, Up.WAITING])
def test_what_is_expected_but_means_nothing_changes_nothing(
    trio: Stage, order: OrderOf, phase: participant.Phase
) -> None:
    """The rows of the table that say `_rest`."""
    voice = trio.voices["dev-1"]
    state = replace(voice.up, phase=phase)
    events = events_of(trio, order, "cloud")
    rests = 0
    for (at, what), move in participant.MOVES.items():
        if at is phase and move.__name__ == "_rest":
            assert participant.step(state, events[what], trio.now, voice.entropy) == (state, [])
            rests += 1
    assert rests >= 2
