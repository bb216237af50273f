"""Curves are drawn within their frame, whatever the numbers are."""

import math
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.report.plot import HEIGHT, PIECES, WIDTH, Level, Point, Series, plot, thinned, ticks

NUMBERS = st.floats(-1e12, 1e12, allow_nan=False) | st.sampled_from([math.nan, math.inf])


def drawn(*series: Series, **options: object) -> str:
    return plot("t", series, x_label="round", show=lambda v: f"{v:.3g}", **options)  # type: ignore[arg-type]


def places(figure: str) -> list[Point]:
    """All points of all curves."""
    pairs = [pair for text in re.findall(r'points="([^"]*)"', figure) for pair in text.split()]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in pairs)]


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=40), st.booleans())
def test_every_point_lies_within_the_drawing(points: list[Point], from_zero: bool) -> None:
    figure = drawn(Series("a", points), levels=[Level("cap", 5.0)], from_zero=from_zero)
    ElementTree.fromstring(figure)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for x, y in places(figure))
    assert "nan" not in figure
    assert "inf" not in figure


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(1, 10))
def test_ticks_are_round_few_and_within(low: float, width: float, about: int) -> None:
    found = ticks(low, low + width, about)
    assert len(found) <= 2.5 * about + 2
    slack = 1e-6 * max(abs(low), width)
    assert all(low - slack <= value <= low + width + slack for value in found)


def test_higher_values_are_drawn_higher() -> None:
    (_, low), (_, high) = places(drawn(Series("a", [(1, 0.1), (2, 0.9)])))
    assert high < low


def test_a_long_curve_is_drawn_by_its_extremes() -> None:
    points = [(float(n), float(n == 31_415)) for n in range(100_000)]
    thin = thinned(points)
    assert len(thin) <= 2 * PIECES
    assert (31_415.0, 1.0) in thin
    assert thin == sorted(thin)


def test_names_are_text_and_nothing_else() -> None:
    figure = drawn(Series("<b>&", [(1, 1)]), Series("x", [(1, 2)]), levels=[Level("<i>", 1.0)])
    assert "<b>" not in figure
    assert "<i>" not in figure
    assert "&lt;b&gt;&amp;" in figure


@pytest.mark.parametrize("points", [[], [(1.0, math.nan)]])
def test_without_a_point_it_says_so(points: list[Point]) -> None:
    assert "not recorded" in drawn(Series("a", points))


def test_one_point_is_a_dot() -> None:
    figure = drawn(Series("a", [(3.0, 7.0)]))
    assert "<circle" in figure
