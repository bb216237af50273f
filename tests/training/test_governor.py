from hypothesis import given
from hypothesis import strategies as st

from edgechoir.inference.latency import Latencies
from edgechoir.training.governor import MOST, WINDOW_S, Governor


@given(st.lists(st.floats(0, 0.1), max_size=300), st.floats(0.001, 0.1))
def test_training_waits_while_the_99th_percentile_is_over_the_budget(
    seconds: list[float], budget: float
) -> None:
    latencies = Latencies()
    for each in seconds:
        latencies.add(each)
    assert Governor(budget)(seconds, 0.0) == (latencies.quantile(0.99) > budget)


def test_training_goes_on_a_second_after_the_last_slow_answer() -> None:
    waits = Governor(0.01)
    assert not waits([0.001] * 50, 0.0)
    assert waits([0.02], 0.1)
    assert waits([0.001] * 40, 0.6)
    assert not waits([], 0.1 + WINDOW_S)


def test_one_slow_answer_in_a_hundred_is_within_the_99th_percentile() -> None:
    waits = Governor(0.01)
    assert not waits([0.02] + [0.001] * 99, 0.0)
    assert waits([0.02], 0.0)


def test_no_answers_hold_nothing_up() -> None:
    assert not Governor(0.01)([], 5.0)


def test_a_clock_that_goes_back_forgets() -> None:
    waits = Governor(0.01)
    assert waits([1.0], 100.0)
    assert not waits([], 50.0)


def test_memory_is_bounded() -> None:
    waits = Governor(0.01)
    assert not waits([1.0] * 50 + [0.001] * MOST, 0.0)
