"""The demo's report says what was seen, and where nothing was seen, so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgechoir.demo.layout import TRACED
from edgechoir.demo.outcome import Accuracies, draw, report, table
from edgechoir.demo.watch import Seen
from edgechoir.learning.fixed_point import TAIL
from edgechoir.monitor.records import Metrics
from edgechoir.monitor.status import Status

MEASURED = Accuracies(0.1, 0.3, 0.8, 0.9)


def status(member: str, answered: int, missed: int, up: int | None, p99: float) -> Status:
    return Status.model_validate(
        {
            "federation": "digits",
            "tier": "device",
            "member": member,
            "instance": "ab",
            "state": "online",
            "since": 1.0,
            "updated": 2.0,
            "round": {"number": 3, "phase": "sent", "bytes_up": up, "bytes_down": 500},
            "inference": {"answered": answered, "missed": missed, "p99_ms": p99, "swaps": 4},
            "health": {"rss_mb": 90.0},
        },
        strict=False,
    )


def metrics(round_: int, outcome: str, seconds: float) -> Metrics:
    return Metrics(
        federation="digits",
        tier="cloud",
        member="cloud",
        round=round_,
        at=float(round_),
        outcome=outcome,
        seconds=seconds,
    )


@pytest.fixture
def seen() -> Seen:
    found = Seen("digits")
    found.statuses = {
        "dev-1": status("dev-1", 100, 0, 1000, 0.5),
        "dev-2": status("dev-2", 200, 3, 3000, 2.5),
        "dev-3": status("dev-3", 300, 0, None, 1.0),
    }
    found.rounds = [
        metrics(1, "done", 1.0),
        metrics(2, "failed", 9.0),
        metrics(3, "done", 2.0),
        metrics(4, "done", 9.0),
    ]
    return found


def test_the_report_adds_up_what_was_seen(seen: Seen) -> None:
    found = report(seen, MEASURED, 94, Path("picture.png"))
    assert found["rounds"] == {"done": 3, "failed": 1, "seconds_median": 2.0}
    assert found["inference"] == {
        "answered": 600,
        "missed": 3,
        "p99_ms_worst": 2.5,
        "models_exchanged": 12,
    }
    moved = found["bytes_per_device_and_round"]
    assert (moved["up"], moved["down"], moved["model"]) == (2000.0, 500.0, 376)
    assert moved["up_over_vector"] == 2000 / (4 * (94 + len(TAIL)))
    assert found["device_rss_mb"] == 90.0
    assert found["picture"] == "picture.png"


def test_the_table_has_every_figure_a_person_looks_for(seen: Seen) -> None:
    text = table(report(seen, MEASURED, 94, Path("picture.png")))
    for value in ("0.100", "0.300", "0.800", "0.900", "3 / 1", "600 / 3", "2,000", "picture.png"):
        assert value in text


def test_a_run_that_was_not_seen_is_reported_as_unknown() -> None:
    found: dict[str, Any] = report(Seen("digits"), MEASURED, 94, None)
    assert found["rounds"]["seconds_median"] is None
    assert found["bytes_per_device_and_round"]["up"] is None
    text = table(found)
    assert "unknown" in text
    assert "not drawn" in text


def test_a_picture_is_drawn_of_a_trace(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    chance = np.random.default_rng(0)
    true = chance.normal(0, 1000, 500).astype(np.int32).view(np.uint32)
    for what, vector in (("true", true), ("masked", chance.integers(0, 2**32, 500, np.uint32))):
        np.save(tmp_path / f"{what}-{TRACED}.npy", vector)
    picture = draw(tmp_path, tmp_path / "picture.png")
    assert picture is not None
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_without_a_trace_no_picture_is_drawn(tmp_path: Path) -> None:
    assert draw(tmp_path, tmp_path / "picture.png") is None
    assert not (tmp_path / "picture.png").exists()
