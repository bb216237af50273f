"""A search finds the best of its candidates with fewer rounds than all would take."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.learning.search import Placed, Score, Trial, halving, planned


def searched(scores: list[Score], rounds: int) -> tuple[list[Trial], list[Placed]]:
    """The trials asked for and the outcome, where candidate n always scores scores[n]."""
    asked: list[Trial] = []
    search = halving(len(scores), rounds)
    try:
        asked.append(next(search))
        while True:
            asked.append(search.send(scores[asked[-1].candidate]))
    except StopIteration as over:
        return asked, over.value


def test_all_run_a_third_and_the_better_third_all_rounds() -> None:
    asked, placed = searched([Score(n / 10) for n in range(9)], 9)
    assert [(t.candidate, t.rounds) for t in asked[:9]] == [(n, 3) for n in range(9)]
    assert [(t.candidate, t.rounds) for t in asked[9:]] == [(8, 9), (7, 9), (6, 9)]
    assert [one.trial.candidate for one in placed] == [8, 7, 6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(("candidates", "rounds"), [(3, 9), (1, 5), (9, 1)])
def test_few_candidates_or_rounds_make_one_rung(candidates: int, rounds: int) -> None:
    asked, _ = searched([Score(0.5)] * candidates, rounds)
    assert asked == [Trial(n, rounds) for n in range(candidates)]


def test_accuracy_counts_before_loss_and_loss_where_there_is_none() -> None:
    _, placed = searched([Score(0.5, 0.1), Score(0.6, 9.0), Score(0.6, 2.0)], 1)
    assert [one.trial.candidate for one in placed] == [2, 1, 0]
    _, placed = searched([Score(None, 3.0), Score(None, 1.0), Score(None, math.inf)], 1)
    assert [one.trial.candidate for one in placed] == [1, 0, 2]


def test_what_cannot_be_judged_comes_last_whatever_it_ran() -> None:
    scores = [Score(reason="too slow"), Score(None, math.nan), Score(None, 5.0), Score(None, 6.0)]
    _, placed = searched(scores, 9)
    assert [one.trial.candidate for one in placed[:2]] == [2, 3]


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=30),
    st.integers(1, 40),
)
def test_the_best_is_found_and_as_many_rounds_spent_as_planned(
    accuracies: list[float], rounds: int
) -> None:
    asked, placed = searched([Score(accuracy) for accuracy in accuracies], rounds)
    assert accuracies[placed[0].trial.candidate] == max(accuracies)
    assert sorted(one.trial.candidate for one in placed) == list(range(len(accuracies)))
    assert sum(trial.rounds + 1 for trial in asked) == planned(len(accuracies), rounds)
