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
from edgechoir.tiers.local_calls import Handler, Tell
from edgechoir.tiers.stream import updated

log: Final = logging.getLogger(__name__)

Asked = Mapping[str, Any]
Said = dict[str, Any]


def handlers_of(device: Device) -> dict[str, Handler]:
    """What is answered about its pipeline, by what is to be done. A handler raises EdgechoirError:
    what is asked for cannot be done, and nothing has changed."""
    pipeline = device.pipeline

    async def rows(_: Asked, __: Tell) -> Said:
        return {"rows": [asdict(row) for row in pipeline.rows()]}

    async def letters(asked: Asked, _: Tell) -> Said:
        return {"letters": [asdict(letter) for letter in pipeline.letters(_text(asked, "name"))]}

    async def pause(asked: Asked, _: Tell) -> Said:
        pipeline.pause(_text(asked, "name"), True)
        log.info("%s is paused", asked["name"])
        return {}

    async def resume(asked: Asked, _: Tell) -> Said:
        pipeline.pause(_text(asked, "name"), False)
        log.info("%s is resumed", asked["name"])
        return {}

    async def update(asked: Asked, _: Tell) -> Said:
        return await _update(device, Path(_text(asked, "config")))

    return {"list": rows, "letters": letters, "pause": pause, "resume": resume, "update": update}


def _text(asked: Asked, key: str) -> str:
    value = asked.get(key)
    if not isinstance(value, str):
        raise OperatorError(f"a request to {asked['do']} has a text as its {key}")
    return value


async def _update(device: Device, path: Path) -> Said:
    old = device.pipeline.flow
    config = await asyncio.to_thread(load_for, path, DeviceConfig)
    if (config.federation, config.member) != (device.config.federation, device.config.member):
        raise ConfigError(f"{path} is the configuration of {config.member}, not of this device")
    flow = await asyncio.to_thread(updated, old, config, device.predictor, device.sinks)
    device.pipeline.update(flow)
    log.info("the pipeline was updated from %s", path)
    return {"steps": [step.name for step in flow.steps]}
