"""Numbers, times and tables as a page shows them; every text is escaped here."""

import math
import time
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from edgechoir.report.run import Figures

NONE: Final = "–"


def number(value: float | None, digits: int = 4) -> str:
    """Short: 0.9132, 12, 1.2e-05."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.{digits}g}"


def percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def size(value: float | None) -> str:
    """Bytes in decimal units."""
    if value is None:
        return NONE
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def seconds(value: float | None) -> str:
    if value is None:
        return NONE
    if value < 120:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def moment(at: float) -> str:
    """A time of day in UTC."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))
    except (OverflowError, ValueError, OSError):
        return NONE


def tile(value: str, what: str, kind: str = "") -> str:
    return (
        f'<div class="tile"><b class="{escape(kind)}">{escape(value)}</b>'
        f"<small>{escape(what)}</small></div>"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], numeric: Iterable[int] = ()) -> str:
    """A table without its empty columns; those in `numeric` stand to the right."""
    right, lines = frozenset(numeric), list(rows)
    used = [i for i in range(len(heads)) if any(line[i] for line in lines)]

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in right else ''}>{escape(row[i])}</{tag}>" for i in used
        )

    body = "".join(f"<tr>{cells('td', line)}</tr>" for line in lines)
    return (
        f'<div class="scroll"><table><thead><tr>{cells("th", heads)}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def pairs(entries: Iterable[tuple[str, object]]) -> str:
    """Names and values, side by side."""
    items = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value_of(value))}</dd></div>"
        for name, value in entries
    )
    return f"<dl>{items}</dl>"


def value_of(value: object) -> str:
    """A setting as its file would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def section(title: str, *parts: str) -> str:
    body = "".join(parts)
    return f"<section><h2>{escape(title)}</h2>{body}</section>" if body else ""


def side_by_side(*plots: str) -> str:
    return f'<div class="plots">{"".join(plots)}</div>' if plots else ""


def headline(figures: Figures) -> tuple[str, str]:
    """The figure that people look at first, and its name."""
    if figures.accuracy is not None:
        return percent(figures.accuracy), "accuracy"
    if figures.rmse is not None:
        return number(figures.rmse), "RMSE"
    return number(figures.loss), "loss"
