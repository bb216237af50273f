"""The masking of Flower's SecAgg+ alone. Runs under the Python of an environment with `flwr`.

Each line on standard input has a dimension and a number of neighbours; the answer is the seconds
of processor time that one member takes to mask its vector.
"""

import os
import sys
import time

import numpy as np
from flwr.common.secure_aggregation.ndarrays_arithmetic import (
    parameters_addition,
    parameters_mod,
    parameters_subtraction,
)
from flwr.common.secure_aggregation.quantization import quantize
from flwr.common.secure_aggregation.secaggplus_utils import pseudo_rand_gen

MOD_RANGE = 1 << 32
TARGET_RANGE = 1 << 22


def seconds(dimension: int, neighbours: int) -> float:
    """As in `secaggplus_mod`, from the quantised vector to the one that is sent.

    Agreeing on the seeds is not counted.
    """
    zeros = np.zeros(dimension, np.float32)
    vector = quantize([zeros], clipping_range=8.0, target_range=TARGET_RANGE)
    shapes = [each.shape for each in vector]
    began = time.thread_time()
    vector = parameters_addition(vector, pseudo_rand_gen(os.urandom(32), MOD_RANGE, shapes))
    for neighbour in range(neighbours):
        pad = pseudo_rand_gen(os.urandom(32), MOD_RANGE, shapes)
        combine = parameters_addition if neighbour % 2 else parameters_subtraction
        vector = combine(vector, pad)
    parameters_mod(vector, MOD_RANGE)
    return time.thread_time() - began


for line in sys.stdin:
    print(seconds(*map(int, line.split())), flush=True)
