"""A measured value, and what it is compared with."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import median


@dataclass(frozen=True, slots=True)
class Figure:
    """`reference` is the same measure of `against`, taken in the same run."""

    what: str
    value: float
    unit: str
    against: str = ""
    reference: float | None = None

    @property
    def ratio(self) -> float | None:
        """How many times the reference."""
        return self.value / self.reference if self.reference else None

    def line(self) -> tuple[str, str, str, str]:
        """For people: what, value, reference, ratio."""
        compared = "" if self.reference is None else f"{shown(self.reference)} {self.against}"
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} x"
        return self.what, f"{shown(self.value)} {self.unit}", compared, ratio


def shown(value: float) -> str:
    """Three digits that count, or all of a whole number."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def table(figures: Iterable[Figure]) -> str:
    rows = [figure.line() for figure in figures]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join(
        f"  {row[0]:<{widths[0]}}  {row[1]:>{widths[1]}}  {row[2]:<{widths[2]}}  {row[3]}".rstrip()
        for row in rows
    )


def between(page: str, name: str, text: str) -> str:
    """A page with `text` between its comments <!-- name --> and <!-- /name -->."""
    head, rest = page.split(f"<!-- {name} -->\n", 1)
    _, tail = rest.split(f"<!-- /{name} -->", 1)
    return f"{head}<!-- {name} -->\n\n{text}\n\n<!-- /{name} -->{tail}"


def quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least a share `q` of them do not exceed."""
    return sorted(values)[max(0, ceil(len(values) * q) - 1)]


def in_turn(rounds: int, *runs: Callable[[], float]) -> list[float]:
    """The median of what each run gives over `rounds` turns, taken one after the other.

    One turn goes before, for what is warm to be warm.
    """
    results: list[list[float]] = [[] for _ in runs]
    for turn in range(rounds + 1):
        for run, given in zip(runs, results, strict=True):
            value = run()
            if turn:
                given.append(value)
    return [median(given) for given in results]


def seconds_of(
    work: Callable[[], object], times: int = 1, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds that one call takes, over `times` calls. `time.thread_time` counts no other work."""
    began = clock()
    for _ in range(times):
        work()
    return (clock() - began) / times
