"""The account of example-level privacy: it grows, stays small, and never counts too little."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import Malformed
from edgechoir.learning.privacy.examples import (
    MOST,
    Steps,
    private_steps,
    read_account,
    rounded_share,
    with_steps,
    write_account,
)
from edgechoir.training.account import epsilon_of

SHARES = st.floats(1e-4, 1.0)


@given(share=SHARES)
def test_a_share_is_rounded_up_and_not_by_much(share: float) -> None:
    rounded = rounded_share(share)
    assert share <= rounded * (1 + 1e-12)
    assert rounded <= min(share * 1.11, 1.0) or rounded == 1.0


@given(
    st.lists(st.tuples(st.floats(0.3, 20), SHARES, st.integers(1, 50)), min_size=1, max_size=120)
)
def test_an_account_stays_small_and_keeps_every_step(
    rows: list[tuple[float, float, int]],
) -> None:
    account: tuple[Steps, ...] = ()
    for noise, share, count in rows:
        account = with_steps(account, Steps(noise, share, count))
    assert len(account) <= MOST
    assert sum(one.count for one in account) == sum(count for _, _, count in rows)
    assert min(one.noise for one in account) == min(noise for noise, _, _ in rows)
    assert read_account(write_account(account)) == account


@pytest.mark.parametrize("text", [b"", b"{}", b"[[1]]", b"[[0, 0.1, 3]]", b"[[1, 2, 3]]"])
def test_an_account_that_makes_no_sense_is_refused(text: bytes) -> None:
    if text == b"{}":
        assert read_account(text) == ()
        return
    with pytest.raises(Malformed):
        read_account(text)


def test_an_epoch_has_as_many_steps_as_minibatches() -> None:
    assert private_steps(1000, 100) == (10, 0.1)
    assert private_steps(50, 100) == (1, 1.0)
    assert private_steps(101, 100) == (2, 100 / 101)


def test_the_published_figure_of_the_moments_accountant_is_met() -> None:
    """Abadi et al. 2016, section 3.2: q = 0.01, sigma = 4, 10,000 steps, delta 1e-5: 1.26."""
    pytest.importorskip("dp_accounting", reason="dp-accounting is not installed")
    found = epsilon_of([Steps(4.0, 0.01, 10_000)], 1e-5)
    assert found <= 1.26
    assert found > 0.9


def test_merging_and_rounding_cost_more_and_never_less() -> None:
    pytest.importorskip("dp_accounting", reason="dp-accounting is not installed")
    true = [Steps(1.0 + i / 100, 0.0123 + i / 1000, 20) for i in range(MOST + 6)]
    account: tuple[Steps, ...] = ()
    for one in true:
        account = with_steps(account, one)
    assert epsilon_of(account, 1e-5) >= epsilon_of(true, 1e-5)
