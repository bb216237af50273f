"""Hypothesis strategies for every message and what is inside one, read off its FIELDS table."""

import math
from typing import Any

import pytest
from hypothesis import strategies as st

from edgechoir import wire
from edgechoir.codec import Codec, Many, Number, Pair, Raw, Text

BODIES = (*wire.KINDS.values(), wire.Plan, wire.Contents, wire.Opened)


def values_of(codec: Codec) -> st.SearchStrategy[Any]:
    """Values that a field may hold; lengths are kept small."""
    match codec:
        case Number(layout, low, high) if layout in "BHIQ":
            return st.integers(math.ceil(low), math.floor(high))
        case Number(_, low, high):
            return st.floats(low, high, allow_nan=False)
        case Raw(limit, exact):
            low_, high_ = (exact, exact) if exact is not None else (0, min(limit, 40))
            return st.binary(min_size=low_, max_size=high_)
        case Text(limit):
            text = st.text(st.characters(exclude_categories=["Cs"]), max_size=limit)
            return text.filter(lambda t: len(t.encode()) <= limit)
        case Many(each, limit):
            return st.lists(values_of(each), max_size=min(limit, 4)).map(tuple)
        case Pair(first, second):
            return st.tuples(values_of(first), values_of(second))
    raise AssertionError(f"no strategy for {codec}")


def bodies_of(kind: type[wire.Message | wire.Inner]) -> st.SearchStrategy[Any]:
    fields = {name: values_of(codec) for name, codec in kind.FIELDS.items()}
    return st.builds(kind, **fields)


@pytest.fixture(params=BODIES, ids=lambda kind: kind.__name__)
def bodies(request: pytest.FixtureRequest) -> st.SearchStrategy[wire.Message | wire.Inner]:
    """Bodies of one kind; a test that asks for it runs for every kind."""
    return bodies_of(request.param)
