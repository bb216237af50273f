"""A full queue drops by its rule, and what is left comes out by priority and in order."""

from hypothesis import given
from hypothesis import strategies as st

from edgechoir.inference.waiting import Priority, Waiting, WhenFull

LIVE, BULK = Priority.LIVE, Priority.BULK


def drained(waiting: Waiting[int]) -> list[int]:
    found = []
    while (next_ := waiting.take()) is not None:
        found.append(next_)
    return found


def test_live_requests_go_before_bulk_ones() -> None:
    waiting: Waiting[int] = Waiting(8)
    for number, priority in enumerate((BULK, LIVE, BULK, LIVE)):
        assert waiting.put(number, priority) is None
    assert waiting.peek() == 1
    assert drained(waiting) == [1, 3, 0, 2]
    assert waiting.peek() is None


def test_each_rule_drops_what_it_says() -> None:
    newest: Waiting[int] = Waiting(2, WhenFull.NEWEST)
    oldest: Waiting[int] = Waiting(2, WhenFull.OLDEST)
    assert [newest.put(number, LIVE) for number in range(4)] == [None, None, 2, 3]
    assert [oldest.put(number, LIVE) for number in range(4)] == [None, None, 0, 1]


@given(
    bound=st.integers(1, 5),
    when_full=st.sampled_from(WhenFull),
    priorities=st.lists(st.sampled_from(Priority), max_size=30),
)
def test_the_bound_holds_nothing_is_lost_and_no_live_request_goes_for_a_bulk_one(
    bound: int, when_full: WhenFull, priorities: list[Priority]
) -> None:
    waiting: Waiting[int] = Waiting(bound, when_full)
    dropped = []
    for number, priority in enumerate(priorities):
        gone = waiting.put(number, priority)
        assert len(waiting) <= bound
        if gone is not None:
            dropped.append(gone)
            bulk = [n for n in range(number + 1) if priorities[n] is BULK and n not in dropped]
            assert priorities[gone] is BULK or not bulk
    left = drained(waiting)
    assert sorted(dropped + left) == list(range(len(priorities)))
    assert left == sorted(left, key=lambda number: (priorities[number], number))
