"""A run is read from a state directory, a configuration, a recording, or several of them."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgechoir.errors import OperatorError
from edgechoir.monitor.recording import Recording
from edgechoir.monitor.records import Metrics
from edgechoir.report.document import document
from edgechoir.report.reading import read_run
from edgechoir.store.rounds import NAME, RoundHistory
from edgechoir.store.versions import ModelVersions


def metrics(number: int, federation: str = "alps", **more: Any) -> Metrics:
    fields: dict[str, Any] = {"outcome": "done", "accuracy": 0.5, "version": number, **more}
    return Metrics(
        federation=federation, tier="cloud", member="cloud", round=number, at=1e9 + number, **fields
    )


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of a cloud that has done two rounds."""
    with closing(RoundHistory(tmp_path / NAME)) as history:
        history.set_to(json.dumps({"rule": {"name": "fedadam"}}).encode())
        history.add(metrics(1).to_json())
        history.add(b"{}")
        history.add(metrics(2).to_json())
    with closing(ModelVersions(tmp_path / "models.db")) as versions:
        versions.put(1, np.zeros(3, np.float32), {}, 1.0)
        versions.measured(1, {"accuracy": 0.5}, 1.0)
        versions.put(2, np.ones(3, np.float32), {}, 1.0)
    return tmp_path


def test_a_state_directory_has_rounds_settings_and_versions(state: Path) -> None:
    run = read_run([state])
    assert [m.round for m in run.rounds] == [1, 2]
    assert run.left_out == 1
    assert run.settings == [{"rule": {"name": "fedadam"}}]
    assert [(v.version, v.best, v.kept) for v in run.versions] == [
        (1, True, True),
        (2, False, True),
    ]


def test_a_round_in_both_is_counted_once(state: Path) -> None:
    path = state / "recording.jsonl"
    with closing(Recording(path, 1_000_000)) as recording:
        for number in (2, 3):
            recording.write(1.0, metrics(number))
    assert [m.round for m in read_run([state, path]).rounds] == [1, 2, 3]
    assert [m["round"] for m in document(read_run([path]))["rounds"]] == [2, 3]


def test_two_federations_are_not_mixed(state: Path) -> None:
    path = state / "recording.jsonl"
    with closing(Recording(path, 1_000_000)) as recording:
        recording.write(1.0, metrics(3, "dunes"))
    with pytest.raises(OperatorError, match="'dunes' and of 'alps'"):
        read_run([state, path])


def test_what_is_no_run_is_said(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="there is no"):
        read_run([tmp_path / "nothing"])
    with pytest.raises(OperatorError, match="name the state directory of a cloud"):
        read_run([tmp_path])
    (tmp_path / "text.txt").write_text("no recording\n" * 3)
    with pytest.raises(OperatorError, match="no round and no member"):
        read_run([tmp_path / "text.txt"])
    assert not (tmp_path / NAME).exists()
