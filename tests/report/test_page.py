"""The page says what is known, loads nothing, and takes nothing that members say for markup."""

import re
from html.parser import HTMLParser
from typing import Any

from edgechoir.monitor.records import Metrics
from edgechoir.monitor.status import (
    InferenceStatus,
    MemberState,
    ModelStatus,
    PrivacyStatus,
    RoundStatus,
    Status,
)
from edgechoir.report.page import page
from edgechoir.report.run import Run

VOID = {"meta", "circle", "path", "polyline", "br"}
EVIL = "<script>alert(1)</script>\"'>"


class Outline(HTMLParser):
    """Checks that tags close in order, and gathers what is asked."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def metrics(number: int, **more: Any) -> Metrics:
    fields: dict[str, Any] = {
        "outcome": "done",
        "version": number - 1,
        "accuracy": 0.1 * number,
        "loss": 1.0 / number,
        "seconds": 0.5,
        "devices": 3,
        "members": 3,
        "expected": 3,
        "bytes_up": 1000,
        "bytes_down": 2000,
        **more,
    }
    return Metrics(
        federation="alps", tier="cloud", member="cloud", round=number, at=1e9 + number, **fields
    )


def status(tier: Any, member: str, round_: int, **more: Any) -> Status:
    return Status(
        federation="alps",
        tier=tier,
        member=member,
        instance="aa",
        since=1.0,
        updated=2.0,
        state=MemberState.ONLINE,
        round=RoundStatus(number=round_, phase="x"),
        **more,
    )


def run_of(*documents: Status | Metrics) -> Run:
    run = Run()
    for document in documents:
        run.take(document)
    run.sort()
    return run


def outline(run: Run) -> Outline:
    text = page(run, 1.7e9)
    seen = Outline(text)
    assert seen.open == []
    assert "script" not in seen.tags
    assert not {"src", "href", "onload", "onclick"} & {name for name, _ in seen.attributes}
    assert "http:" not in text.replace("http-equiv", "")
    assert "url(" not in text
    return seen


def test_a_run_is_told_from_its_rounds() -> None:
    failed = metrics(3, outcome="failed", reason="too few", accuracy=None, loss=None)
    end = metrics(4, final=True, ended="4 rounds done")
    seen = outline(run_of(metrics(1), metrics(2), failed, end))
    assert "4 rounds done." in seen.text
    assert "3 / 1" in seen.text
    assert "too few" in seen.text
    assert "40.0 %" in seen.text
    assert "No round had noise" in seen.text


def test_tiers_and_devices_have_curves_of_their_own() -> None:
    documents: list[Status | Metrics] = [metrics(1), metrics(2)]
    for n in (1, 2):
        model = ModelStatus(version=n, accuracy=0.3 * n, measured_in=n)
        documents += [
            status("node", "node-1", n, model=model),
            status("device", "dev-1", n, model=model, inference=InferenceStatus(answered=7)),
        ]
    seen = outline(run_of(*documents))
    assert "Nodes: accuracy" in seen.text
    assert "Devices: accuracy" in seen.text
    assert "1 of 1 nodes, 1 of 1 devices" in seen.text


def test_of_many_members_the_median_is_named() -> None:
    documents: list[Status | Metrics] = [metrics(1)]
    for member in range(20):
        model = ModelStatus(version=1, accuracy=member / 20, measured_in=1)
        documents.append(status("node", f"node-{member}", 1, model=model))
    text = page(run_of(*documents), 1.0)
    assert "median of 20 ends at 47.5 %" in text
    assert text.count('class="faint') == 20


def test_a_private_run_shows_its_account_and_each_devices() -> None:
    account = PrivacyStatus(epsilon=3.25, delta=1e-5, max_epsilon=7.5, rounds=2)
    run = run_of(
        metrics(1, epsilon=2.0),
        metrics(2, epsilon=3.0),
        status("device", "dev-1", 2, privacy=account),
    )
    run.settings = [{"privacy": {"max_epsilon": 8.0, "delta": 1e-5}, "rule": {"name": "fedavg"}}]
    seen = outline(run)
    assert "at delta 1e-05" in seen.text
    assert "cap 8" in seen.text
    assert "3.25" in seen.text
    assert "7.5" in seen.text
    assert "As devices count it" in seen.text


def test_a_regression_shows_its_rmse() -> None:
    runs = [metrics(n, accuracy=None, rmse=20.0 - n, loss=1.0) for n in (1, 2, 3)]
    seen = outline(run_of(*runs))
    assert "RMSE" in seen.text
    assert "Accuracy" not in seen.text.replace("Accuracy and loss of a round", "")


def test_what_members_say_is_text() -> None:
    run = run_of(
        metrics(1, outcome="failed", reason=EVIL, rule=EVIL),
        metrics(2, final=True, ended=EVIL),
        status("node", "node-1", 1),
    )
    run.settings = [{EVIL: {EVIL: EVIL}}]
    seen = outline(run)
    assert seen.text.count(EVIL) >= 4


def test_the_best_version_is_the_one_the_cloud_would_choose() -> None:
    run = run_of(
        metrics(1, accuracy=0.8, loss=0.3),
        metrics(2, accuracy=0.9, loss=0.5),
        metrics(3, accuracy=0.9, loss=0.4),
        metrics(4, accuracy=0.7, loss=0.2),
    )
    assert [version.version for version in run.versions if version.best] == [2]


def test_very_long_runs_make_a_page_of_bounded_size() -> None:
    run = run_of(*(metrics(n, accuracy=0.5, reason="r" if n % 2 else None) for n in range(1, 5000)))
    text = re.sub(r"\s", "", page(run, 1.0))
    assert len(text) < 500_000


def test_members_without_a_round_are_a_page_too() -> None:
    assert "1 members have been seen" in outline(run_of(status("node", "node-1", 0))).text


def test_trials_are_told_apart_from_the_run() -> None:
    seen = outline(run_of(metrics(1), metrics(2, trial="fedadam 0.1", accuracy=0.97)))
    assert "Trials" in seen.text
    assert "fedadam 0.1" in seen.text
    assert "1 / 0" in seen.text
