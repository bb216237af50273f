"""One round of a rule as it happens: devices' vectors encoded, masked, added, decoded."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from edgechoir.learning.fixed_point import Encoding, Figures, Total
from edgechoir.types import Floats

Summed = Callable[..., Total]


def _summed(
    vectors: Floats, counts: Sequence[int], clip: float = 1.0, max_samples: int = 200, seed: int = 0
) -> Total:
    m, d = vectors.shape
    encoding = Encoding(d, m, clip, max_samples)
    chance = np.random.default_rng(seed)
    total = np.zeros(encoding.length, np.uint32)
    masks = chance.integers(0, 2**32, (m, encoding.length), np.uint32)
    for vector, n, mask in zip(vectors, counts, masks, strict=True):
        noise = chance.integers(0, 2**32, d, np.uint32)
        total += encoding.encode(vector, n, Figures(), noise) + mask
    return encoding.decode(total - masks.sum(0, dtype=np.uint32))


@pytest.fixture
def summed() -> Summed:
    """(vectors [m, d], counts [m]) -> their decoded sum, each masked until the masks' sum is
    taken off."""
    return _summed
