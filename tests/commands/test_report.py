"""`edgechoir report` writes a page, or the same as JSON."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from edgechoir.config.template import template
from edgechoir.monitor.records import Metrics
from edgechoir.store.rounds import NAME, RoundHistory


@pytest.fixture
def cloud(tmp_path: Path) -> Path:
    """The configuration of a cloud that has done a round."""
    path = tmp_path / "cloud.toml"
    path.write_text(template("cloud", federation="f", member="cloud", model={"bundle": "b"}))
    (tmp_path / "state").mkdir()
    done = Metrics(
        federation="f", tier="cloud", member="cloud", round=1, at=1e9, outcome="done", accuracy=0.75
    )
    with closing(RoundHistory(tmp_path / "state" / NAME)) as history:
        history.add(done.to_json())
    return path


def test_a_page_is_written_where_it_is_asked_for(run: Any, cloud: Path) -> None:
    out = cloud.parent / "page.html"
    assert run.good("report", cloud, "--out", out) == f"{out}\n"
    assert "75.0 %" in out.read_text()


def test_a_program_gets_the_figures(run: Any, cloud: Path) -> None:
    found = json.loads(run.good("report", cloud.parent / "state", "--json"))
    assert [one["accuracy"] for one in found["rounds"]] == [0.75]


def test_a_folder_that_cannot_be_written_is_said(run: Any, cloud: Path) -> None:
    ended = run("report", cloud, "--out", cloud.parent / "none" / "page.html")
    assert ended.status == 1
    assert "cannot write" in ended.complaint
