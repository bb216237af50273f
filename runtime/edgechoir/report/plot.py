"""Line plots as inline SVG, from numbers alone. Colours and sizes are the page's, by class names.

The drawing is 480 units wide, so that its letters are readable where it fills the width of a phone.
A curve of very many points is drawn by the lowest and the highest of each piece of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 480.0
HEIGHT: Final = 270.0
LEFT: Final = 58.0
RIGHT: Final = 12.0
TOP: Final = 12.0
BOTTOM: Final = 40.0
PIECES: Final = 300
COLOURS: Final = 8
Point = tuple[float, float]
Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """A named curve; `faint` ones are drawn thin and without a place in the legend."""

    name: str
    points: Sequence[Point]
    faint: bool = False


@dataclass(frozen=True, slots=True)
class Level:
    """A horizontal line at a value that means something: a target, a cap."""

    name: str
    y: float


@dataclass(frozen=True, slots=True)
class Axes:
    """Where a value is drawn."""

    x0: float
    x1: float
    y0: float
    y1: float

    def x(self, value: float) -> float:
        return LEFT + (value - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)


def plot(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    show: Format,
    levels: Sequence[Level] = (),
    marks: Sequence[float] = (),
    dots: Sequence[Point] = (),
    from_zero: bool = False,
) -> str:
    """One figure with its legend. `marks` are places on the x axis, `dots` points to stand out.

    Gives a note in its place where there is no point to draw.
    """
    drawn = [(one, _finite(one.points)) for one in series]
    drawn = [(one, points) for one, points in drawn if points]
    if not drawn:
        return _figure(title, '<p class="none">not recorded</p>', "")
    axes = _axes([points for _, points in drawn], levels, marks, from_zero)
    parts = [*_grid(axes, show, x_label)]
    parts += [_mark(axes, x) for x in _thinned(marks) if axes.x0 <= x <= axes.x1]
    parts += [_level(axes, level) for level in levels]
    for one, points in drawn:
        if one.faint:
            parts.append(_curve(axes, points, "faint"))
    named = [(one, points) for one, points in drawn if not one.faint]
    for n, (_, points) in enumerate(named):
        parts.append(_curve(axes, points, f"curve c{n % COLOURS}"))
    for x, y in dots:
        parts.append(f'<circle class="dot" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="4"/>')
    ends = "; ".join(f"{one.name} ends at {show(points[-1][1])}" for one, points in named[:8])
    svg = (
        f'<svg viewBox="0 0 {WIDTH:g} {HEIGHT:g}" role="img" '
        f'aria-label="{escape(f"{title}. {ends}")}">{"".join(parts)}</svg>'
    )
    return _figure(title, svg, _legend([one.name for one, _ in named]))


def _figure(title: str, body: str, legend: str) -> str:
    return f"<figure><figcaption>{escape(title)}</figcaption>{body}{legend}</figure>"


def _legend(names: Sequence[str]) -> str:
    if len(names) < 2:
        return ""
    items = "".join(
        f'<li><i class="b{n % COLOURS}"></i>{escape(name)}</li>' for n, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def _finite(points: Sequence[Point]) -> list[Point]:
    return [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]


def _axes(
    curves: Sequence[Sequence[Point]],
    levels: Sequence[Level],
    marks: Sequence[float],
    from_zero: bool,
) -> Axes:
    xs = [x for points in curves for x, _ in points] + list(marks)
    ys = [y for points in curves for _, y in points] + [level.y for level in levels]
    low, high = min(ys), max(ys)
    if from_zero:
        low = min(low, 0.0)
    if high - low < 1e-12 * max(abs(high), 1.0):
        pad = abs(high) * 0.1 or 1.0
        low, high = (0.0 if from_zero and high >= 0 else low - pad), high + pad
    else:
        pad = 0.05 * (high - low)
        low, high = low if from_zero and low >= 0 else low - pad, high + pad
    first, last = min(xs), max(xs)
    return Axes(first, last if last > first else first + 1.0, low, high)


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers in [low, high], some `about` of them."""
    step = (high - low) / max(about, 1)
    size = 10.0 ** math.floor(math.log10(step))
    step = next(size * n for n in (1, 2, 5, 10) if size * n >= step * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [n * step for n in range(first, last + 1)]


def _grid(axes: Axes, show: Format, x_label: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in ticks(axes.y0, axes.y1, 5):
        y = axes.y(value)
        parts.append(f'<path class="grid" d="M{LEFT:g} {y:.1f}H{right:g}"/>')
        parts.append(
            f'<text x="{LEFT - 6:g}" y="{y + 4:.1f}" class="end">{escape(show(value))}</text>'
        )
    for value in ticks(axes.x0, axes.x1, 6):
        if value == int(value):
            x = axes.x(value)
            parts.append(f'<path class="grid" d="M{x:.1f} {bottom:g}v4"/>')
            parts.append(f'<text x="{x:.1f}" y="{bottom + 17:g}" class="mid">{int(value)}</text>')
    parts.append(f'<path class="axis" d="M{LEFT:g} {bottom:g}H{right:g}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text x="{middle:g}" y="{HEIGHT - 6:g}" class="mid">{escape(x_label)}</text>')
    return parts


def _mark(axes: Axes, x: float) -> str:
    bottom = HEIGHT - BOTTOM
    return f'<path class="mark" d="M{axes.x(x):.1f} {bottom:g}v-9"/>'


def _level(axes: Axes, level: Level) -> str:
    y = axes.y(level.y)
    above = y - 5 if y - 5 > TOP + 8 else y + 14
    return (
        f'<path class="level" d="M{LEFT:g} {y:.1f}H{WIDTH - RIGHT:g}"/>'
        f'<text x="{LEFT + 6:g}" y="{above:.1f}" class="start">{escape(level.name)}</text>'
    )


def _curve(axes: Axes, points: Sequence[Point], kind: str) -> str:
    thin = thinned(points)
    if len(thin) == 1:
        x, y = thin[0]
        return f'<circle class="{kind} point" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3"/>'
    path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in thin)
    return f'<polyline class="{kind}" points="{path}"/>'


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most some 2 PIECES points that look alike: the lowest and highest of each piece."""
    if len(points) <= 2 * PIECES:
        return list(points)
    out: list[Point] = []
    for n in range(PIECES):
        piece = points[n * len(points) // PIECES : (n + 1) * len(points) // PIECES]
        low, high = min(piece, key=lambda p: p[1]), max(piece, key=lambda p: p[1])
        out += sorted({low, high})
    return out


def _thinned(marks: Sequence[float]) -> Sequence[float]:
    return marks if len(marks) <= PIECES else marks[:: -(-len(marks) // PIECES)]
