"""A turn survives whoever drops out of it, as long as a threshold answers, and its sum is exact.

Real members beneath a real aggregator. Each has a fate in the turn: it sings; it is slow and sends
no upload, but answers; it is gone from the start; it is mute after its upload; or it signs the
survivors and is gone before it opens anything.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir import wire
from edgechoir.identity.envelope import Signer
from edgechoir.identity.gate import Gate
from edgechoir.identity.policy import Policy
from edgechoir.learning.fixed_point import Encoding
from edgechoir.rounds.aggregator import Aggregator, Limits, Phase
from edgechoir.rounds.aggregator import Self as Place
from edgechoir.rounds.endpoint import Endpoint, Outcome, Outgoing
from edgechoir.rounds.events import (
    Event,
    Gone,
    Membership,
    Order,
    Refused,
    RoundDone,
    RoundFailed,
    Tick,
)
from edgechoir.rounds.joint import Joint
from edgechoir.secagg.pads import Keystream
from edgechoir.secagg.threshold import colluders, threshold
from edgechoir.sim.chance import chance_of, entropy_of
from edgechoir.sim.choir import FEDERATION, MODEL, NOW, PARENT, Choir, identity_of, verifier_of
from edgechoir.types import Ring

SINGS, SLOW, GONE, MUTE, SIGNS = "sings", "slow", "gone", "mute", "signs and goes"
FATES: Final = (SINGS, SLOW, GONE, MUTE, SIGNS)
UPLOADING: Final = (SINGS, MUTE, SIGNS)
MISSES: Final = {
    GONE: (wire.Call, wire.Reveal, wire.Abort),
    MUTE: (wire.Reveal, wire.Abort),
    SIGNS: (wire.Abort,),
}
"""What no longer reaches a member of this fate."""


class Concert:
    """`n` members and their node, every message handed on at once."""

    def __init__(
        self,
        n: int,
        *,
        bits: int = 32,
        keystream: Keystream = Keystream.AES,
        least: int = 2,
        policy: Policy | None = None,
        seed: int = 0,
    ) -> None:
        self.bits = bits
        self.choir = Choir(n, policy=policy, seed=seed)
        self.fates = dict.fromkeys(self.choir.singers, SINGS)
        self.outcomes: list[Outcome] = []
        self.round = 0
        me = identity_of(PARENT.tier, str(PARENT.member))
        entropy = entropy_of(seed, "node")
        verifier = verifier_of()
        limits = Limits(min_members=least, expected=n)
        state = Aggregator(Place(FEDERATION, PARENT, verifier, limits, keystream))
        signer = Signer(me.key, me.certificate, entropy(8))
        self.node = Endpoint(Joint(None, state), signer, verifier, Gate(64), entropy)
        for name in self.choir.singers:
            self.go_up(self.choir.begin(name))
        assert self.state.phase is Phase.READY

    @property
    def state(self) -> Aggregator:
        down = self.node.joint.down
        assert down is not None
        return down

    def go_up(self, letters: list[bytes]) -> None:
        for data in letters:
            self.hand_down(self.node.receive(data, self.choir.now))

    def happen(self, event: Event) -> None:
        self.hand_down(self.node.handle(event, self.choir.now))

    def hand_down(self, outcomes: list[Outcome]) -> None:
        waiting = deque(outcomes)
        while waiting:
            outcome = waiting.popleft()
            self.outcomes.append(outcome)
            if not isinstance(outcome, Outgoing):
                continue
            to = [outcome.member] if outcome.member else list(self.choir.singers)
            for name in to:
                for data in self.tell(name, outcome.data):
                    waiting += self.node.receive(data, self.choir.now)

    def tell(self, name: str, data: bytes) -> list[bytes]:
        opened = self.choir.verifier.open(data, self.choir.now)
        message = wire.decode(opened.kind, opened.body)
        fate = self.fates[name]
        opens = isinstance(message, wire.Reveal) and message.consents
        complete = isinstance(message, wire.Reveal) and len(message.survivors) == len(self.fates)
        if isinstance(message, MISSES.get(fate, ())) or (fate == SIGNS and (opens or complete)):
            return []
        self.choir.singers[name].silent = fate == SLOW
        return self.choir.tell(name, data)

    def order(self, devices: int | None = None) -> None:
        """One round, to its end: the clock is moved where the node waits."""
        self.round += 1
        self.happen(
            Order(
                round=self.round,
                model_version=1,
                model_hash=MODEL,
                task=b'{"kind":"train"}',
                dimension=20,
                devices=devices or len(self.fates),
                clip=1.0,
                max_samples=20,
                bits=self.bits,
                epochs=1,
                batch_size=8,
                learning_rate=0.1,
                seed=0,
                deadline=8.0,
            )
        )
        for _ in range(8):
            if self.ended:
                return
            assert self.state.wake is not None, "the node waits for nothing"
            self.choir.now = max(self.choir.now, self.state.wake)
            self.happen(Tick())
        raise AssertionError("the round does not end")

    @property
    def ended(self) -> bool:
        return any(
            (isinstance(one, RoundDone) and one.plan.round == self.round)
            or (isinstance(one, RoundFailed) and one.round == self.round)
            for one in self.outcomes
        )

    @property
    def done(self) -> RoundDone | None:
        """The sum of the last round, if it gave one."""
        last = [one for one in self.outcomes if isinstance(one, RoundDone | RoundFailed)][-1]
        return last if isinstance(last, RoundDone) else None

    @property
    def reason(self) -> str:
        last = [one for one in self.outcomes if isinstance(one, RoundDone | RoundFailed)][-1]
        return last.reason if isinstance(last, RoundFailed) else ""

    def sent(self, kind: type[wire.Message]) -> list[wire.Message]:
        """What the node has sent of a kind."""
        found = []
        for one in self.outcomes:
            if isinstance(one, Outgoing):
                opened = self.choir.verifier.open(one.data, NOW)
                if opened.kind == kind.KIND:
                    found.append(wire.decode(opened.kind, opened.body))
        return found

    def plain_sum(self, done: RoundDone) -> Ring:
        encoding = Encoding(20, len(self.fates), 1.0, 20, self.bits)
        total: Ring = np.zeros(encoding.length, encoding.dtype)
        for name in done.survivors:
            total += self.choir.singers[name].vectors[done.plan.round]
        return total

    def check(self, fates: dict[str, str]) -> None:
        """One turn with these fates: done exactly, or failed with a reason, as it must be."""
        self.fates = fates
        t = self.state.threshold
        needed = max(t, self.state.who.limits.min_members)
        uploads = sorted(name for name, fate in fates.items() if fate in UPLOADING)
        answers = [name for name, fate in fates.items() if fate in (SINGS, SLOW)]
        self.order()
        done = self.done
        if len(uploads) >= needed and len(answers) >= t:
            assert done is not None, self.reason
            assert list(done.survivors) == uploads
            assert np.array_equal(done.total, self.plain_sum(done))
            assert done.total.dtype == np.dtype(f"u{self.bits // 8}")
        else:
            assert done is None
            assert self.reason
            if len(uploads) < needed:
                assert not self.sent(wire.Reveal)
        assert not [one for one in self.outcomes if isinstance(one, Refused)]

    def recover(self) -> None:
        """Everybody is back, the same processes: within three rounds all sing together."""
        self.fates = dict.fromkeys(self.fates, SINGS)
        for _ in range(3):
            self.order()
            done = self.done
            if done is not None:
                assert np.array_equal(done.total, self.plain_sum(done))
                if len(done.survivors) == len(self.fates):
                    return
        raise AssertionError(f"not all are back: {done or self.reason}")


@st.composite
def concerts(draw: st.DrawFn) -> tuple[Concert, dict[str, str]]:
    concert = Concert(
        draw(st.integers(2, 12)),
        bits=draw(st.sampled_from([16, 32])),
        keystream=draw(st.sampled_from(Keystream)),
        least=2,
        seed=draw(st.integers(0, 3)),
    )
    often = st.sampled_from([SINGS] * 6 + list(FATES))
    fates = {name: draw(often) for name in concert.choir.singers}
    return concert, fates


@settings(max_examples=60, deadline=None)
@given(concerts())
def test_any_dropout_that_leaves_a_threshold_gives_the_exact_sum_of_the_survivors(
    drawn: tuple[Concert, dict[str, str]],
) -> None:
    concert, fates = drawn
    concert.check(fates)
    concert.recover()


@pytest.mark.parametrize(("n", "seed"), [(16, 1), (25, 2), (32, 3)])
def test_a_large_cohort_loses_as_many_as_it_may(n: int, seed: int) -> None:
    """To the last: n - t members are gone, half of them before the upload and half after."""
    chance = chance_of(seed, "who")
    concert = Concert(n, bits=16 if n == 25 else 32, seed=seed)
    t = threshold(n, colluders(n, 4))
    names = list(concert.choir.singers)
    away = chance.sample(names, n - t)
    fates = dict.fromkeys(names, SINGS)
    for i, name in enumerate(away):
        fates[name] = (GONE, MUTE)[i % 2]
    concert.check(fates)
    assert concert.done is not None


@pytest.mark.parametrize("fate", [GONE, MUTE, SIGNS])
@pytest.mark.parametrize("n", [4, 7])
def test_one_more_than_may_be_missing_fails_the_turn_and_not_the_next(n: int, fate: str) -> None:
    concert = Concert(n)
    too_many = n - concert.state.threshold + 1
    names = list(concert.choir.singers)
    concert.check({name: fate if i < too_many else SINGS for i, name in enumerate(names)})
    assert concert.done is None
    assert "needed" in concert.reason or "must" in concert.reason
    concert.recover()


def test_the_nodes_own_minimum_is_kept() -> None:
    concert = Concert(6, least=6)
    assert concert.state.threshold == 4
    names = list(concert.choir.singers)
    concert.check({name: SLOW if i == 0 else SINGS for i, name in enumerate(names)})
    assert "5 uploads, 6 are needed" in concert.reason
    concert.recover()


@pytest.mark.parametrize(
    "policy", [Policy(min_members=5, min_devices=2), Policy(min_members=2, min_devices=5)]
)
def test_members_open_no_sum_below_their_policy_whatever_their_node_asks_for(
    policy: Policy,
) -> None:
    concert = Concert(6, policy=policy)
    names = list(concert.choir.singers)
    concert.fates = {name: GONE if i < 2 else SINGS for i, name in enumerate(names)}
    concert.order()
    assert concert.done is None
    assert "0 agree on the survivors, 4 must" in concert.reason
    refused = concert.choir.singers[names[5]].refused
    assert refused == [
        "a survivor set of 4 members with 4 devices; this member's policy asks for "
        f"{policy.min_members} and {policy.min_devices}"
    ]
    concert.recover()


def test_after_the_turn_has_failed_nobody_opens_it_any_more() -> None:
    """The reveal that came too late is answered by none: no partial sum can be put together."""
    concert = Concert(5)
    names = list(concert.choir.singers)
    concert.check({name: MUTE if i < 2 else SINGS for i, name in enumerate(names)})
    assert concert.done is None
    late = [
        one.data
        for one in concert.outcomes
        if isinstance(one, Outgoing)
        and concert.choir.verifier.open(one.data, NOW).kind == wire.Reveal.KIND
    ][-1]
    abort = concert.sent(wire.Abort)[-1]
    for name in names[:2]:  # they missed both; the abort reaches them first
        assert concert.choir.tell(name, concert.node.sign(abort)) == []
        assert concert.choir.tell(name, late) == []


def test_a_node_that_hears_of_a_departure_does_not_wait_for_it() -> None:
    concert = Concert(6)
    names = list(concert.choir.singers)
    concert.fates = {name: GONE if i == 0 else SINGS for i, name in enumerate(names)}
    before = concert.choir.now
    instance = concert.state.members[names[0]].entry.instance
    concert.round += 1
    concert.happen(Gone(names[0], instance, "was lost"))
    concert.round -= 1
    concert.order()
    assert concert.done is not None
    assert len(concert.done.survivors) == 5
    assert concert.choir.now == before


def test_a_round_ordered_for_fewer_than_are_back_is_told_how_many_there_are() -> None:
    """A member was lost after its upload and is back: it is prepared, and none of the root's."""
    concert = Concert(6)
    concert.order()
    name = next(iter(concert.choir.singers))
    address = concert.choir.singers[name].identity.address
    instance = concert.state.members[name].entry.instance
    concert.happen(Gone(name, instance, "was lost"))
    concert.node.reclaim(address, instance)
    concert.order(devices=5)
    assert concert.reason == "6 devices are beneath, the order is for 5 in all"
    told = [one.devices for one in concert.outcomes if isinstance(one, Membership)]
    assert told[-2:] == [5, 6]
    concert.order(devices=told[-1])
    assert concert.done is not None
    assert len(concert.done.survivors) == 6
