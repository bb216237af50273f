from hypothesis import given
from hypothesis import strategies as st

from edgechoir.inference.latency import WINDOW, Latencies


@given(st.lists(st.floats(0, 10), min_size=1, max_size=50), st.floats(0.01, 1))
def test_quantile_bounds_the_share_it_says(seconds: list[float], q: float) -> None:
    latencies = Latencies()
    for value in seconds:
        latencies.add(value)
    found = latencies.quantile(q)
    assert found in seconds
    assert sum(value <= found for value in seconds) >= q * len(seconds)
    assert sum(value < found for value in seconds) < q * len(seconds)


def test_only_the_most_recent_ones_count() -> None:
    latencies = Latencies()
    for _ in range(WINDOW):
        latencies.add(9.0)
    for _ in range(WINDOW):
        latencies.add(1.0)
    assert latencies.quantile(1.0) == 1.0


@given(st.integers(0, 3 * WINDOW), st.integers(0, 3 * WINDOW))
def test_those_since_a_mark_are_the_newest_ones(before: int, after: int) -> None:
    latencies = Latencies()
    for n in range(before):
        latencies.add(float(n))
    mark, _ = latencies.since(0)
    for n in range(before, before + after):
        latencies.add(float(n))
    count, fresh = latencies.since(mark)
    assert count == before + after
    assert fresh == [float(n) for n in range(before + max(0, after - WINDOW), before + after)]


def test_no_latency_is_zero() -> None:
    assert Latencies().quantile(0.99) == 0.0
