"""From a source's or sink's section in the configuration to what it describes.

A device has one of many kinds, so each is imported where it is made.
"""

import inspect
import os
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, assert_never

from edgechoir.config.sensor import (
    AnySensor,
    CameraSensor,
    GeneratorSensor,
    GpioSensor,
    HttpSensor,
    IioSensor,
    MqttSensor,
    PythonSensor,
    ReplaySensor,
    SerialSensor,
    SystemSensor,
    WebhookSensor,
)
from edgechoir.config.sink import AnyOut, FileOut, HttpOut, MqttOut, PythonOut, SqliteOut
from edgechoir.errors import OperatorError
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sink import Sink
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.pipeline.source import Source, find_function
from edgechoir.pipeline.sources.mqtt import MqttSource
from edgechoir.pipeline.sources.python import PythonSource, paced, polled
from edgechoir.transport.mqtt import MqttLink, MqttSettings

SUBSCRIBE_S: Final = 3600.0
INBOX: Final = 4096
"""Messages that wait for the pipeline. What sensors send with QoS 0 beyond it is lost."""
MAX_TOKEN: Final = 4096


def make_source(sensor: AnySensor) -> Source:
    """Raises OperatorError: what is declared cannot work, as a function that cannot be imported."""
    key = sensor.name or sensor.source
    match sensor:
        case ReplaySensor():
            from edgechoir.pipeline.sources.replay import Replay

            return Replay(
                sensor.path,
                None if sensor.speed is not None else sensor.rate_hz,
                x=sensor.x,
                y=sensor.y,
                time=sensor.time or ("time" if sensor.speed is not None else None),
                keys=sensor.keys,
                speed=sensor.speed,
                block=sensor.block,
                loop=sensor.loop,
                seed=0 if sensor.shuffle else None,
                key=key,
            )
        case PythonSensor():
            return _python_source(find_function(sensor.call), sensor.rate_hz, key)
        case MqttSensor():
            return SensorBroker(sensor, key)
        case HttpSensor():
            from edgechoir.pipeline.sources.http_poll import HttpReading

            fields = sensor.fields or ()
            read = HttpReading(sensor.url, fields, key=key, deadline=sensor.deadline_s)
            return _polled(read, sensor.rate_hz, key)
        case WebhookSensor():
            from edgechoir.pipeline.sources.http_receive import HttpReceiver

            token = None if sensor.token_file is None else _token(sensor.token_file)
            return HttpReceiver(sensor.host, sensor.port, token=token, key=key)
        case SerialSensor():
            from edgechoir.pipeline.sources.serial import SerialSource

            return SerialSource(sensor.path, sensor.baud, silence=sensor.silence_s, key=key)
        case IioSensor():
            from edgechoir.pipeline.sources.iio import IioReading

            return _polled(IioReading(sensor.device, sensor.channels), sensor.rate_hz, key)
        case GpioSensor():
            from edgechoir.pipeline.sources.iio import GpioReading

            return _polled(GpioReading(sensor.lines), sensor.rate_hz, key)
        case CameraSensor():
            from edgechoir.pipeline.sources.camera import pictures

            camera = partial(pictures, sensor.device, sensor.width, sensor.height, grey=sensor.grey)
            return PythonSource(lambda: paced(camera(), sensor.rate_hz), key=key)
        case SystemSensor():
            from edgechoir.pipeline.sources.system import SystemMetrics

            return _polled(SystemMetrics(sensor.metrics), sensor.rate_hz, key)
        case GeneratorSensor():
            from edgechoir.pipeline.sources.generator import synthetic

            made = partial(synthetic, sensor.shape, sensor.values, sensor.seed)
            return PythonSource(lambda: paced(made(), sensor.rate_hz), key=key)
    assert_never(sensor)


def make_sink(out: AnyOut) -> Sink:
    """Raises OperatorError: what is declared cannot work."""
    name = out.name or out.sink
    match out:
        case FileOut():
            from edgechoir.pipeline.sinks.jsonl import JsonlSink

            return JsonlSink(out.path, out.max_bytes, out.keep, name)
        case MqttOut():
            return _mqtt_sink(out, name)
        case HttpOut():
            from edgechoir.pipeline.sinks.http import HttpSink

            token = None if out.token_file is None else _token(out.token_file)
            return HttpSink(out.url, token=token, deadline=out.deadline_s, name=name)
        case SqliteOut():
            from edgechoir.pipeline.sinks.sqlite import SqliteSink

            return SqliteSink(out.path, out.rows, name)
        case PythonOut():
            function = find_function(out.call)
            if inspect.iscoroutinefunction(function):
                return CallbackSink(name, function)
            return CallbackSink(name, _plain(function))
    assert_never(out)


def _plain(function: Callable[..., object]) -> Callable[[Sample], None]:
    """What the user's function gives is nothing to a sink."""

    def call(sample: Sample) -> None:
        function(sample)

    return call


def _polled(read: Callable[[], object], rate_hz: float, key: str) -> PythonSource:
    return PythonSource(partial(polled, read, rate_hz), key=key)


def _token(path: Path) -> str:
    try:
        with path.open(encoding="ascii") as file:
            token = file.read(MAX_TOKEN + 1).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise OperatorError(f"{path} cannot be read as a token: {error}") from error
    if not 16 <= len(token) <= MAX_TOKEN or not token.isprintable():
        raise OperatorError(f"{path} holds a token of {len(token)} characters: use 16 or more")
    return token


def _mqtt_sink(out: MqttOut, name: str) -> Sink:
    """Its connection is opened with the first batch, by the task that writes."""
    from edgechoir.pipeline.sinks.mqtt import MqttSink

    link = MqttLink(MqttSettings(out.host, out.port, name, os.urandom(8)))
    opened = False

    async def publish(payload: bytes) -> None:
        nonlocal opened
        if not opened:
            opened = True
            await link.__aenter__()
        await link.publish(out.topic, payload, qos=out.qos)

    async def close() -> None:
        await link.__aexit__(None, None, None)

    return MqttSink(publish, close, name)


def _python_source(function: Callable[..., object], rate_hz: float, key: str) -> PythonSource:
    """A generator gives readings at its own pace; any other function gives one a call."""
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        return PythonSource(function, key=key)
    return _polled(function, rate_hz, key)


class SensorBroker:
    """Samples from a broker on the local network, over a connection of their own.

    The fleet's broker carries no sensor data; what sensors publish stays on their network.
    """

    def __init__(self, sensor: MqttSensor, key: str) -> None:
        self._topic = sensor.topic
        settings = MqttSettings(
            sensor.host, sensor.port, "sensor", os.urandom(8), inbox_messages=INBOX
        )
        self._link = MqttLink(settings)
        self._source = MqttSource(self._payloads(), key=key)

    @property
    def counts(self) -> Mapping[str, int]:
        return self._source.counts

    async def __aenter__(self) -> "SensorBroker":
        await self._link.__aenter__()
        await self._source.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._link.__aexit__(None, None, None)

    def __aiter__(self) -> AsyncIterator[Sample | Block]:
        return aiter(self._source)

    async def _payloads(self) -> AsyncIterator[bytes]:
        await self._link.subscribe(self._topic, timeout=SUBSCRIBE_S)
        async for message in self._link.messages():
            yield message.payload
