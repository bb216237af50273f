"""`edgechoir tune` asks a running cloud, and writes what a configuration takes."""

from pathlib import Path
from typing import Any

import pytest

from edgechoir.commands.tune import sections, table
from edgechoir.config.reading import parse
from edgechoir.config.rules import FedAdamRule
from edgechoir.config.template import template
from edgechoir.config.tiers import CloudConfig
from edgechoir.config.training import CloudTraining

FOUND = {
    "trials": [
        {"name": "fedadam rate=0.01", "rounds": 9, "accuracy": 0.91, "loss": 0.3, "reason": ""},
        {"name": "x", "rounds": 3, "accuracy": None, "loss": None, "reason": "too slow"},
    ],
    "rule": FedAdamRule(rate=0.02).model_dump(mode="json"),
    "training": CloudTraining(learning_rate=0.3).model_dump(mode="json"),
}


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    path = tmp_path / "cloud.toml"
    path.write_text(template("cloud", federation="f", member="cloud", model={"bundle": "b"}))
    (tmp_path / "state").mkdir()
    return path


def test_the_sections_are_what_a_configuration_takes() -> None:
    head = 'federation = "f"\ntier = "cloud"\nmember = "c"\n[model]\nbundle = "b"\n'
    config = parse(head + sections(FOUND), Path())
    assert isinstance(config, CloudConfig)
    assert config.rule == FedAdamRule(rate=0.02)
    assert config.training == CloudTraining(learning_rate=0.3)


def test_each_setting_has_a_line_with_how_it_did() -> None:
    assert table(FOUND).splitlines() == [
        "setting            rounds  accuracy  loss",
        "fedadam rate=0.01       9    0.9100  0.3",
        "x                       3         -  -  too slow",
    ]


def test_without_a_running_cloud_it_says_so(run: Any, cloud: Path) -> None:
    ended = run("tune", cloud)
    assert ended.status == 1
    assert "is it running?" in ended.complaint


@pytest.mark.parametrize("text", ["", "trial = 3", "[[trial", "[trial]\n"])
def test_a_grid_that_is_none_is_refused(run: Any, cloud: Path, text: str) -> None:
    grid = cloud.parent / "grid.toml"
    grid.write_text(text)
    ended = run("tune", cloud, "--grid", grid)
    assert ended.status == 1
    assert "grid.toml" in ended.complaint
