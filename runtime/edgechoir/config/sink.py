"""The sinks of a device's configuration: where samples and answers go, beside the fleet."""

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgechoir.config.sections import Name, Place, Section, Text
from edgechoir.config.sensor import Call, Columns, Port


class Out(Section):
    """What every sink has."""

    TAG: ClassVar[str] = "sink"

    name: Name | None = Field(
        default=None, description="What it is called; else its kind.", examples=["log"]
    )
    input: Columns | None = Field(
        default=None,
        description="Sources or operators; else the model.",
        examples=["sensor"],
    )


class FileOut(Out):
    """Lines of JSON in a file that is rotated."""

    sink: Literal["file"] = Field(default="file", description="Where samples go.")
    path: Place = Field(default=Path("answers.jsonl"), description="The file.")
    max_bytes: int = Field(
        default=10_000_000, ge=1024, le=10**12, description="It is renamed at this size."
    )
    keep: int = Field(default=2, ge=0, le=100, description="Old files kept.")


class MqttOut(Out):
    """A topic of a broker on the local network, without TLS; it is not the fleet's broker."""

    sink: Literal["mqtt"] = Field(default="mqtt", description="Where samples go.")
    topic: Text = Field(default="answers", description="The topic.")
    host: Text = Field(default="localhost", description="Host name or address of that broker.")
    port: Port = Field(default=1883, description="Its port.")
    qos: Literal[0, 1] = Field(default=0, description="1: the broker acknowledges each.")


class HttpOut(Out):
    """Posts to an address, lines of JSON, a batch a request."""

    sink: Literal["http"] = Field(default="http", description="Where samples go.")
    url: Text = Field(
        description="The address, http or https.", examples=["http://localhost:8000/answers"]
    )
    token_file: Place | None = Field(
        default=None,
        description="A file with the token to send in the Authorization field.",
        examples=["answers.token"],
    )
    deadline_s: float = Field(default=10.0, gt=0, le=600, description="Seconds a post may take.")


class SqliteOut(Out):
    """The table `answers` of an SQLite file; the oldest rows go."""

    sink: Literal["sqlite"] = Field(default="sqlite", description="Where samples go.")
    path: Place = Field(default=Path("answers.db"), description="The file.")
    rows: int = Field(default=100_000, ge=1, le=10**9, description="Rows at most.")


class PythonOut(Out):
    """A Python function that is called with each sample; its `answer` is the model's."""

    sink: Literal["python"] = Field(default="python", description="Where samples go.")
    call: Call = Field(
        description="The function, as package.module:function.", examples=["alarms:ring"]
    )


AnyOut = Annotated[FileOut | MqttOut | HttpOut | SqliteOut | PythonOut, Field(discriminator="sink")]
