"""The sections of a device's configuration from the sensor to the model."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, Strict, model_validator

from edgechoir.config.sections import Place, Section, Text


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
    """What a sample must be; one that is not is counted and dropped."""

    min: Bound | None = Field(default=None, description="Smallest value.", examples=[0.0])
    max: Bound | None = Field(default=None, description="Largest value.", examples=[1.0])
    missing: Literal["drop", "fill"] = Field(
        default="drop", description="What to do with a sample that lacks a value."
    )
    fill: float = Field(default=0.0, description="What stands in for a missing value.")

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
    """How many samples are kept for training; the oldest go first."""

    rows: int = Field(default=10_000, ge=1, le=100_000_000, description="Samples at most.")
    bytes: int = Field(
        default=64_000_000,
        ge=65_536,
        le=1_000_000_000_000,
        description="Bytes of sample data at most.",
    )


class Sensor(Section):
    """What every source of samples has."""

    TAG: ClassVar[str] = "source"

    check: Check = Check()
    store: Store = Store()


Columns = Text | Annotated[tuple[Text, ...], Strict(False), Field(min_length=1)]


class ReplaySensor(Sensor):
    """Samples from a file, at a steady rate."""

    source: Literal["replay"] = Field(default="replay", description="Where samples come from.")
    path: Place = Field(description="The file with the samples.", examples=["samples.npz"])
    x: Columns = Field(
        default="x",
        description="The inputs: an array of an NPZ file, or the columns of a CSV file.",
    )
    y: Text | None = Field(default="y", description="The labels: an array or a column.")
    rate_hz: float = Field(default=10.0, gt=0, le=100_000, description="Samples a second.")
    loop: bool = Field(default=True, description="Begin again at the end of the file.")
    shuffle: bool = Field(default=False, description="Replay in a random order.")


class PythonSensor(Sensor):
    """Samples from a Python function."""

    source: Literal["python"] = Field(default="python", description="Where samples come from.")
    call: Annotated[Text, AfterValidator(_call)] = Field(
        description="The function, as package.module:function.", examples=["sensors.camera:read"]
    )
    rate_hz: float = Field(default=10.0, gt=0, le=100_000, description="Calls a second.")


class MqttSensor(Sensor):
    """Samples from a topic of a broker on the local network, as JSON {"x": [...], "y": 1}."""

    source: Literal["mqtt"] = Field(default="mqtt", description="Where samples come from.")
    topic: Text = Field(description="The topic filter.", examples=["sensors/line-1"])
    host: Text = Field(default="localhost", description="Host name or address of that broker.")
    port: int = Field(default=1883, ge=1, le=65535, description="Its port.")


AnySensor = Annotated[ReplaySensor | PythonSensor | MqttSensor, Field(discriminator="source")]


class Stage(Section):
    """One operator of the pipeline; keys beside `op` are its arguments."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    op: Text = Field(description="Name of the operator.", examples=["scale"])

    @property
    def arguments(self) -> Mapping[str, JsonValue]:
        """The keys beside `op`, as they stand in the file."""
        return self.__pydantic_extra__
