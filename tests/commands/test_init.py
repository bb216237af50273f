"""A configuration that `init` writes is one that the tier reads."""

from pathlib import Path
from typing import Any

import pytest

from edgechoir.config import KINDS, load


@pytest.mark.parametrize("tier", list(KINDS))
def test_each_tier_reads_what_init_writes(run: Any, tmp_path: Path, tier: str) -> None:
    path = tmp_path / "one.toml"
    parent = ("--parent", "above") if tier in ("device", "node", "edge-cloud") else ()
    told = ("--federation", "alps", "--broker", "broker.lan", "--output", path)
    said = run.good("init", tier, "one", *parent, *told)
    assert said == f"{path} written; edit it, then run `edgechoir doctor {path}`\n"
    config = load(path)
    assert type(config) is KINDS[tier]
    assert (config.federation, config.member, config.broker.host) == ("alps", "one", "broker.lan")
    assert getattr(config, "parent", None) == ("above" if parent else None)


def test_a_bundle_is_found_from_the_place_of_the_file(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "cloud.toml"
    run.good("init", "cloud", "cloud", "--bundle", "models/mine", "--output", path)
    config = load(path)
    assert config.model.bundle == tmp_path / "models" / "mine"  # type: ignore[union-attr]


def test_stdout_takes_the_same_text(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "eye.toml"
    run.good("init", "monitor", "eye", "--output", path)
    assert run.good("init", "monitor", "eye", "--output", "-") == path.read_text()


def test_without_a_name_the_file_is_called_after_the_member(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run.good("init", "node", "node-7", "--parent", "cloud")
    assert load(tmp_path / "node-7.toml").member == "node-7"


def test_nothing_is_overwritten(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "eye.toml"
    path.write_text("mine")
    ended = run("init", "monitor", "eye", "--output", path)
    assert ended.status == 1
    assert "is there already" in ended.complaint
    assert path.read_text() == "mine"
