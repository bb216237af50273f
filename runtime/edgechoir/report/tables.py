"""The page's tables: members, failed rounds, versions, settings, all rounds."""

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Final

from edgechoir.monitor.records import Metrics
from edgechoir.report.run import Figures, MemberRun, Run
from edgechoir.report.words import (
    headline,
    moment,
    number,
    pairs,
    percent,
    seconds,
    section,
    size,
    table,
)

MAX_ROWS: Final = 200
"""Of a table; the newest are shown."""


def member_table(run: Run) -> str:
    rows = [
        [
            f"{tier}/{member}",
            seen.last.parent or "",
            seen.last.state.value,
            "" if seen.last.model is None else f"{seen.last.model.version}",
            *_answers(seen),
            _latest(seen),
        ]
        for (tier, member), seen in sorted(run.members.items(), key=_order)
    ]
    heads = ("member", "parent", "last seen", "version", "answered", "missed", "p99", "last figure")
    return folded("Members", table(heads, rows[:MAX_ROWS], (3, 4, 5, 6, 7)), len(rows))


def _order(item: tuple[tuple[str, str], MemberRun]) -> tuple[int, str]:
    (tier, member), _ = item
    order = ("cloud", "edge-cloud", "node", "device", "monitor")
    return order.index(tier), member


def _answers(seen: MemberRun) -> tuple[str, str, str]:
    answers = seen.last.inference
    if answers is None:
        return "", "", ""
    p99 = "" if answers.p99_ms is None else f"{answers.p99_ms:.3g} ms"
    return f"{answers.answered}", f"{answers.missed}", p99


def _latest(seen: MemberRun) -> str:
    return headline(seen.figures[max(seen.figures)])[0] if seen.figures else ""


def failure_tables(run: Run) -> str:
    failed = run.failed
    if not failed:
        return ""
    reasons = Counter(m.reason or "no reason was given" for m in failed)
    often = table(
        ("reason", "rounds"), [[reason, f"{n}"] for reason, n in reasons.most_common(20)], (1,)
    )
    rows = [
        [f"{m.round}", moment(m.at), m.outcome, seconds(m.seconds), m.reason or ""]
        for m in failed[-MAX_ROWS:]
    ]
    heads = ("round", "ended", "outcome", "length", "reason")
    return section(
        "Failed rounds", often, folded("One by one", table(heads, rows, (0, 3)), len(failed))
    )


def folded(title: str, body: str, count: int) -> str:
    more = f", {MAX_ROWS} are shown" if count > MAX_ROWS else ""
    return f"<details><summary>{escape(title)} ({count}{more})</summary>{body}</details>"


def version_table(run: Run) -> str:
    versions = run.versions
    if not versions:
        return ""
    last = versions[-1].version
    marked = [
        [
            f"{v.version}",
            *measures(v.figures),
            ", ".join(
                word
                for word, holds in (
                    ("best", v.best),
                    ("last", v.version == last),
                    ("kept", bool(v.kept)),
                )
                if holds
            ),
        ]
        for v in versions
    ]
    heads = ("version", "accuracy", "RMSE", "loss", "")
    named = [row for row in marked if row[-1]]
    everything = table(heads, marked[-MAX_ROWS:], range(4))
    return section(
        "Model versions",
        table(heads, named, range(4)),
        folded("All versions", everything, len(marked)) if len(marked) > len(named) else "",
    )


def measures(figures: Figures | None) -> list[str]:
    if figures is None:
        return ["", "", ""]
    accuracy = "" if figures.accuracy is None else percent(figures.accuracy)
    rmse = "" if figures.rmse is None else number(figures.rmse)
    return [accuracy, rmse, number(figures.loss)]


def setting_lists(run: Run) -> str:
    if not run.settings:
        rules = sorted({m.rule for m in run.rounds if m.rule})
        return section("Settings", pairs([("rule", ", ".join(rules))])) if rules else ""
    parts = []
    for name, values in run.settings[-1].items():
        if isinstance(values, Mapping):
            parts.append(f"<h3>{escape(name)}</h3>{pairs(values.items())}")
    if len(run.settings) > 1:
        parts.append(
            f'<p class="soft">Changed {len(run.settings) - 1} times; these are the last.</p>'
        )
    return section("Settings", *parts)


def trial_table(run: Run) -> str:
    """How each trial of `edgechoir tune` did in its last round."""
    trials: dict[str, list[Metrics]] = {}
    for metrics in run.trials:
        trials.setdefault(metrics.trial or "", []).append(metrics)
    rows = []
    for name, rounds in trials.items():
        last = next((m for m in reversed(rounds) if m.outcome == "done"), None)
        figures = None if last is None else Figures(last.accuracy, last.loss, last.rmse)
        rows.append([name, f"{len(rounds)}", *measures(figures)])
    if not rows:
        return ""
    heads = ("trial", "rounds in all", "accuracy", "RMSE", "loss")
    return section("Trials", table(heads, rows[-MAX_ROWS:], range(1, 5)))


def round_table(run: Run) -> str:
    rows = [
        [
            f"{m.round}",
            moment(m.at),
            m.outcome,
            "" if m.version is None else f"{m.version}",
            *measures(Figures(m.accuracy, m.loss, m.rmse)),
            f"{m.devices or 0}",
            f"{m.samples or 0}",
            seconds(m.seconds),
            size(m.bytes_up),
            size(m.bytes_down),
        ]
        for m in run.rounds[-MAX_ROWS:]
    ]
    if not rows:
        return ""
    heads = ("round", "ended", "outcome", "version", "accuracy", "RMSE", "loss", "devices")
    heads = (*heads, "rows", "length", "received", "sent")  # type: ignore[assignment]
    body = table(heads, rows, (0, *range(3, 12)))
    return section("All rounds", folded("One by one", body, len(run.rounds)))
