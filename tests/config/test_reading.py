"""A configuration is read whole, or refused with the line to change."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.config import (
    CloudConfig,
    DeviceConfig,
    EdgeCloudConfig,
    NodeConfig,
    load,
    load_for,
    parse,
)
from edgechoir.config.reading import MOST_BYTES, MOST_ERRORS
from edgechoir.config.sensor import MqttSensor, PythonSensor, ReplaySensor
from edgechoir.errors import ConfigError
from edgechoir.learning.rules.choose import RULES

DEVICE = """\
federation = "digits"
tier = "device"
member = "dev-01"
parent = "node-1"

[model]
bundle = "bundle"

[sensor]
source = "replay"
path = "/data/samples.npz"
"""
CLOUD = 'federation = "digits"\ntier = "cloud"\nmember = "cloud"\n[model]\nbundle = "b"\n'
NODE = 'federation = "digits"\ntier = "node"\nmember = "n"\nparent = "cloud"\n'
ALL_RULES = ", ".join(f'"{name}"' for name in RULES)

SOURCES = (
    '"replay", "python", "mqtt", "http", "webhook", "serial", "iio", "gpio", "camera", "system", '
    '"generator"'
)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, Path("/etc/choir"), "choir.toml")
    return str(caught.value)


def test_a_device_has_its_values_and_the_defaults() -> None:
    config = parse(DEVICE, Path("/etc/choir"))
    assert isinstance(config, DeviceConfig)
    assert config.parent == "node-1"
    assert config.broker.port == 8883
    assert config.trace is None
    assert isinstance(config.sensor, ReplaySensor)


def test_relative_paths_start_at_the_directory_of_the_file() -> None:
    config = parse(DEVICE, Path("/etc/choir"))
    assert isinstance(config, DeviceConfig)
    assert config.model.bundle == Path("/etc/choir/bundle")
    assert config.state == Path("/etc/choir/state")
    assert isinstance(config.sensor, ReplaySensor)
    assert config.sensor.path == Path("/data/samples.npz")


def test_each_source_has_its_own_keys() -> None:
    head = DEVICE[: DEVICE.index("[sensor]")]
    python = parse(head + '[sensor]\nsource = "python"\ncall = "a.b:read"\n', Path())
    mqtt = parse(head + '[sensor]\nsource = "mqtt"\ntopic = "a/+"\n', Path())
    assert isinstance(python, DeviceConfig)
    assert isinstance(python.sensor, PythonSensor)
    assert isinstance(mqtt, DeviceConfig)
    assert isinstance(mqtt.sensor, MqttSensor)
    assert mqtt.sensor.port == 1883


def test_bounds_and_columns_are_one_or_several() -> None:
    several = DEVICE + "x = ['a', 'b']\n[sensor.check]\nmin = [0, -1.5]\nmax = 7\n"
    config = parse(several, Path())
    assert isinstance(config, DeviceConfig)
    assert isinstance(config.sensor, ReplaySensor)
    assert config.sensor.x == ("a", "b")
    assert config.sensor.check.min == (0.0, -1.5)
    assert config.sensor.check.max == 7.0


def test_the_pipeline_keeps_the_arguments_of_each_operator() -> None:
    text = (
        DEVICE + '[[pipeline]]\nop = "scale"\nby = 0.5\n[[pipeline]]\nop = "window"\nsizes = [8]\n'
    )
    config = parse(text, Path())
    assert isinstance(config, DeviceConfig)
    assert [stage.op for stage in config.pipeline] == ["scale", "window"]
    assert [dict(stage.arguments) for stage in config.pipeline] == [{"by": 0.5}, {"sizes": [8]}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            DEVICE.replace('"node-1"', '"node\\u0000"'),
            "choir.toml:4: parent: 'node\\x00' is not a valid id: use 1 to 32 characters of "
            "a-z, 0-9 and '-', with a letter or digit at both ends",
        ),
        (
            DEVICE + '[broker]\nhost = ""\n',
            'choir.toml:13: broker.host is "": string should have at least 1 character',
        ),
        (
            DEVICE + "[broker]\nhots = 1\n",
            "choir.toml:13: broker.hots is not a key (did you mean host?); "
            "allowed: host, port, server_name, keep_alive_s, protocol",
        ),
        (
            DEVICE + "[broker]\nkeep_alive_s = 4\n",
            "choir.toml:13: broker.keep_alive_s is 4; allowed: a whole number from 5 to 1200",
        ),
        (
            DEVICE + '[broker]\nprotocol = "3.1"\n',
            'choir.toml:13: broker.protocol is "3.1" (did you mean 3.1.1?); '
            'allowed: "auto", "5", "3.1.1"',
        ),
        (
            DEVICE + "[broker]\nport = true\n",
            "choir.toml:13: broker.port is true; allowed: a whole number from 1 to 65535",
        ),
        (
            DEVICE + "rate_hz = inf\n",
            "choir.toml:12: sensor.rate_hz is inf; allowed: a number above 0, up to 100000",
        ),
        (
            DEVICE + "[rounds]\nmin_members = 3\n",
            "choir.toml:12: rounds belongs to the configuration of node, edge-cloud, cloud, "
            "and this is one of device; remove it",
        ),
        (
            DEVICE + "[update]\nclip = 3\n",
            "choir.toml:13: update.clip belongs to the configuration of cloud, "
            "and this is one of device; remove it",
        ),
        (
            CLOUD + '[rule]\nname = "fedadams"\n',
            'choir.toml:7: rule.name is "fedadams" (did you mean fedadam?); allowed: ' + ALL_RULES,
        ),
        (
            CLOUD + "[rule]\nrate = 2.0\n",
            "choir.toml:6: [rule] lacks the key name; allowed: " + ALL_RULES,
        ),
        (
            CLOUD + '[rule]\nname = "fedavgm"\nmomentum = 1\n',
            "choir.toml:8: rule.momentum is 1; allowed: a number from 0",
        ),
        (
            CLOUD + '[training]\nproximal = 1\n[rule]\nname = "fedprox"\n',
            "choir.toml: rule fedprox: it has a proximal term already, mu: leave "
            "training.proximal out",
        ),
        (
            CLOUD + '[training]\nmomentum = 0.5\n[rule]\nname = "scaffold"\n',
            "choir.toml: rule scaffold: it takes a device's steps for plain gradients: leave "
            "training.momentum out",
        ),
        (
            CLOUD + '[update]\nring_bits = 16\n[rule]\nname = "fednova"\n',
            "choir.toml: rule fednova: a ring of 16 bits is too coarse for it: set "
            "update.ring_bits = 32",
        ),
        (
            CLOUD + '[robust]\nestimate = "median"\n[rule]\nname = "scaffold"\n',
            "choir.toml: rule scaffold: its devices send more than an update, of which only the "
            "mean makes sense: leave [robust] out",
        ),
        (
            CLOUD + '[robust]\nestimate = "krum"\n[privacy]\nnoise = 1.0\n',
            "choir.toml: [robust] and [privacy]: the noise of a single cohort hides what a bad one "
            "does; leave one of them out",
        ),
        (
            CLOUD + "[update]\nrotate = true\n[privacy]\nnoise = 1.0\n",
            "choir.toml: update.rotate, sent_share and clipped_share are for updates alone: with "
            "[privacy] devices send more or bound it otherwise; leave one of them out",
        ),
        (
            CLOUD + '[update]\nsent_share = 0.1\n[rule]\nname = "scaffold"\n',
            "choir.toml: update.rotate, sent_share and clipped_share are for updates alone: with "
            "the rule scaffold devices send more or bound it otherwise; leave one of them out",
        ),
        (
            CLOUD + "[robust]\nbad_share = 0.5\n",
            "choir.toml:7: robust.bad_share is 0.5; allowed: a number above 0",
        ),
        (
            CLOUD + '[privacy]\nnoise = 1.0\n[rule]\nname = "scaffold"\n',
            "choir.toml: rule scaffold: its devices send more than an update, which the noise "
            "does not cover: leave [privacy] out",
        ),
        (
            CLOUD + "[training]\nnormalise = true\n[privacy]\nnoise = 1.0\n",
            "choir.toml: training.normalise takes the columns' mean and deviation from all "
            "devices without noise, which [privacy] does not count: leave it out, and scale the "
            "columns in the model file",
        ),
        (
            CLOUD + "[privacy]\nbound = 3.0\nmax_bound = 2.0\n",
            "choir.toml:6: privacy: bound is 3, above max_bound, 2",
        ),
        (
            DEVICE + "[privacy]\nrequire = true\n",
            "choir.toml:12: privacy: require without max_epsilon: a round with next to no "
            "noise would be taken part in; say how large epsilon may become",
        ),
        (
            CLOUD + '[rule]\nname = "distil"\nshared = "s.npz"\n',
            "choir.toml: rule distil: answers are logits or values, which a clip of 1 cuts: set "
            "update.clip to 5 or more",
        ),
        (
            CLOUD + '[training]\nschedule = "cosine"\n',
            'choir.toml: training.schedule is "cosine", which falls until the last round: '
            "set rounds.rounds",
        ),
        (
            CLOUD.replace("[model]", 'parent = "x"\n[model]'),
            "choir.toml:4: parent belongs to the configuration of device, node, edge-cloud, "
            "and this is one of cloud; remove it",
        ),
        (
            DEVICE.replace('parent = "node-1"\n', ""),
            "choir.toml: lacks the key parent: id of the aggregator that this member sends to",
        ),
        (
            DEVICE.replace("bundle =", "bundel ="),
            "choir.toml:6: [model] lacks the key bundle: "
            "directory of the model bundle to start with\n"
            "choir.toml:7: model.bundel is not a key (did you mean bundle?); allowed: bundle",
        ),
        (
            DEVICE + 'state = "x"\n',
            "choir.toml:12: sensor.state is not a key; state stands at the top of the file: "
            "move it above the first [section]",
        ),
        (
            DEVICE.replace('"replay"', '"reply"'),
            f'choir.toml:10: sensor.source is "reply" (did you mean replay?); allowed: {SOURCES}',
        ),
        (
            DEVICE.replace('source = "replay"\n', ""),
            f"choir.toml:9: [sensor] lacks the key source; allowed: {SOURCES}",
        ),
        (
            DEVICE.replace('"dev-01"', '"Dev 1"'),
            "choir.toml:3: member: 'Dev 1' is not a valid id: use 1 to 32 characters of a-z, 0-9 "
            "and '-', with a letter or digit at both ends",
        ),
        (
            DEVICE.replace('"node-1"', '"dev-01"'),
            "choir.toml: parent is 'dev-01', this member itself: name another",
        ),
        (
            DEVICE + "[[pipeline]]\nop = 'a'\n[[pipeline]]\nopp = 'b'\n",
            "choir.toml:14: [pipeline[1]] lacks the key op: what it does",
        ),
        (
            CLOUD + "[rounds]\nmin_members = 9\nmax_members = 4\n",
            "choir.toml:6: rounds: min_members is 9 and max_members 4: "
            "min_members must not be larger",
        ),
        (
            DEVICE + "[sensor.check]\nmin = 2.0\nmax = 1.0\n",
            "choir.toml:12: sensor.check: min is 2.0 and max 1.0: min must be smaller",
        ),
        (
            DEVICE + "[sensor.check]\nmin = [0.0, 2.0]\nmax = 2.0\n",
            "choir.toml:12: sensor.check: min is 2.0 and max 2.0: min must be smaller",
        ),
        (
            DEVICE + "[sensor.check]\nmin = [0.0, 2.0]\nmax = [1.0, 3.0, 5.0]\n",
            "choir.toml:12: sensor.check: min has 2 numbers and max 3: give as many",
        ),
        (
            DEVICE + "[sensor.check]\nmin = [0.0, 'a']\n",
            'choir.toml:13: sensor.check.min is "a"; allowed: a number or an array, each a number',
        ),
        (
            DEVICE + "x = []\n",
            "choir.toml:12: sensor.x is an array; allowed: text or an array, each text",
        ),
        (
            "broker = 3\n" + NODE,
            "choir.toml:1: broker is 3; allowed: a table with the keys "
            "host, port, server_name, keep_alive_s, protocol",
        ),
        (
            'tier = "devise"\n',
            'choir.toml:1: tier is "devise" (did you mean device?); '
            'allowed: "device", "node", "edge-cloud", "cloud", "monitor"',
        ),
        (
            'member = "a"\n',
            "choir.toml: lacks the key tier; "
            'allowed: "device", "node", "edge-cloud", "cloud", "monitor"',
        ),
        ("a = 1\nb = \n", "choir.toml:2: not valid TOML: Invalid value"),
        ("a = 1\na = 2\n", "choir.toml:2: not valid TOML: Cannot overwrite a value"),
        ('a = 1\nb = """', "choir.toml:2: not valid TOML: Unterminated string"),
    ],
)
def test_a_wrong_line_is_named_with_what_is_allowed(text: str, expected: str) -> None:
    assert refusal(text) == expected


def test_a_wrong_call_says_how_it_is_written() -> None:
    head = DEVICE[: DEVICE.index("[sensor]")]
    said = refusal(head + '[sensor]\nsource = "python"\ncall = "read"\n')
    assert said == (
        "choir.toml:11: sensor.call: 'read' is not a call: write package.module:function"
    )


def test_every_wrong_line_is_named_up_to_a_bound() -> None:
    said = refusal(DEVICE + "[broker]\n" + "".join(f"k{n} = 1\n" for n in range(30)))
    lines = said.split("\n")
    assert len(lines) == MOST_ERRORS + 1
    assert lines[0].startswith("choir.toml:13: broker.k0 ")
    assert lines[-1] == "choir.toml: and 10 more"


def test_a_file_with_windows_line_ends_has_the_same_lines() -> None:
    text = (DEVICE + "[broker]\nport = 0\n").replace("\n", "\r\n")
    assert refusal(text).startswith("choir.toml:13: broker.port is 0; ")


def test_a_file_that_is_not_there_leads_to_init(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read .*edgechoir init"):
        load(tmp_path / "none.toml")


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"a = 1\nb = '\xff'\n")
    with pytest.raises(ConfigError, match=r"a.toml:2: not UTF-8"):
        load(file)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than"):
        load(file)


def test_deep_nesting_is_refused() -> None:
    assert "nested too deeply" in refusal("a = " + "[" * 5000 + "]" * 5000)


def test_a_configuration_of_another_tier_names_the_right_command(tmp_path: Path) -> None:
    file = tmp_path / "node.toml"
    file.write_text(NODE)
    assert load_for(file, NodeConfig).member == "n"
    with pytest.raises(ConfigError, match="of a node, expected one of a cloud; run `edgechoir nod"):
        load_for(file, CloudConfig)
    with pytest.raises(ConfigError, match="expected one of a edge-cloud"):
        load_for(file, EdgeCloudConfig)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text, Path())


@given(
    st.sampled_from([DEVICE, CLOUD, NODE]),
    st.integers(0, 12),
    st.sampled_from(["broker", "sensor", "model", "rounds", "update", "pipeline", "zz"]),
    st.sampled_from(["min_members", "op", "source", "port", "x", "check", "max", "holdout"]),
    st.sampled_from(
        ["1", "true", "'x'", "[]", "[[1]]", "{}", "{a = 1}", "[{}]", "nan", "07:32:00"]
    ),
)
def test_any_line_anywhere_is_read_or_refused(
    text: str, at: int, section: str, key: str, value: str
) -> None:
    lines = text.split("\n")
    for inserted in (f"{key} = {value}", f"{section} = {value}", f"[{section}]\n{key} = {value}"):
        said = "choir.toml"
        try:
            parse("\n".join([*lines[:at], inserted, *lines[at:]]), Path(), "choir.toml")
        except ConfigError as refused:
            said = str(refused)
        assert all(line.startswith("choir.toml") for line in said.split("\n"))
