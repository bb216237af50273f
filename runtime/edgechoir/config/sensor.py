"""The sections of a device's configuration from the sensor to the model."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, Strict, model_validator

from edgechoir.config.sections import Name, Place, Section, Text


def _call(text: str) -> str:
    module, colon, function = text.partition(":")
    if not (colon and all(map(str.isidentifier, [*module.split("."), function]))):
        raise ValueError(f"{text!r} is not a call: write package.module:function")
    return text


Bound = float | Annotated[tuple[float, ...], Strict(False), Field(min_length=1)]
"""One number for all values of a sample, or one for each."""


def _numbers(bound: Bound | None) -> tuple[float, ...]:
    return bound if isinstance(bound, tuple) else () if bound is None else (bound,)


def _spread(bound: tuple[float, ...], size: int) -> tuple[float, ...]:
    return bound if len(bound) == size else bound * size


class Check(Section):
    """What a sample must be, and what becomes of one that is not; all is counted."""

    min: Bound | None = Field(default=None, description="Smallest value.", examples=[0.0])
    max: Bound | None = Field(default=None, description="Largest value.", examples=[1.0])
    missing: Literal["drop", "fill", "last", "keep"] = Field(
        default="drop",
        description="A value is missing: drop the sample, put `fill` there, or the last good value "
        "of the same key, or keep the sample without it. Kept gaps want a model that takes them: "
        "trees, or `training.normalise`, which puts the mean of all devices there.",
    )
    fill: float = Field(default=0.0, description="What stands in for a missing value.")
    outside: Literal["drop", "clip", "missing"] = Field(
        default="drop",
        description="A value is below `min` or above `max`: drop the sample, move the value to the "
        "bound, or treat it as missing.",
    )

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        lowest, highest = _numbers(self.min), _numbers(self.max)
        if len(lowest) > 1 and len(highest) > 1 and len(lowest) != len(highest):
            raise ValueError(f"min has {len(lowest)} numbers and max {len(highest)}: give as many")
        if lowest and highest:
            size = max(len(lowest), len(highest))
            pairs = zip(_spread(lowest, size), _spread(highest, size), strict=True)
            for low, high in pairs:
                if low >= high:
                    raise ValueError(f"min is {low} and max {high}: min must be smaller")
        return self


class Store(Section):
    """Which labelled samples are kept for training, and how."""

    rows: int = Field(default=10_000, ge=1, le=100_000_000, description="Samples at most.")
    bytes: int = Field(
        default=64_000_000,
        ge=65_536,
        le=1_000_000_000_000,
        description="Bytes of sample data at most.",
    )
    hours: float | None = Field(
        default=None,
        gt=0,
        le=876_000,
        description="Older samples are dropped; without it, age alone drops none.",
        examples=[720.0],
    )
    keep: Literal["recent", "reservoir"] = Field(
        default="recent",
        description="Which stay when there are too many: the latest, or a uniform choice of all "
        "that ever came.",
    )
    balanced: bool = Field(
        default=False,
        description="Drop from the classes with most samples first; for a classification.",
    )
    encrypt: bool = Field(
        default=False,
        description="Encrypt samples on the disk, with a key in `samples.key` beside the identity.",
    )


class Sensor(Section):
    """What every source of samples has."""

    TAG: ClassVar[str] = "source"

    name: Name | None = Field(
        default=None,
        description='What operators call it in `input`; else "sensor", or in [[sources]] its kind.',
        examples=["pump"],
    )
    check: Check = Check()
    store: Store = Store()


Columns = Text | Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)]
Texts = Annotated[tuple[Text, ...], Strict(False), Field(min_length=1, max_length=64)]
Rate = Annotated[float, Field(gt=0, le=100_000)]
Port = Annotated[int, Field(ge=1, le=65535)]
Call = Annotated[Text, AfterValidator(_call)]


class ReplaySensor(Sensor):
    """Samples from a recording: NPZ, CSV, or Parquet with the extra `parquet`."""

    source: Literal["replay"] = Field(default="replay", description="Where samples come from.")
    path: Place = Field(description="The file with the samples.", examples=["samples.npz"])
    x: Columns = Field(
        default="x",
        description="The inputs: an array of an NPZ file, or the columns of a CSV or Parquet file.",
    )
    y: Text | None = Field(default="y", description="The labels: an array or a column.")
    time: Text | None = Field(
        default=None,
        description="The samples' times: unix seconds or ISO 8601. Without it, when they are read.",
        examples=["time"],
    )
    keys: Text | None = Field(
        default=None, description="The samples' keys: an array or a column.", examples=["machine"]
    )
    rate_hz: Rate = Field(default=10.0, description="Samples a second.")
    speed: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="In place of rate_hz: at the pace of the recorded times (in `time`, or a "
        "column of that name), so many times as fast.",
        examples=[1.0],
    )
    block: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="Give so many samples at once, as a sensor with a buffer does.",
    )
    loop: bool = Field(default=True, description="Begin again at the end of the file.")
    shuffle: bool = Field(default=False, description="Replay in a random order.")

    @model_validator(mode="after")
    def _check_pace(self) -> Self:
        if self.shuffle and (self.time is not None or self.speed is not None):
            raise ValueError("a recording with times is not shuffled: remove shuffle or the times")
        if self.block > 1 and (self.speed is not None or self.keys is not None):
            raise ValueError("block goes with neither speed nor keys: remove it")
        return self


class PythonSensor(Sensor):
    """Samples from a Python function."""

    source: Literal["python"] = Field(default="python", description="Where samples come from.")
    call: Call = Field(
        description="The function, as package.module:function.", examples=["sensors.camera:read"]
    )
    rate_hz: Rate = Field(default=10.0, description="Calls a second.")


class MqttSensor(Sensor):
    """Samples from a topic of a broker on the local network, as JSON {"x": [...], "y": 1}."""

    source: Literal["mqtt"] = Field(default="mqtt", description="Where samples come from.")
    topic: Text = Field(description="The topic filter.", examples=["sensors/line-1"])
    host: Text = Field(default="localhost", description="Host name or address of that broker.")
    port: Port = Field(default=1883, description="Its port.")


class HttpSensor(Sensor):
    """Readings fetched from an address, as JSON."""

    source: Literal["http"] = Field(default="http", description="Where samples come from.")
    url: Text = Field(
        description="The address, http or https.", examples=["http://localhost:8000/reading"]
    )
    fields: Texts | None = Field(
        default=None,
        description="Paths to the numbers in the answer; without it the answer is a JSON sample.",
        examples=[["main.temp", "sensors.0.value"]],
    )
    rate_hz: Rate = Field(default=1.0, description="Readings a second.")
    deadline_s: float = Field(default=10.0, gt=0, le=600, description="Seconds that one may take.")


class WebhookSensor(Sensor):
    """Samples that other programs post to this device over HTTP, as JSON, one a line."""

    source: Literal["webhook"] = Field(default="webhook", description="Where samples come from.")
    host: Text = Field(default="127.0.0.1", description="The address to listen on.")
    port: Port = Field(default=8080, description="The port to listen on.")
    token_file: Place | None = Field(
        default=None,
        description="A file with the token that a post must carry; needed beyond this machine.",
        examples=["webhook.token"],
    )

    @model_validator(mode="after")
    def _check_token(self) -> Self:
        if self.token_file is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"anyone who reaches {self.host} could post samples: set token_file")
        return self


class SerialSensor(Sensor):
    """Lines from a serial port: numbers, or a JSON sample."""

    source: Literal["serial"] = Field(default="serial", description="Where samples come from.")
    path: Place = Field(description="The port.", examples=["/dev/ttyUSB0"])
    baud: int = Field(default=115_200, ge=50, le=4_000_000, description="Bits a second.")
    silence_s: float = Field(
        default=60.0,
        gt=0,
        le=86400,
        description="A port that says nothing for so long is closed and opened again.",
    )


class IioSensor(Sensor):
    """Channels of an industrial I/O sensor, from Linux's sysfs, in their units."""

    source: Literal["iio"] = Field(default="iio", description="Where samples come from.")
    device: Text = Field(
        description="Its name, or its folder's, as iio:device0.", examples=["bme280"]
    )
    channels: Texts = Field(
        description="Channels without in_ and _raw.", examples=[["temp", "voltage0"]]
    )
    rate_hz: Rate = Field(default=10.0, description="Readings a second.")


class GpioSensor(Sensor):
    """Levels of exported GPIO lines, from Linux's sysfs."""

    source: Literal["gpio"] = Field(default="gpio", description="Where samples come from.")
    lines: Annotated[tuple[int, ...], Strict(False), Field(min_length=1, max_length=64)] = Field(
        description="Their numbers.", examples=[[17]]
    )
    rate_hz: Rate = Field(default=10.0, description="Readings a second.")


class CameraSensor(Sensor):
    """Pictures [channels, height, width] in 0 to 1; needs the extra `camera`."""

    source: Literal["camera"] = Field(default="camera", description="Where samples come from.")
    device: int | Text = Field(default=0, description="The camera's number, or a video file.")
    width: int = Field(default=64, ge=1, le=4096, description="Pixels across.")
    height: int = Field(default=64, ge=1, le=4096, description="Pixels down.")
    grey: bool = Field(default=False, description="One channel in place of three.")
    rate_hz: Rate = Field(default=5.0, description="Pictures a second; others are left out.")


class SystemSensor(Sensor):
    """This machine's own state."""

    source: Literal["system"] = Field(default="system", description="Where samples come from.")
    metrics: Texts = Field(
        default=("cpu", "load", "memory", "temperature"),
        description="Out of cpu, load, memory, disk, temperature, network, battery.",
    )
    rate_hz: Rate = Field(default=1.0, description="Readings a second.")


class GeneratorSensor(Sensor):
    """Made-up samples, to try a pipeline."""

    source: Literal["generator"] = Field(
        default="generator", description="Where samples come from."
    )
    shape: Literal["sine", "noise", "walk", "faults"] = Field(
        default="sine", description="What they look like; faults are labelled 1, other samples 0."
    )
    values: int = Field(default=1, ge=1, le=65_536, description="Values in a sample.")
    seed: int = Field(default=0, ge=0, description="The same seed gives the same samples.")
    rate_hz: Rate = Field(default=10.0, description="Samples a second.")


AnySensor = Annotated[
    ReplaySensor
    | PythonSensor
    | MqttSensor
    | HttpSensor
    | WebhookSensor
    | SerialSensor
    | IioSensor
    | GpioSensor
    | CameraSensor
    | SystemSensor
    | GeneratorSensor,
    Field(discriminator="source"),
]


class Labels(Section):
    """Labels that come after their samples, by key; what is labelled enters the training store."""

    source: Name | None = Field(
        default=None,
        description="The entry of [[sources]] that gives them: a key, a y, and maybe a time. "
        "Without it labels come with their samples.",
        examples=["mqtt"],
    )
    wait_s: float = Field(
        default=86_400.0,
        gt=0,
        le=31_536_000,
        description="A sample without a label waits so long; then it is forgotten.",
    )
    tolerance_s: float | None = Field(
        default=None,
        ge=0,
        description="A label is for the samples of its key within so many seconds of its time; "
        "without this, for all that wait.",
        examples=[1.0],
    )
    samples: int = Field(
        default=10_000, ge=1, le=1_000_000, description="Samples that wait at most, in memory."
    )


class Stage(Section):
    """One operator of the pipeline; keys beside these are its arguments."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    op: Text = Field(description="What it does.", examples=["scale"])
    name: Name | None = Field(
        default=None,
        description="What others call it; else its op, the second of its kind `scale-2`.",
        examples=["to-bar"],
    )
    input: Columns | None = Field(
        default=None,
        description="Sources, operators above it, or an output of a split (`split.hot`); else the "
        "one before it.",
        examples=["sensor"],
    )

    @property
    def arguments(self) -> Mapping[str, JsonValue]:
        """The keys beside those that every operator has, as they stand in the file."""
        return self.__pydantic_extra__

    def declared(self) -> dict[str, object]:
        """Everything that is set, as `pipeline.declare` takes it."""
        said: dict[str, object] = {"op": self.op, **self.arguments}
        if self.name is not None:
            said["name"] = self.name
        if self.input is not None:
            said["input"] = [self.input] if isinstance(self.input, str) else list(self.input)
        return said
