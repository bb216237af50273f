"""So much at once, so much in the long run."""

from hypothesis import given
from hypothesis import strategies as st

from edgechoir.fleet.budget import Budget


@given(
    burst=st.integers(1, 20),
    every=st.floats(0.1, 100),
    steps=st.lists(st.floats(0, 50), min_size=1, max_size=200),
)
def test_no_more_happens_than_the_budget_says(burst: int, every: float, steps: list[float]) -> None:
    budget = Budget(burst, every)
    now, taken = 0.0, 0
    for step in steps:
        now += step
        taken += budget.take(now)
    passed = now - steps[0]
    assert taken <= burst + passed / every + 1e-6


def test_what_is_left_comes_back_up_to_the_burst() -> None:
    budget = Budget(2, 10.0)
    assert [budget.take(0.0) for _ in range(3)] == [True, True, False]
    assert not budget.take(9.0)
    assert budget.take(10.0)
    assert [budget.take(1000.0) for _ in range(3)] == [True, True, False]


def test_a_clock_set_back_gives_nothing_away() -> None:
    budget = Budget(1, 10.0)
    assert budget.take(100.0)
    assert not budget.take(0.0)
    assert not budget.take(105.0)
    assert budget.take(110.0)
