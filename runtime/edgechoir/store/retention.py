"""Which rows a full store gives up.

recent      the oldest
reservoir   those of the lowest rank, which is a hash of the sample: what is left is a uniform
            choice of all that ever came (bottom-k sampling; Cohen and Kaplan 2007, section 2), and
            what comes again has the rank it had
balanced    of the classes with most rows, down to one level for all; within a class as above
"""

from collections.abc import Mapping
from typing import Final, Literal

Keep = Literal["recent", "reservoir"]

LOWEST: Final[Mapping[Keep, str]] = {
    "recent": "DELETE FROM samples WHERE id IN (SELECT id FROM samples ORDER BY id LIMIT ?)",
    "reservoir": "DELETE FROM samples WHERE id IN (SELECT id FROM samples ORDER BY rank LIMIT ?)",
}
"""Give up so many rows."""
LOWEST_OF_CLASS: Final[Mapping[Keep, str]] = {
    "recent": "DELETE FROM samples WHERE id IN "
    "(SELECT id FROM samples WHERE label IS ? ORDER BY id LIMIT ?)",
    "reservoir": "DELETE FROM samples WHERE id IN "
    "(SELECT id FROM samples WHERE label IS ? ORDER BY rank LIMIT ?)",
}
"""Give up so many rows of one class."""


def surplus(counts: Mapping[int | None, int], capacity: int) -> dict[int | None, int]:
    """How many rows each class has to give up so that `capacity` are left, the largest giving most.

    No class falls below a level that another stays above, but for the one row that does not divide.
    """
    left, level = capacity, 0
    given: dict[int | None, int] = {}
    # From the smallest class on: one below an equal share of what is left keeps everything.
    ordered = sorted(counts.items(), key=lambda each: each[1])
    for position, (label, count) in enumerate(ordered):
        level = left // (len(ordered) - position)
        kept = min(count, level)
        left -= kept
        if count > kept:
            given[label] = count - kept
    return given
