"""The account of example-level privacy: so many steps, with such a share of the rows and noise."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edgechoir.errors import Malformed

MOST: Final = 64
"""Kinds of steps in an account; beyond, some count as if they had cost more than they did."""


@dataclass(frozen=True, slots=True, order=True)
class Steps:
    """`count` steps in which each row took part with probability `share`, under `noise` z."""

    noise: float
    share: float
    count: int


def private_steps(rows: int, batch: int) -> tuple[int, float]:
    """How many steps an epoch has, and the share of the rows that each of them draws."""
    return -(-rows // batch), min(1.0, batch / rows)


def rounded_share(share: float) -> float:
    """Up to two digits, at most 1: an account of many slightly different shares would never end."""
    digits = 10.0 ** (1 - math.floor(math.log10(share)))
    return min(math.ceil(share * digits) / digits, 1.0)


def with_steps(account: Sequence[Steps], new: Steps) -> tuple[Steps, ...]:
    """The account with these steps. What is merged for want of room costs more, never less."""
    counts: dict[tuple[float, float], int] = {}
    for one in (*account, new):
        key = (one.noise, rounded_share(one.share))
        counts[key] = counts.get(key, 0) + one.count
    while len(counts) > MOST:
        kinds = sorted(counts)
        low, high = kinds[0], kinds[1]
        worse = (min(low[0], high[0]), max(low[1], high[1]))
        merged = counts.pop(low) + counts.pop(high)
        counts[worse] = counts.get(worse, 0) + merged
    return tuple(Steps(*key, counts[key]) for key in sorted(counts))


def write_account(account: Sequence[Steps]) -> bytes:
    """As JSON."""
    return json.dumps([[one.noise, one.share, one.count] for one in account]).encode()


def read_account(text: bytes) -> tuple[Steps, ...]:
    """Raises Malformed."""
    try:
        rows = json.loads(text)
        found = tuple(Steps(float(noise), float(share), int(count)) for noise, share, count in rows)
    except (ValueError, TypeError):
        raise Malformed("an account of example-level privacy that cannot be read") from None
    if any(not (one.noise > 0 and 0 < one.share <= 1 and one.count > 0) for one in found):
        raise Malformed("an account of example-level privacy with impossible steps")
    return found
