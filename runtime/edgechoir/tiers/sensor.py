"""From a sensor's section in the configuration to the source it describes."""

import inspect
import os
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Final

from edgechoir.config.sensor import AnySensor, MqttSensor, PythonSensor, ReplaySensor
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.source import Source, find_function
from edgechoir.pipeline.sources.mqtt import MqttSource
from edgechoir.pipeline.sources.python import PythonSource, polled
from edgechoir.pipeline.sources.replay import Replay
from edgechoir.transport.mqtt import MqttLink, MqttSettings

SUBSCRIBE_S: Final = 3600.0


def make_source(sensor: AnySensor) -> Source:
    """Raises OperatorError for a function that cannot be imported."""
    match sensor:
        case ReplaySensor():
            return Replay(
                sensor.path,
                sensor.rate_hz,
                x=sensor.x,
                y=sensor.y,
                loop=sensor.loop,
                seed=0 if sensor.shuffle else None,
            )
        case PythonSensor():
            return _python_source(find_function(sensor.call), sensor.rate_hz)
        case MqttSensor():
            return SensorBroker(sensor)


def _python_source(function: Callable[..., object], rate_hz: float) -> PythonSource:
    """A generator gives readings at its own pace; any other function gives one a call."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return PythonSource(function)
    return PythonSource(partial(polled, function, rate_hz))


class SensorBroker:
    """Samples from a broker on the local network, over a connection of their own.

    The fleet's broker carries no sensor data; what sensors publish stays on their network.
    """

    def __init__(self, sensor: MqttSensor) -> None:
        self._topic = sensor.topic
        self._link = MqttLink(MqttSettings(sensor.host, sensor.port, "sensor", os.urandom(8)))
        self._source = MqttSource(self._payloads())

    @property
    def counts(self) -> Mapping[str, int]:
        return self._source.counts

    async def __aenter__(self) -> "SensorBroker":
        await self._link.__aenter__()
        await self._source.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._link.__aexit__(None, None, None)

    def __aiter__(self) -> AsyncIterator[Sample]:
        return aiter(self._source)

    async def _payloads(self) -> AsyncIterator[bytes]:
        await self._link.subscribe(self._topic, timeout=SUBSCRIBE_S)
        async for message in self._link.messages():
            yield message.payload
