"""Made-up samples, to try a pipeline before there is a sensor. They say in `key` what they are.

`sine`: one slow wave a value, each shifted in phase, with noise. `noise`: Gaussian. `walk`: a
random walk. `faults`: `sine` where one sample in twenty is a step up and labelled 1, others 0.
"""

from collections.abc import Iterator
from itertools import count
from typing import Final, Literal, get_args

import numpy as np

from edgechoir.errors import OperatorError

Shape = Literal["sine", "noise", "walk", "faults"]
NOISE: Final = 0.1
PERIOD: Final = 100
"""Samples in one wave."""
FAULT_SHARE: Final = 0.05
FAULT_SIZE: Final = 3.0


def synthetic(shape: Shape, values: int, seed: int = 0) -> Iterator[object]:
    """x [values] for ever, or (x, y) for `faults`. The same seed gives the same samples.

    Raises OperatorError: no such shape, or fewer than one value.
    """
    if shape not in get_args(Shape) or values < 1:
        raise OperatorError(f"shape {shape!r}, values {values}: use {', '.join(get_args(Shape))}")
    return _samples(shape, values, np.random.default_rng(seed))


def _samples(shape: Shape, values: int, chance: np.random.Generator) -> Iterator[object]:
    phase = np.arange(values) / values
    at = np.zeros(values)
    for i in count():
        noise = chance.normal(0.0, 1.0, values)
        if shape == "noise":
            yield noise
        elif shape == "walk":
            at = at + NOISE * noise
            yield at
        else:
            x = np.sin(2 * np.pi * (i / PERIOD + phase)) + NOISE * noise
            if shape == "sine":
                yield x
            else:
                fault = chance.random() < FAULT_SHARE
                yield x + FAULT_SIZE * fault, int(fault)
