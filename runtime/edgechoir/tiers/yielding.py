"""Training that waits while answers take too long: the worker is stopped, and goes on after."""

import asyncio
import logging
import time
from typing import Final

from edgechoir.inference.predictor import Predictor
from edgechoir.training.governor import Governor
from edgechoir.training.trainer import Trainer

log: Final = logging.getLogger(__name__)

LOOK_S: Final = 0.1
"""Seconds between two looks while a worker is there; without one nobody looks."""
LONG_S: Final = 30.0
"""A pause that lasts longer is worth a line in the log."""


async def yield_to_answers(trainer: Trainer, predictor: Predictor, budget: float) -> None:
    """Pause the trainer's worker while the p99 of answers is over `budget` seconds. Never ends."""
    waits = Governor(budget)
    while True:
        await trainer.started.wait()
        seen, _ = predictor.latencies_since(0)
        paused_at: float | None = None
        while trainer.pid is not None:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            seen, latencies = predictor.latencies_since(seen)
            if not waits(latencies, now):
                trainer.resume()
                paused_at = None
                continue
            trainer.pause()
            if paused_at is None:
                paused_at = now
            elif now - paused_at > LONG_S:
                paused_at = float("inf")  # said once a pause
                log.warning(
                    "training has waited for %.0f s: 99 of 100 answers must come within %g ms "
                    "(training.p99_budget_ms), and they do not although it waits",
                    LONG_S,
                    budget * 1e3,
                )
        trainer.resume()
        trainer.started.clear()
