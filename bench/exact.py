"""The sum that an aggregator lays bare is the plain integer sum of the survivors, bit for bit.

The vectors are updates that twelve devices of the demo learn from their digits. They go through
real endpoints: masked, sealed, signed, summed, and opened with the shares of those who are left.
"""

import asyncio
import os

import numpy as np

from bench.cohort import Cohort
from bench.figures import Figure
from edgechoir.bundle.load import load_bundle
from edgechoir.demo.layout import BATCH, DEVICES, EPOCHS, LEARNING_RATE
from edgechoir.demo.show import bundle_path
from edgechoir.demo.split import digits, shared_out
from edgechoir.learning.fixed_point import Figures
from edgechoir.rounds.endpoint import Outgoing
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import NoContribution
from edgechoir.secagg.pads import uniform
from edgechoir.training.trainer import Trainer
from edgechoir.types import FitPlan, Ring, Update


def measure() -> list[Figure]:
    updates = asyncio.run(learn())
    return [wrong_bits(updates, missing, bits) for bits in (32, 16) for missing in (0, 3)]


async def learn() -> list[Update]:
    """What each device learns in one round."""
    bundle = load_bundle(bundle_path())
    parts, _ = shared_out(digits(), DEVICES, 0)
    plan = FitPlan(EPOCHS, BATCH, LEARNING_RATE, seed=1)
    async with Trainer(bundle.path) as trainer:
        return [await trainer.fit(bundle.params, part.x, part.y, plan) for part in parts]


def wrong_bits(updates: list[Update], missing: int, bits: int) -> Figure:
    """A whole round, in which so many devices give up after they were given work."""
    cohort = Cohort(len(updates), len(updates[0].delta), bits)
    encoding = encoding_of(cohort.plan)
    plain: Ring = np.zeros(encoding.length, encoding.dtype)
    for name in cohort.devices[:missing]:
        for said in cohort.members[name].handle(NoContribution(1, "no more"), cohort.now):
            if isinstance(said, Outgoing):
                cohort.letters.append(("cloud", said.data))
    for name, update in list(zip(cohort.devices, updates, strict=True))[missing:]:
        noise = uniform(os.urandom(32), encoding.dimension)
        figures = Figures(update.n, update.n // 2, float(update.n))
        vector = encoding.encode(update.delta, update.n, figures, noise)
        plain += vector
        cohort.letters.append(("cloud", cohort.contribute(name, vector)))
    cohort.deliver()
    if cohort.done is None:
        raise AssertionError("the round does not end")
    wrong = int(np.bitwise_count(plain ^ cohort.done.total).sum())
    who = f"{len(cohort.done.survivors)} of {len(updates)} members, {bits} bits"
    return Figure(f"wrong bits in the sum of {who}", wrong, f"of {plain.nbytes * 8:,}")
