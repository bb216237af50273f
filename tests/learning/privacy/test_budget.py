"""What a round costs agrees with the papers and with an accountant of somebody else."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError
from edgechoir.learning.privacy.budget import cost, epsilon, rho_for


def test_one_member_s_noise_costs_what_a_gaussian_costs() -> None:
    """rho = Delta^2 / (2 sigma^2) (Bun, Steinke 2016, proposition 1.6)."""
    assert cost(10.0, 20.0, 1, 1000) == pytest.approx(0.125)
    assert cost(10.0, 20.0, 4, 1000) == pytest.approx(0.125 / 4)


def test_coarse_noise_costs_more_than_a_gaussian() -> None:
    fine, coarse = cost(5.0, 5.0, 8, 1000), cost(0.5, 0.5, 8, 1000)
    assert fine == pytest.approx(1 / 16, rel=1e-6)
    assert coarse > fine


@pytest.mark.parametrize(
    ("rho", "delta", "least", "most"),
    [
        # Bun, Steinke 2016, proposition 1.3: rho + 2 sqrt(rho log(1/delta)) is an upper bound.
        (0.5, 1e-5, 0.0, 0.5 + 2 * math.sqrt(0.5 * math.log(1e5))),
        # A Gaussian of sigma = 1 and sensitivity 1 has epsilon 4.3776 at delta 1e-5 exactly
        # (Balle, Wang 2018, theorem 8), so nothing less can be right.
        (0.5, 1e-5, 4.3776, 4.8),
    ],
)
def test_epsilon_lies_where_the_papers_put_it(
    rho: float, delta: float, least: float, most: float
) -> None:
    assert least <= epsilon(rho, delta) <= most


@settings(deadline=None)
@given(rho=st.floats(1e-6, 50), delta=st.floats(1e-12, 0.1))
def test_an_accountant_of_somebody_else_says_the_same(rho: float, delta: float) -> None:
    """Google's dp-accounting, from the orders of its own."""
    dp = pytest.importorskip("dp_accounting", reason="dp-accounting is not installed")
    accountant = dp.rdp.RdpAccountant(
        orders=[1 + 10 ** (x / 200) for x in range(-600, 1201)],
        neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE,
    )
    accountant.compose(dp.GaussianDpEvent(1 / math.sqrt(2 * rho)))
    theirs = accountant.get_epsilon(delta)
    assert epsilon(rho, delta) == pytest.approx(theirs, rel=2e-3, abs=1e-3)


@given(one=st.floats(1e-6, 5), two=st.floats(1e-6, 5), delta=st.floats(1e-10, 0.01))
def test_more_rounds_cost_more(one: float, two: float, delta: float) -> None:
    assert epsilon(one + two, delta) >= max(epsilon(one, delta), epsilon(two, delta))


@given(target=st.floats(0.05, 50), delta=st.floats(1e-10, 0.01))
def test_a_budget_is_spent_up_to_its_epsilon_and_not_beyond(target: float, delta: float) -> None:
    rho = rho_for(target, delta)
    assert epsilon(rho, delta) <= target
    assert epsilon(rho * 1.001, delta) > target


@pytest.mark.parametrize(("sensitivity", "sigma", "honest"), [(0, 5, 3), (1, 0.4, 3), (1, 5, 0)])
def test_what_no_theorem_covers_is_refused(sensitivity: float, sigma: float, honest: int) -> None:
    with pytest.raises(LocalError, match="no privacy is known"):
        cost(sensitivity, sigma, honest, 10)
