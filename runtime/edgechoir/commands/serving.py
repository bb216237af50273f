"""Run something until it ends or the process is told to stop, by SIGINT or SIGTERM alike."""

import asyncio
import logging
import logging.handlers
import signal
import sys
from collections.abc import Coroutine
from typing import Any

from edgechoir.commands import footprint
from edgechoir.config.sections import Log


def serve(work: Coroutine[Any, Any, None]) -> int:
    """Returns 0 after a clean stop; errors of the work pass through."""

    async def until_told() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        told = False

        def stop() -> None:
            nonlocal told
            told = True
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        loop.call_later(footprint.SETTLE_S, footprint.settle)
        try:
            await task
        except asyncio.CancelledError:
            if not told:
                raise

    footprint.ready()
    asyncio.run(until_told())
    return 0


def set_up_logging(log: Log) -> None:
    """Log as the configuration says; a file keeps within twice its bound."""
    handler: logging.Handler
    if log.file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        log.file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.handlers.RotatingFileHandler(
            log.file, maxBytes=log.max_bytes, backupCount=1
        )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=log.level.upper(), handlers=[handler])
