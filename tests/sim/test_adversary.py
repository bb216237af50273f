"""A lying aggregator recovers no member's vector; with one protection taken out, it does.

Each attack is run twice: against members as they are, and against members that lack the protection
which stops it. The second run shows that the attack is a real one and the first one no accident.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import RemoteError
from edgechoir.identity import envelope
from edgechoir.identity.envelope import Envelope, Verifier
from edgechoir.identity.policy import Policy
from edgechoir.rounds import epoch, participant
from edgechoir.rounds.events import ModelHeld
from edgechoir.secagg.masking import mask_seeds
from edgechoir.secagg.pads import SignedSeed
from edgechoir.sim import adversary
from edgechoir.sim.adversary import LyingAggregator
from edgechoir.sim.chance import chance_of
from edgechoir.sim.choir import Choir, authority_of, verifier_of
from edgechoir.types import Ring

VICTIM: Final = "dev-00"
BOTH: Final = pytest.mark.parametrize("protected", [True, False])
Lift = Callable[[Any, str, object], None]


@pytest.fixture
def lift(monkeypatch: pytest.MonkeyPatch) -> Lift:
    """Takes a protection out."""
    return monkeypatch.setattr


def nothing(*args: object) -> None:
    """A check that is none."""


def siege(n: int, colluders: int = 0, policy: Policy | None = None, **lies: Any) -> LyingAggregator:
    """A lying aggregator above `n` keyed members, of whom the last few collude with it."""
    names = [f"dev-{i:02}" for i in range(n)]
    liar = LyingAggregator(Choir(n, policy=policy), names[n - colluders :])
    liar.gather()
    liar.found(**lies)
    return liar


def sum_of(liar: LyingAggregator, names: Iterable[str], round_: int = 1) -> Ring:
    vectors = [liar.choir.singers[name].vectors[round_] for name in names]
    total: Ring = np.zeros_like(vectors[0])
    for vector in vectors:
        total += vector
    return total


def recovered(liar: LyingAggregator, round_: int = 1) -> bool:
    """Whether the victim's vector, which the test knows, lies bare."""
    bare = liar.open_smallest(VICTIM)
    if bare is None or bare.members != {VICTIM}:
        return False
    return bool(np.array_equal(bare.vector, sum_of(liar, [VICTIM], round_)))


def rest(liar: LyingAggregator, *without: str) -> list[str]:
    return [name for name in liar.names if name not in without]


# ---- what it may have


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_an_honest_course_opens_the_sum_of_all_survivors_and_nothing_less(missing: int) -> None:
    """Else the adversary would be one that cannot put anything together."""
    liar = siege(6)
    away = list(liar.names[6 - missing :])
    for name in away:
        liar.choir.singers[name].silent = True
    plan = liar.plan()
    liar.call(liar.names, plan)
    liar.reveal(liar.names, plan, rest(liar, *away))
    bare = liar.open_smallest(VICTIM)
    assert bare is not None
    assert bare.members == set(rest(liar, *away))
    assert np.array_equal(bare.vector, sum_of(liar, bare.members))


def test_before_an_answer_it_has_nothing() -> None:
    liar = siege(5, colluders=1)
    liar.call(liar.names, liar.plan())
    assert liar.heard[VICTIM]
    assert liar.open_smallest(VICTIM) is None


# ---- one turn shown in two ways


@BOTH
@pytest.mark.parametrize(("n", "colluders"), [(3, 0), (4, 1), (6, 1), (11, 2)])
def test_a_plan_of_its_own_for_one_member(
    n: int, colluders: int, protected: bool, lift: Lift
) -> None:
    """The victim hides in a cohort of the least size, and the others are told that all of that
    cohort are missing but the victim. What stops it: receipts."""
    if not protected:
        lift(participant, "check_receipt", nothing)
    liar = siege(n, colluders)
    allies = sorted(liar.colluders)
    others = rest(liar, VICTIM, *allies)
    beside = others[: liar.threshold - colluders - 1]
    small = liar.plan(cohort=tuple(sorted([VICTIM, *beside, *allies])))
    large = liar.plan()
    liar.call([VICTIM], small)
    liar.call(rest(liar, VICTIM), large)
    liar.reveal(rest(liar, VICTIM), large, rest(liar, *beside))
    assert recovered(liar) is not protected
    if protected:
        assert "signature does not fit" in liar.choir.singers[others[0]].refused[-1]


@BOTH
def test_another_model_for_some_members(protected: bool, lift: Lift) -> None:
    """A model made to bring out the victim's data must not be summed with others' work on the true
    one. What stops it: the model is part of the context that all pads hang on."""
    other = hashlib.sha256(b"made for the victim").digest()
    true = epoch.round_context

    def blind(federation: str, parent: Any, plan: wire.Plan) -> bytes:
        return true(federation, parent, replace(plan, model_hash=bytes(32), model_version=0))

    if not protected:
        lift(participant, "round_context", blind)
        lift(adversary, "round_context", blind)
    liar = siege(5)
    liar.choir.happen(VICTIM, ModelHeld(2, other))
    plan, crafted = liar.plan(), liar.plan(model_version=2, model_hash=other)
    liar.call([VICTIM], crafted)
    liar.call(rest(liar, VICTIM), plan)
    liar.reveal(liar.names, plan, liar.names)
    liar.reveal(liar.names, crafted, liar.names)
    bare = liar.open_smallest(VICTIM)
    if protected:
        assert bare is None
    else:
        assert bare is not None
        assert np.array_equal(bare.vector, sum_of(liar, liar.names))


# ---- one turn opened in two ways


def different_sets(liar: LyingAggregator) -> list[tuple[str, set[str]]]:
    """A survivor set of seven for each of nine honest members, together a sum of two."""
    pair, cycle = ["dev-00", "dev-01"], [f"dev-{i:02}" for i in range(2, 9)]
    sets = []
    for i, name in enumerate([*cycle, *pair]):
        start = i if i < 8 else 4  # so that each of the seven is left out five times
        away = {cycle[(start + k) % 7] for k in range(4)}
        sets.append((name, set(liar.names) - away))
    return sets


def opens_the_pair(liar: LyingAggregator) -> bool:
    bare = liar.open_smallest(VICTIM)
    if bare is None:
        return False
    assert bare.members == {"dev-00", "dev-01"}
    assert np.array_equal(bare.vector, sum_of(liar, bare.members))
    return True


@BOTH
def test_survivor_sets_that_differ_from_member_to_member(protected: bool, lift: Lift) -> None:
    """Each member agrees to a sum of seven, and together they would open one of two. What stops
    it: a threshold must have signed the set that a member opens."""
    if not protected:
        lift(participant, "check_agreed", nothing)
    liar = siege(11, colluders=2, policy=Policy(min_members=7, min_devices=7))
    assert liar.threshold == 7
    plan = liar.plan()
    liar.call(liar.names, plan)
    for name, survivors in different_sets(liar):
        liar.reveal([name], plan, survivors)
    assert opens_the_pair(liar) is not protected


@BOTH
def test_signatures_gathered_for_one_survivor_set_after_the_other(protected: bool) -> None:
    """As before, but each set is shown to all for them to sign. What stops it: a member remembers
    that it has signed, and signs no other set in this turn."""
    liar = siege(11, colluders=2, policy=Policy(min_members=7, min_devices=7))
    plan = liar.plan()
    liar.call(liar.names, plan)
    context = liar.context(plan)
    for _, survivors in different_sets(liar):
        if not protected:
            forget_agreement(liar)
        liar.ask_consent(liar.names, plan, survivors)
    for name, survivors in different_sets(liar):
        if not protected:
            forget_agreement(liar)
        liar.reveal([name], plan, survivors)
    signed = [len(liar.consents[context, tuple(sorted(s))]) for _, s in different_sets(liar)]
    assert min(signed) == (2 if protected else 11)  # colluders sign everything
    assert opens_the_pair(liar) is not protected


def forget_agreement(liar: LyingAggregator) -> None:
    for singer in liar.choir.singers.values():
        if singer.up.turn is not None:
            up = replace(singer.up, turn=replace(singer.up.turn, agreed=()))
            singer.endpoint.joint = replace(singer.endpoint.joint, up=up)


def halves(liar: LyingAggregator) -> None:
    """Half of the honest members give b of the victim, the other half its K."""
    plan = liar.plan()
    liar.call(liar.names, plan)
    honest = rest(liar, *liar.colluders)
    half = len(honest) // 2
    liar.reveal(honest[:half], plan, liar.names)
    liar.reveal([*honest[half:], *sorted(liar.colluders)], plan, rest(liar, VICTIM))


@BOTH
def test_a_threshold_below_the_policy(protected: bool, lift: Lift) -> None:
    """Half of the members give the victim's b, the other half its K. What stops it: the members
    work out themselves what the threshold must be at least."""
    if not protected:
        lift(participant, "threshold", lambda n, c: 4)
    liar = siege(8, colluders=2, threshold=4)
    halves(liar)
    assert recovered(liar) is not protected
    if protected:
        assert "this member's policy asks for 6 to 8" in liar.choir.singers[VICTIM].refused[0]


@pytest.mark.parametrize(("colluders", "expected"), [(2, False), (3, False), (4, True)])
def test_a_cohort_padded_with_its_own_members(colluders: int, expected: bool) -> None:
    """The threshold of eight members withstands a quarter of them, and here one more, as promised;
    not a half."""
    liar = siege(8, colluders=colluders)
    halves(liar)
    assert recovered(liar) is expected


@BOTH
def test_two_reveals_in_a_turn(protected: bool) -> None:
    """First the victim's b, then its K. What stops it: a member that has answered knows it."""
    liar = siege(4)
    plan = liar.plan()
    liar.call(liar.names, plan)
    before = {name: liar.choir.singers[name].endpoint.joint for name in liar.names}
    liar.reveal(liar.names, plan, liar.names)
    if not protected:
        for name, joint in before.items():
            liar.choir.singers[name].endpoint.joint = joint
    liar.reveal(liar.names, plan, rest(liar, VICTIM))
    assert recovered(liar) is not protected


@BOTH
def test_a_reveal_of_an_old_turn(protected: bool) -> None:
    """The next turn has begun when the victim's K of the last one is asked for. What stops it: a
    member knows no turn but the present one."""
    liar = siege(4)
    first = liar.plan(1)
    liar.call(liar.names, first)
    old = {name: liar.choir.singers[name].endpoint.joint for name in liar.names}
    liar.reveal(liar.names, first, liar.names)
    liar.call(liar.names, liar.plan(2))
    if not protected:
        for name, joint in old.items():
            liar.choir.singers[name].endpoint.joint = joint
    liar.reveal(liar.names, first, rest(liar, VICTIM))
    assert recovered(liar) is not protected


# ---- too few to hide among


@BOTH
@pytest.mark.parametrize("as_cohort", [True, False])
def test_a_single_honest_member_among_colluders(
    as_cohort: bool, protected: bool, lift: Lift
) -> None:
    """What stops it: cohort and survivors are at least the threshold, more than may collude."""
    if not protected:
        lift(participant, "threshold", lambda n, c: c + 1)
    liar = siege(8, colluders=2, threshold=6 if protected else 3)
    alone = (VICTIM, *sorted(liar.colluders))
    plan = liar.plan(cohort=alone) if as_cohort else liar.plan(min_survivors=1)
    liar.call(liar.names, plan)
    for names in (liar.names, alone):
        liar.reveal(names, plan, alone)
    if protected:
        assert not recovered(liar)
        assert any("threshold" in one or "are needed" in one for one in refusals(liar))
    else:
        assert recovered(liar)


def refusals(liar: LyingAggregator) -> list[str]:
    return [one for name in liar.names for one in liar.choir.singers[name].refused]


@BOTH
@pytest.mark.parametrize("least", [{"min_members": 6}, {"min_devices": 6}])
@pytest.mark.parametrize("as_cohort", [True, False])
def test_a_sum_smaller_than_the_pinned_policy(
    as_cohort: bool, least: dict[str, Any], protected: bool
) -> None:
    """Four are enough for the threshold. What stops it: the policy that each member has pinned."""
    policy = replace(Policy(min_devices=2), **(least if protected else {}))
    liar = siege(6, policy=policy)
    few = liar.names[:4]
    plan = liar.plan(cohort=few) if as_cohort else liar.plan(min_survivors=1)
    liar.call(liar.names, plan)
    liar.reveal(liar.names, plan, few)
    bare = liar.open_smallest(VICTIM)
    if protected:
        assert bare is None
        assert any("this member's policy asks for" in one for one in refusals(liar))
    else:
        assert bare is not None
        assert bare.members == set(few)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_plan_that_lays_each_device_into_a_slot_of_its_own(allowed: bool) -> None:
    """A sum of slots opens as what each one sent. What stops it, also where cohorts may be seen
    apart: a device is fewer than the devices that a sum must have."""
    liar = siege(4, policy=Policy(min_devices=2, cohorts_apart=allowed))
    liar.call(liar.names, liar.plan(apart=wire.APART))
    assert not any(liar.heard.values())
    word = "a sum of 1 devices" if allowed else "no cohorts_apart"
    assert sum(word in one for one in refusals(liar)) == 4


# ---- uploads that are late, or not there


class WithoutSelfMask(LyingAggregator):
    """Faces members that mask with the pads of their pairs alone."""

    def own_pad(self, turn: int, one: str, context: bytes) -> list[SignedSeed] | None:
        return []


@BOTH
def test_a_late_upload_kept_back_until_its_key_is_revealed(protected: bool, lift: Lift) -> None:
    """The victim is called missing, its K comes out, and then so does its upload. What stops it:
    the self-mask, whose b nobody gives once K was asked for."""
    names = [f"dev-{i:02}" for i in range(5)]
    if not protected:
        lift(participant, "mask_seeds", lambda *args: mask_seeds(*args)[1:])
    kind = LyingAggregator if protected else WithoutSelfMask
    liar = kind(Choir(5), names[4:])
    liar.gather()
    liar.found()
    plan = liar.plan()
    liar.call(liar.names, plan)
    liar.reveal(rest(liar, VICTIM), plan, rest(liar, VICTIM))
    assert liar.secret("K", 1, VICTIM) is not None
    assert liar.secret("b", 1, VICTIM) is None
    assert recovered(liar) is not protected


@BOTH
def test_a_survivor_that_has_not_uploaded(protected: bool, lift: Lift) -> None:
    """Its b would be out before its upload, and the sum one of fewer than agreed. What stops it:
    there is no receipt of it."""
    if not protected:
        lift(participant, "check_receipt", nothing)
    liar = siege(5, colluders=1)
    liar.choir.singers[VICTIM].silent = True
    plan = liar.plan()
    liar.call(liar.names, plan)
    liar.reveal(rest(liar, VICTIM), plan, rest(liar, "dev-01"))
    assert (liar.secret("b", 1, VICTIM) is not None) is not protected


def test_a_member_counted_without_its_upload_says_no() -> None:
    liar = siege(4)
    liar.choir.singers[VICTIM].silent = True
    plan = liar.plan()
    liar.call(liar.names, plan)
    liar.reveal([VICTIM], plan, liar.names)
    assert not liar.shares
    assert "has not uploaded" in liar.choir.singers[VICTIM].refused[-1]


def test_a_member_that_signs_or_answers_before_its_upload_never_uploads_in_that_turn() -> None:
    for colluders in (0, 1):
        liar = siege(5, colluders)
        liar.choir.singers[VICTIM].silent = True
        plan = liar.plan()
        liar.call(liar.names, plan)
        ask = liar.reveal if colluders else liar.ask_consent
        ask(liar.names, plan, rest(liar, VICTIM))
        assert liar.choir.sing(VICTIM) == []
        assert not liar.heard[VICTIM]
        assert liar.choir.singers[VICTIM].records == []
        assert (2, VICTIM) in liar.prepared  # it is there in the next turn
        again = liar.plan(2)
        liar.choir.singers[VICTIM].silent = False
        liar.call(liar.names, again)
        assert liar.heard[VICTIM]


# ---- keys that are not the members' own


@pytest.mark.parametrize("joins", [True, False])
@pytest.mark.parametrize("bundles", [True, False])
def test_a_roster_with_keys_of_its_own(joins: bool, bundles: bool, lift: Lift) -> None:
    """What stops it: each Join is signed by its member, and each bundle inside its box; either is
    enough."""
    if not joins:
        lift(envelope, "verify", nothing)
    if not bundles:
        lift(epoch, "verify", nothing)
    liar = LyingAggregator(Choir(4))
    liar.gather()
    forged = liar.swap_keys(["dev-01", "dev-02", "dev-03"])
    liar.found()
    liar.impersonate(VICTIM, forged)
    liar.call([VICTIM], liar.plan())
    assert recovered(liar) is not (joins or bundles)


class AnyFleet(Verifier):
    """Trusts the CA of another fleet too."""

    def __init__(self) -> None:
        super().__init__(authority_of("fleet").root, "simulated", 1 << 22)
        self.other = verifier_of("another fleet")

    def open(self, data: bytes, now: float) -> Envelope:
        try:
            return super().open(data, now)
        except RemoteError:
            return self.other.open(data, now)


@BOTH
def test_a_roster_of_members_that_the_fleet_does_not_know(protected: bool) -> None:
    """All others are the aggregator's own, certified by a CA of its own. What stops it: the one
    root that each member trusts."""
    choir = Choir(0, verifier=verifier_of() if protected else AnyFleet())
    choir.add(VICTIM)
    choir.verifier, choir.ca = AnyFleet(), "another fleet"
    others = ["dev-01", "dev-02", "dev-03"]
    for name in others:
        choir.add(name)
    liar = LyingAggregator(choir, others)
    liar.gather()
    liar.found()
    plan = liar.plan()
    liar.call(liar.names, plan)
    liar.reveal(liar.names, plan, liar.names)
    assert recovered(liar) is not protected


# ---- lies without a plan


def lie_at_random(liar: LyingAggregator, seed: int, turns: int = 2) -> None:
    """Two plans and up to three survivor sets a turn, for members drawn at random."""
    chance = chance_of(seed, "lies")
    allies = sorted(liar.colluders)

    def some(at_least: int) -> tuple[str, ...]:
        others = rest(liar, *allies)
        k = chance.randint(max(at_least - len(allies), 1), len(others))
        return tuple(sorted([*chance.sample(others, k), *allies]))

    for turn in range(1, turns + 1):
        plans = [liar.plan(turn), liar.plan(turn, cohort=some(liar.threshold), seed=1)]
        for name in liar.names:
            if chance.random() < 0.9:
                liar.call([name], chance.choice(plans))
        for _ in range(3):
            plan = chance.choice(plans)
            known = [n for n in plan.cohort if n in liar.colluders or liar.heard[n]]
            chosen = (
                set(some(liar.threshold)) & set(plan.cohort) if chance.random() < 0.8 else known
            )
            liar.reveal(some(1), plan, chosen)


def smallest_open(seed: int) -> int:
    """After random lies: the fewest honest members in any sum that lies open, beyond what was
    agreed; 0 if all is well."""
    chance = chance_of(seed, "size")
    n = chance.randint(3, 7)
    colluders = chance.randint(0, n // 4)
    liar = siege(n, colluders)
    lie_at_random(liar, seed)
    for name in rest(liar, *liar.colluders):
        bare = liar.open_smallest(name)
        if bare is not None and len(bare.members - liar.colluders) < liar.threshold - colluders:
            return len(bare.members - liar.colluders)
    return 0


def test_no_random_lies_open_a_sum_of_fewer_than_agreed() -> None:
    assert not any(smallest_open(seed) for seed in range(80))


def test_random_lies_do_so_where_a_check_is_missing(lift: Lift) -> None:
    lift(participant, "check_receipt", nothing)
    assert any(smallest_open(seed) for seed in range(80))
