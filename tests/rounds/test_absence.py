"""Whoever is missing, and when: the exact sum of those who sang, or a reason, and then the next.

A cohort of up to eight devices; each has a fate in the turn. Enough uploads and enough answers make
the sum, whatever else happens; too few end the turn with a reason, and nothing hangs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from edgechoir import wire
from edgechoir.identity.policy import Policy
from edgechoir.rounds.aggregator import Limits, Phase
from edgechoir.rounds.events import Begin, NoContribution
from edgechoir.secagg.threshold import colluders, threshold

if TYPE_CHECKING:
    from tests.rounds.conftest import Letter, Stage

SINGS: Final = "sings and answers"
LOST_FIRST: Final = "lost before its upload"
GIVES_UP: Final = "gives up, and answers"
SLOW: Final = "never done in time, and answers"
LOST_THEN: Final = "lost after its upload"
DUMB: Final = "uploads, and never answers"
FATES: Final = (SINGS, SINGS, SINGS, LOST_FIRST, GIVES_UP, SLOW, LOST_THEN, DUMB)
UPLOADS: Final = {SINGS, LOST_THEN, DUMB}
ANSWERS: Final = {SINGS, GIVES_UP, SLOW}
DEADLINE_S: Final = 8.0
Fates = list[str]


def cloud_with(empty: Stage, fates: Fates, one_in: int) -> tuple[Stage, dict[str, str]]:
    """A cloud with as many devices as there are fates, keyed and ready for round 1."""
    stage = type(empty)()
    limits = Limits(expected=len(fates), colluders_one_in=one_in)
    stage.add("cloud", "cloud", limits=limits)
    names = {f"dev-{i}": fate for i, fate in enumerate(fates)}
    for name in names:
        stage.device(name, "cloud", policy=Policy(2, 2, one_in))
    stage.begin()
    return stage, names


def play(stage: Stage, fate_of: dict[str, str], bits: int) -> None:
    """One turn in which each device meets its fate."""

    def carry(letter: Letter) -> list[Letter]:
        unheard = letter.data[3] in (wire.Answer.KIND, wire.Consent.KIND)
        return [] if unheard and fate_of.get(letter.sender) == DUMB else [letter]

    def those(fate: str) -> list[str]:
        return [name for name, its in fate_of.items() if its == fate]

    stage.carry = carry
    stage.idle = {name for name, fate in fate_of.items() if fate not in UPLOADS}
    stage.order("cloud", 1, bits=bits, deadline=DEADLINE_S)
    for name in those(LOST_THEN):
        # Its last will comes before anybody is named: the turn is still waiting for somebody, or
        # has been done already with its answer.
        stage.lose(name)
    for name in those(LOST_FIRST):
        stage.lose(name)
    for name in those(GIVES_UP):
        if stage.voices["cloud"].down.turn is not None:
            stage.happen(name, NoContribution(1, "too hot"))
            stage.run()
    stage.advance(DEADLINE_S + 0.1)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    fates=st.lists(st.sampled_from(FATES), min_size=2, max_size=8),
    one_in=st.sampled_from([0, 3, 4]),
    bits=st.sampled_from([16, 32]),
)
@example(fates=[SINGS, LOST_FIRST, SINGS], one_in=4, bits=32)
@example(fates=[SINGS, SLOW, LOST_THEN, SINGS, SINGS], one_in=4, bits=16)
@example(fates=[LOST_FIRST] * 3, one_in=4, bits=32)
@example(fates=[DUMB, DUMB, SINGS, SLOW], one_in=0, bits=32)
def test_the_sum_of_those_who_sang_is_exact_or_there_is_a_reason(
    stage: Stage, fates: Fates, one_in: int, bits: int
) -> None:
    stage, fate_of = cloud_with(stage, fates, one_in)
    t = threshold(len(fates), colluders(len(fates), one_in))
    play(stage, fate_of, bits)
    sang = sorted(name for name, fate in fate_of.items() if fate in UPLOADS)
    answer = [name for name, fate in fate_of.items() if fate in ANSWERS]
    # With nobody missing all is over at once, before anybody can be lost.
    if len(sang) == len(fates):
        answer += [name for name, fate in fate_of.items() if fate == LOST_THEN]

    done, failed = stage.sums("cloud"), stage.failures("cloud")
    assert len(done) + len(failed) == 1, "every turn ends, once"
    if len(sang) >= t and len(answer) >= t:
        event("done")
        assert failed == []
        assert list(done[0].survivors) == sang
        assert np.array_equal(done[0].total, stage.plain_sum(done[0]))
    else:
        event("failed")
        assert done == []
        assert failed[0][0] == 1
        assert failed[0][1]


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    fates=st.lists(st.sampled_from(FATES), min_size=2, max_size=6),
    one_in=st.sampled_from([0, 4]),
)
def test_after_any_turn_there_is_one_with_everybody(
    stage: Stage, fates: Fates, one_in: int
) -> None:
    """Who was lost comes back, who was slow is in time: nothing of the turn before stands in the
    way."""
    stage, fate_of = cloud_with(stage, fates, one_in)
    play(stage, fate_of, 32)
    stage.carry = lambda letter: [letter]
    stage.idle = set()
    for name in fate_of:
        if name not in stage.voices:
            stage.device(name, "cloud", policy=Policy(2, 2, one_in))
            stage.happen(name, Begin(1))
    stage.run()
    stage.advance(120)
    assert stage.voices["cloud"].down.phase is Phase.READY
    before = len(stage.sums("cloud"))
    stage.order("cloud", 2, deadline=DEADLINE_S)
    stage.advance(DEADLINE_S + 0.1)
    assert len(stage.sums("cloud")) == before + 1, stage.failures("cloud")
    done = stage.sums("cloud")[-1]
    assert done.survivors == tuple(sorted(fate_of))
    assert np.array_equal(done.total, stage.plain_sum(done))
