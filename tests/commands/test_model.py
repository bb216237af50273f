"""A cloud's versions are listed with how they did, and one of them becomes a bundle."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.config.template import template
from edgechoir.tiers.aggregator_process import versions_of

BUNDLE = Path(__file__).parents[2] / "models" / "digits" / "bundle"
DIGITS = load_bundle(BUNDLE)


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """The configuration of a cloud that has made three versions and measured two."""
    path = tmp_path / "cloud.toml"
    text = template("cloud", federation="f", member="cloud", model={"bundle": str(BUNDLE)})
    path.write_text(text)
    (tmp_path / "state").mkdir()
    with closing(versions_of(tmp_path / "state", DIGITS)) as versions:
        for version, accuracy in enumerate((0.25, 0.75, None)):
            versions.put(version, DIGITS.params + np.float32(version), {}, 1.0)
            if accuracy is not None:
                versions.measured(version, {"accuracy": accuracy, "loss": 1.5}, 1e9)
    return path


def test_each_version_has_a_line_with_how_it_did(run: Any, cloud: Path) -> None:
    said = run.good("model", "list", cloud).splitlines()
    assert [line.split()[0] for line in said] == ["0", "1", "2"]
    assert said[0].endswith("accuracy 0.25  loss 1.5  kept")
    assert said[1].endswith("accuracy 0.75  loss 1.5  best, kept")
    assert "not measured" in said[2]


def test_a_program_gets_the_same(run: Any, cloud: Path) -> None:
    rows = [json.loads(line) for line in run.good("model", "list", cloud, "--json").splitlines()]
    assert rows[1] == {
        "version": 1,
        "accuracy": 0.75,
        "loss": 1.5,
        "measured": 1e9,
        "kept": True,
        "best": True,
    }


@pytest.mark.parametrize(("which", "version"), [((), 2), (("--best",), 1), (("--version", "0"), 0)])
def test_a_version_becomes_a_bundle(
    run: Any, cloud: Path, which: tuple[str, ...], version: int
) -> None:
    out = cloud.parent / "out"
    assert run.good("model", "export", cloud, out, *which) == f"{out}: digits, version {version}\n"
    assert np.array_equal(load_bundle(out).params, DIGITS.params + np.float32(version))


def test_a_version_that_is_not_kept_is_said_so(run: Any, cloud: Path) -> None:
    complaint = run("model", "export", cloud, cloud.parent / "out", "--version", "9").complaint
    assert "there is no such version 9; kept: 0, 1, 2" in complaint
