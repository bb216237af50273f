"""The page's plots: what is drawn over the rounds, and how many curves of many members."""

import statistics
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Final

from edgechoir.monitor.records import Metrics
from edgechoir.monitor.status import PrivacyStatus
from edgechoir.report.plot import Level, Point, Series, plot
from edgechoir.report.run import Figures, Run
from edgechoir.report.tables import MAX_ROWS, folded, member_table
from edgechoir.report.words import number, section, side_by_side, size, table

NAMED: Final = 8
"""Curves with a colour and a name of their own in a plot."""
FAINT: Final = 300
FEW: Final = 12
"""Rows of a table that is not folded."""
TIERS: Final = {"edge-cloud": "Edge clouds", "node": "Nodes", "device": "Devices"}


def over(rounds: list[Metrics], of: Callable[[Metrics], float | None]) -> list[Point]:
    return [(float(m.round), value) for m in rounds if (value := of(m)) is not None]


def learning(run: Run) -> str:
    if not run.rounds:
        return ""
    marks = [float(m.round) for m in run.failed]
    best = next((v.version for v in run.versions if v.best), None)
    at = next((m for m in reversed(run.done) if m.version == best), None)
    last = section_of(run.settings, "rounds")
    name, of, show = _main(run)
    target = last.get("target_rmse" if run.regression else "target_accuracy")
    levels = [Level("target", float(target))] if isinstance(target, int | float) else []
    value = None if at is None else of(Figures(at.accuracy, at.loss, at.rmse))
    dots = [(float(at.round), value)] if at is not None and value is not None else []
    plots = [
        plot(
            name,
            [
                Series(
                    "all devices",
                    over(run.done, lambda m: of(Figures(m.accuracy, m.loss, m.rmse))),
                )
            ],
            x_label="round",
            show=show,
            levels=levels,
            marks=marks,
            dots=dots,
        )
    ]
    if name != "Loss":
        loss = Series("all devices", over(run.done, lambda m: m.loss))
        plots.append(plot("Loss", [loss], x_label="round", show=number, marks=marks))
    notes = [
        "the dot is the best version" if dots else "",
        "red: rounds that failed" if marks else "",
    ]
    said = ", ".join(note for note in notes if note)
    note = f'<p class="soft">On rows held out on the devices; {said}.</p>' if said else ""
    return section("Learning", note, side_by_side(*plots))


def _main(
    run: Run,
) -> tuple[str, Callable[[Figures], float | None], Callable[[float], str]]:
    """Name of the figure that counts, how to get it, and how to write it."""
    if run.regression:
        return "RMSE", lambda figures: figures.rmse, number
    if any(m.accuracy is not None for m in run.rounds) or not run.rounds:
        return "Accuracy", lambda figures: figures.accuracy, _axis_percent
    return "Loss", lambda figures: figures.loss, number


def _axis_percent(value: float) -> str:
    return f"{100 * value:.3g} %"


def tiers(run: Run) -> str:
    name, of, show = _main(run)
    plots, texts = [], []
    for tier, title in TIERS.items():
        members = {m: member for (t, m), member in sorted(run.members.items()) if t == tier}
        curves = {
            member: [
                (float(at), value)
                for at, figures in sorted(seen.figures.items())
                if (value := of(figures)) is not None
            ]
            for member, seen in members.items()
        }
        curves = {member: points for member, points in curves.items() if points}
        if curves:
            plots.append(
                plot(f"{title}: {name.lower()}", _curves(curves), x_label="round", show=show)
            )
        if members:
            texts.append(f"{len(curves)} of {len(members)} {title.lower()}")
    if not texts:
        return ""
    note = (
        f"Shown: {', '.join(texts)}. Nodes and edge clouds show what their own cohort's sum says, "
        "devices their own rows where the owner publishes it."
    )
    return section(
        "By tier", f'<p class="soft">{escape(note)}</p>', side_by_side(*plots), member_table(run)
    )


def _curves(curves: Mapping[str, list[Point]]) -> list[Series]:
    """Few members by name; of many, all faintly and their median."""
    if len(curves) <= NAMED:
        return [Series(member, points) for member, points in curves.items()]
    at: dict[float, list[float]] = {}
    for points in curves.values():
        for x, y in points:
            at.setdefault(x, []).append(y)
    median = [(x, statistics.median(ys)) for x, ys in sorted(at.items())]
    faint = [Series(member, points, faint=True) for member, points in curves.items()]
    return [*faint[:FAINT], Series(f"median of {len(curves)}", median)]


def privacy(run: Run) -> str:
    spent = over(run.rounds, lambda m: m.epsilon)
    settings = section_of(run.settings, "privacy")
    cap, delta = settings.get("max_epsilon"), settings.get("delta")
    own = {
        member: sorted((float(at), value) for at, value in seen.epsilon.items())
        for (tier, member), seen in sorted(run.members.items())
        if tier == "device" and any(seen.epsilon.values())
    }
    accounts = [
        (member, seen.privacy)
        for (tier, member), seen in sorted(run.members.items())
        if tier == "device"
        and seen.privacy is not None
        and (seen.privacy.epsilon or seen.privacy.example_epsilon or seen.privacy.required)
    ]
    if not spent and not accounts:
        text = "No round had noise: what a sum says of one device is bounded by how many are in it."
        return section("Privacy account", f'<p class="soft">{text}</p>')
    levels = [Level(f"cap {cap:g}", float(cap))] if isinstance(cap, int | float) else []
    plots = []
    if spent:
        title = "Epsilon of a device that was in every round"
        title += f", at delta {delta:g}" if isinstance(delta, int | float) else ""
        curve = [Series("epsilon", spent)]
        plots.append(
            plot(title, curve, x_label="round", show=number, levels=levels, from_zero=True)
        )
    if own:
        curves = _curves(own)
        plots.append(
            plot("As devices count it", curves, x_label="round", show=number, from_zero=True)
        )
    rows = [[member, *_spent(account)] for member, account in accounts]
    heads = ("device", "epsilon", "delta", "its cap", "rounds with noise", "epsilon of one row")
    body = table(heads, rows[:MAX_ROWS], range(1, 6))
    said = body if len(rows) <= FEW else folded("Devices", body, len(rows))
    return section("Privacy account", side_by_side(*plots), said)


def _spent(account: PrivacyStatus) -> list[str]:
    """The figures of one device's account."""
    epsilon, delta, cap, row = (
        "" if value is None else number(value, 3)
        for value in (account.epsilon, account.delta, account.max_epsilon, account.example_epsilon)
    )
    return [epsilon, delta, cap, f"{account.rounds}", row]


def course(run: Run) -> str:
    if not run.rounds:
        return ""
    marks = [float(m.round) for m in run.failed]

    def drawn(title: str, show: Callable[[float], str], *series: Series) -> str:
        return plot(title, series, x_label="round", show=show, marks=marks, from_zero=True)

    return section(
        "Course of the rounds",
        side_by_side(
            drawn("Seconds", number, Series("length", over(run.rounds, lambda m: m.seconds))),
            drawn(
                "Bytes at the cloud",
                size,
                Series("received", over(run.rounds, lambda m: m.bytes_up)),
                Series("sent", over(run.rounds, lambda m: m.bytes_down)),
            ),
            drawn(
                "Devices in the sum",
                number,
                Series("devices", over(run.done, lambda m: m.devices)),
            ),
            drawn(
                "Members of the cloud's own cohort",
                number,
                Series("expected", over(run.rounds, lambda m: m.expected)),
                Series("in the sum", over(run.done, lambda m: m.members)),
            ),
        ),
    )


def section_of(settings: list[Mapping[str, Any]], section: str) -> Mapping[str, Any]:
    found = settings[-1].get(section) if settings else None
    return found if isinstance(found, Mapping) else {}
