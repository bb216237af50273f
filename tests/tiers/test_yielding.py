"""Training waits while answers take too long, and goes on when they do not."""

import asyncio
import os
from pathlib import Path

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.errors import TrainingError
from edgechoir.inference.predictor import Predictor
from edgechoir.tiers.yielding import yield_to_answers
from edgechoir.training.trainer import Trainer, available
from edgechoir.types import FitPlan

if not available():
    pytest.skip("training needs the extra 'train'", allow_module_level=True)
pytestmark = pytest.mark.torch

FOLDER = Path(__file__).parents[2] / "models" / "digits" / "bundle"
X = np.zeros((50, 64), np.float32)


class Ticks:
    """A clock that advances by `step` seconds at each look."""

    def __init__(self) -> None:
        self._now, self.step = 0.0, 1e-5

    def __call__(self) -> float:
        self._now += self.step
        return self._now


def test_training_stands_still_while_answers_are_slow() -> None:
    bundle = load_bundle(FOLDER)
    clock = Ticks()
    predictor = Predictor(bundle.onnx, bundle.params, 0, shape=(64,), clock=clock)

    async def trial() -> None:
        async with Trainer(FOLDER) as trainer:
            yielding = asyncio.create_task(yield_to_answers(trainer, predictor, 0.05))
            await trainer.warm()
            assert trainer.pid is not None
            endless = FitPlan(epochs=10_000, batch_size=1)
            job = asyncio.create_task(
                trainer.fit(bundle.params, X, np.zeros(50, np.int64), endless)
            )
            clock.step = 1.0
            predictor.predict(X[0])
            async with asyncio.timeout(20):
                await asyncio.to_thread(os.waitid, os.P_PID, trainer.pid, os.WSTOPPED)
            assert (trainer.paused, trainer.stats.pauses) == (True, 1)
            clock.step = 1e-5
            predictor.predict(X[0])
            async with asyncio.timeout(20):
                await asyncio.to_thread(os.waitid, os.P_PID, trainer.pid, os.WCONTINUED)
            assert not trainer.paused
            await trainer.cancel()
            with pytest.raises(TrainingError, match="cancelled"):
                await job
            # With another worker it looks again.
            clock.step = 1.0
            predictor.predict(X[0])
            await trainer.warm()
            predictor.predict(X[0])
            async with asyncio.timeout(20):
                await asyncio.to_thread(os.waitid, os.P_PID, trainer.pid, os.WSTOPPED)
            yielding.cancel()
            await asyncio.wait([yielding])

    asyncio.run(trial())
    predictor.close()
