"""One page about a run: self-contained HTML that loads nothing and needs no script."""

import statistics
from collections.abc import Iterator
from html import escape

from edgechoir.monitor.records import Metrics
from edgechoir.report.curves import course, learning, privacy, tiers
from edgechoir.report.run import Figures, Run
from edgechoir.report.style import STYLE
from edgechoir.report.tables import (
    failure_tables,
    round_table,
    setting_lists,
    trial_table,
    version_table,
)
from edgechoir.report.words import headline, moment, number, seconds, size, tile


def page(run: Run, now: float) -> str:
    """The whole document."""
    title = f"{run.federation}: report of the run"
    sections = (
        _head(run),
        learning(run),
        tiers(run),
        privacy(run),
        course(run),
        failure_tables(run),
        version_table(run),
        trial_table(run),
        setting_lists(run),
        round_table(run),
    )
    left = f" {run.left_out} documents had no room." if run.left_out else ""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f"{''.join(sections)}"
        f"<footer>Written by edgechoir on {moment(now)}.{escape(left)} Accuracy and loss of a "
        "round are those of the model it began with, on rows that devices held out and did not "
        "train on.</footer></body></html>\n"
    )


def _head(run: Run) -> str:
    if not run.rounds:
        what = f"{len(run.members)} members have been seen, and no round."
        return f"<h1>{escape(run.federation)}</h1><p>{escape(what)}</p>"
    first, last = run.rounds[0], run.rounds[-1]
    span = f"{moment(first.at - (first.seconds or 0.0))} to {moment(last.at)}"
    state = run.ended or "not over, as far as is recorded"
    return (
        f"<h1>{escape(run.federation)}</h1>"
        f'<p class="soft">{escape(span)}</p><p>{escape(state[:1].upper() + state[1:])}.</p>'
        f'<div class="tiles">{"".join(_tiles(run))}</div>'
    )


def _tiles(run: Run) -> Iterator[str]:
    done, failed = run.done, run.failed
    measured = [m for m in done if m.accuracy is not None or m.loss is not None]
    best = next((v for v in reversed(run.versions) if v.best), None)
    if measured:
        yield tile(*_headline(measured[-1]), "good")
    if best is not None and best.figures is not None:
        yield tile(headline(best.figures)[0], f"best: version {best.version}")
    good = sum(m.outcome == "done" for m in done)
    kind = "bad" if failed else ""
    yield tile(f"{good} / {len(failed)}", "rounds done / failed or not followed", kind)
    times = [m.seconds for m in done if m.seconds is not None]
    if times:
        yield tile(seconds(statistics.median(times)), "a round, median")
    devices = [m.devices for m in done if m.devices]
    if devices:
        yield tile(f"{devices[-1]}", "devices in the last sum")
    moved = sum((m.bytes_up or 0) + (m.bytes_down or 0) for m in run.rounds)
    yield tile(size(moved), "up and down at the cloud")
    epsilon = next((m.epsilon for m in reversed(run.rounds) if m.epsilon is not None), None)
    if epsilon is not None:
        yield tile(number(epsilon, 3), "epsilon of a device in every round")


def _headline(last: Metrics) -> tuple[str, str]:
    value, what = headline(Figures(last.accuracy, last.loss, last.rmse))
    return value, f"{what} of version {last.version}, the last measured"
