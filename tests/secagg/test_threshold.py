"""t is the least number of answers with which nobody can have both kinds of shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.secagg.threshold import NO_COLLUSION, colluders, threshold


@given(n=st.integers(2, 32), c=st.integers(0, 32))
def test_the_threshold_is_the_least_that_is_safe(n: int, c: int) -> None:
    t = threshold(n, c)
    assert 2 * t > n + c
    assert 2 * (t - 1) <= n + c


@given(n=st.integers(2, 32), one_in=st.integers(2, 32))
def test_the_honest_alone_can_reach_it(n: int, one_in: int) -> None:
    c = colluders(n, one_in)
    assert c == n // one_in
    assert threshold(n, c) <= n
    if one_in >= 3:
        assert threshold(n, c) <= n - c + 1


@pytest.mark.parametrize(
    ("n", "c", "t"), [(2, 0, 2), (3, 0, 2), (4, 1, 3), (8, 2, 6), (12, 3, 8), (32, 8, 21)]
)
def test_the_table_of_the_protocol_holds(n: int, c: int, t: int) -> None:
    assert colluders(n, 4) == c
    assert threshold(n, c) == t


def test_nobody_may_be_assumed_to_collude() -> None:
    assert colluders(32, NO_COLLUSION) == 0


@given(n=st.integers(2, 12), one_in=st.sampled_from([0, 3, 4]), data=st.data())
def test_whatever_sets_are_shown_nobody_gathers_both_kinds(
    n: int, one_in: int, data: st.DataObject
) -> None:
    """An aggregator with c colluding members shows each honest member a set of its own choice."""
    c = colluders(n, one_in)
    t = threshold(n, c)
    target_survives = data.draw(st.lists(st.booleans(), min_size=n - c, max_size=n - c))
    of_b = sum(target_survives) + c
    of_k = (n - c) - sum(target_survives) + c
    assert of_b < t or of_k < t


ROSTERS = [(n, colluders(n, one_in)) for n in range(2, 33) for one_in in (0, *range(2, 33))]


@pytest.mark.parametrize("one_in", [0, *range(2, 33)])
def test_in_every_roster_two_survivor_sets_cannot_both_be_signed(one_in: int) -> None:
    """docs/protocol.md, line 5: two sets need two thresholds of signatures, of which those who
    collude give both and the n - c honest members one each."""
    for n in range(2, 33):
        c = colluders(n, one_in)
        t = threshold(n, c)
        assert t <= n
        assert 2 * (t - c) > n - c


def test_in_every_roster_a_sum_has_two_honest_members_in_it() -> None:
    """At least t survive, of whom at most c collude. Where one of two may, there is no other: a
    roster of two hides nothing from either."""
    for n, c in ROSTERS:
        honest = threshold(n, c) - c
        assert 2 * honest > n - c
        assert honest >= 2 or (n, c) == (2, 1)
