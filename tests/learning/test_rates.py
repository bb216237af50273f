"""A schedule begins at the whole rate, falls, and never reaches nothing."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.learning.rates import LEAST, Rates


def test_a_constant_rate_is_one() -> None:
    assert [Rates().part(done) for done in (0, 7, 10**9)] == [1.0, 1.0, 1.0]


def test_cosine_is_half_in_the_middle_and_least_at_the_end() -> None:
    rates = Rates("cosine", rounds=30)
    assert rates.part(0) == 1.0
    assert rates.part(15) == pytest.approx(0.5)
    assert rates.part(10) == pytest.approx((1 + math.cos(math.pi / 3)) / 2)
    assert rates.part(30) == rates.part(40) == LEAST


def test_step_falls_by_its_factor_every_so_many_rounds() -> None:
    rates = Rates("step", every=10, factor=0.5)
    assert [rates.part(done) for done in (0, 9, 10, 19, 20)] == [1, 1, 0.5, 0.5, 0.25]


@given(
    st.builds(
        Rates,
        st.sampled_from(["constant", "cosine", "step"]),
        st.integers(1, 1000),
        st.integers(1, 100),
        st.floats(0.01, 0.99),
    ),
    st.integers(0, 10**6),
)
def test_no_schedule_rises_or_reaches_nothing(rates: Rates, done: int) -> None:
    assert 1 >= rates.part(done) >= rates.part(done + 1) > 0
