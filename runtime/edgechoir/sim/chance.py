"""Everything random in a simulation, from one seed."""

import hashlib
import itertools
import random

from edgechoir.types import Entropy


def entropy_of(seed: int, name: str) -> Entropy:
    """A repeatable stream of bytes in the place of the operating system's. Simulation only."""
    key = hashlib.sha256(f"simulated entropy {seed} {name}".encode()).digest()
    counter = itertools.count()

    def draw(n: int) -> bytes:
        return hashlib.shake_256(key + next(counter).to_bytes(8)).digest(n)

    return draw


def chance_of(seed: int, name: str) -> random.Random:
    """A generator for network and faults, independent of the ones of other names."""
    return random.Random(f"{seed} {name}")  # noqa: S311  # chance of faults, not of secrets
