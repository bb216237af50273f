from hypothesis import given
from hypothesis import strategies as st

from edgechoir.store.retention import surplus

COUNTS = st.dictionaries(st.none() | st.integers(0, 9), st.integers(1, 100), max_size=8)


@given(counts=COUNTS, capacity=st.integers(0, 300))
def test_what_is_left_fits_and_no_class_suffers_for_a_larger_one(
    counts: dict[int | None, int], capacity: int
) -> None:
    given_up = surplus(counts, capacity)
    left = {label: count - given_up.get(label, 0) for label, count in counts.items()}
    assert sum(left.values()) == min(capacity, sum(counts.values()))
    assert all(count >= 0 for count in left.values())
    for label, count in left.items():
        if count < counts[label]:  # it gave rows up: nobody else kept more than one above it
            assert max(left.values()) <= count + 1


def test_the_rare_class_keeps_everything() -> None:
    assert surplus({0: 1000, 1: 10, 2: 300}, 210) == {0: 900, 2: 200}
