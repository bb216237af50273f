"""`edgechoir init` writes what `load` reads."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.config import KINDS, DeviceConfig, parse, template
from edgechoir.config.sensor import PythonSensor
from edgechoir.errors import ConfigError


def required(kind: Any) -> dict[str, Any]:
    """The least data that a configuration needs, from the examples of its fields."""
    data = {}
    for name, field in kind.model_fields.items():
        if name == "sensor":
            data[name] = {"source": "replay", "path": "samples.npz"}
        elif name == "tier":
            data[name] = field.default
        elif field.is_required():
            data[name] = field.examples[0] if field.examples else required(field.annotation)
    return data


@pytest.mark.parametrize("tier", KINDS)
def test_a_template_is_the_defaults(tier: str) -> None:
    kind = KINDS[tier]
    expected = kind.model_validate(required(kind), context={"directory": Path("/d")})
    assert parse(template(tier), Path("/d")) == expected


@pytest.mark.parametrize("tier", KINDS)
def test_every_line_of_a_template_has_its_meaning(tier: str) -> None:
    lines = template(tier).split("\n")
    for above, line in pairwise(lines):
        if "=" in line:
            assert above.startswith("# ")


@pytest.mark.parametrize("tier", KINDS)
def test_a_key_behind_a_hash_can_be_set_by_taking_it_away(tier: str) -> None:
    text = template(tier)
    default = parse(text, Path())
    tried = 0
    for paragraph in text.split("\n\n"):
        headers = [line for line in paragraph.split("\n") if line.startswith("# [")]
        for line in paragraph.split("\n"):
            if line.startswith("# ") and " = " in line:
                changed = paragraph
                for hidden in (*headers, line):
                    changed = changed.replace(hidden, hidden[2:])
                assert parse(text.replace(paragraph, changed), Path()) != default
                tried += 1
    assert tried >= 2


def test_values_take_the_place_of_defaults() -> None:
    text = template(
        "device",
        member="dev-09",
        broker={"host": "10.0.0.1", "server_name": "broker"},
        sensor={"source": "python", "call": "a.b:c", "store": {"rows": 5}},
        pipeline=[{"op": "scale", "by": [0.5, 1]}, {"op": "window"}],
        model={"bundle": Path("/models/digits")},
        trace={"directory": "/tmp/trace"},
    )
    config = parse(text, Path())
    assert isinstance(config, DeviceConfig)
    assert config.member == "dev-09"
    assert (config.broker.host, config.broker.server_name) == ("10.0.0.1", "broker")
    assert isinstance(config.sensor, PythonSensor)
    assert config.sensor.store.rows == 5
    assert [stage.op for stage in config.pipeline] == ["scale", "window"]
    assert dict(config.pipeline[0].arguments) == {"by": [0.5, 1]}
    assert config.model.bundle == Path("/models/digits")
    assert config.trace is not None


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"membr": "x"}, r"membr is not a key \(did you mean member\?\)"),
        ({"broker": {"hots": "x"}}, r"broker.hots is not a key \(did you mean host\?\)"),
        ({"broker": {"port": 0}}, r"broker.port is 0; allowed: a whole number from 1 to 65535"),
        ({"rounds": {"min_members": 2}}, "rounds belongs to the configuration of node"),
    ],
)
def test_a_value_that_would_not_be_read_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        template("device", **values)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_path_survives(name: str) -> None:
    if "\x00" in name or name.startswith("~"):
        return
    config = parse(template("device", model={"bundle": Path("/", name)}), Path())
    assert isinstance(config, DeviceConfig)
    assert config.model.bundle == Path("/", name)
