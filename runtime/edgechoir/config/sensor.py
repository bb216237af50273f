"""The sections of a device's configuration from the sensor to the model."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, JsonValue, model_validator

from edgechoir.config.sections import Place, Section, Text


def _call(text: str) -> str:
    module, colon, function = text.partition(":")
    if not (colon and all(map(str.isidentifier, [*module.split("."), function]))):
        raise ValueError(f"{text!r} is not a call: write package.module:function")
    return text


class Check(Section):
    """A sample with a value outside the range is counted and dropped."""

    min: float | None = Field(default=None, description="Smallest value allowed.", examples=[0.0])
    max: float | None = Field(default=None, description="Largest value allowed.", examples=[1.0])

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min is not None and self.max is not None and self.min >= self.max:
            raise ValueError(f"min is {self.min} and max {self.max}: min must be smaller")
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

    check: Check = Check()
    store: Store = Store()


class ReplaySensor(Sensor):
    """Samples from a file, at a steady rate."""

    source: Literal["replay"] = Field(default="replay", description="Where samples come from.")
    path: Place = Field(description="The file with the samples.", examples=["samples.npz"])
    x: Text = Field(default="x", description="Name of the inputs in the file.")
    y: Text | None = Field(default="y", description="Name of the labels in the file.")
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
    """Samples from a topic of a broker on the local network, as JSON."""

    source: Literal["mqtt"] = Field(default="mqtt", description="Where samples come from.")
    topic: Text = Field(description="The topic filter.", examples=["sensors/line-1"])
    host: Text = Field(default="localhost", description="Host name or address of that broker.")
    port: int = Field(default=1883, ge=1, le=65535, description="Its port.")
    x: Text = Field(default="x", description="Key of the inputs in a message.")
    y: Text | None = Field(default="y", description="Key of the label in a message.")


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
