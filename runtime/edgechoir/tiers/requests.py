"""What may be asked of a running device about its pipeline."""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from edgechoir.config.reading import load_for
from edgechoir.config.tiers import DeviceConfig
from edgechoir.errors import ConfigError, OperatorError
from edgechoir.tiers.device import Device
from edgechoir.tiers.stream import updated

log: Final = logging.getLogger(__name__)


class Requests:
    """Answers requests about one device's pipeline."""

    def __init__(self, device: Device) -> None:
        self._device = device

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Raises EdgechoirError: what is asked for cannot be done; nothing has changed."""
        pipeline = self._device.pipeline
        match request:
            case {"do": "list"}:
                return {"rows": [asdict(row) for row in pipeline.rows()]}
            case {"do": "letters", "name": str(name)}:
                return {"letters": [asdict(letter) for letter in pipeline.letters(name)]}
            case {"do": "pause" | "resume" as do, "name": str(name)}:
                pipeline.pause(name, do == "pause")
                log.info("%s is %sd", name, do)
                return {}
            case {"do": "update", "config": str(path)}:
                return await self._update(Path(path))
        raise OperatorError(f"no such request: {str(dict(request))[:80]}")

    async def _update(self, path: Path) -> dict[str, Any]:
        device = self._device
        old = device.pipeline.flow
        config = await asyncio.to_thread(load_for, path, DeviceConfig)
        if (config.federation, config.member) != (device.config.federation, device.config.member):
            raise ConfigError(f"{path} is the configuration of {config.member}, not of this device")
        flow = await asyncio.to_thread(updated, old, config, device.predictor, device.sinks)
        device.pipeline.update(flow)
        log.info("the pipeline was updated from %s", path)
        return {"steps": [step.name for step in flow.steps]}
