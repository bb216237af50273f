"""Memory and CPU of this process, from Linux's /proc (proc(5)); elsewhere they are not known."""

import os
from dataclasses import dataclass
from pathlib import Path

from edgechoir.monitor.status import Health


@dataclass(frozen=True, slots=True)
class Usage:
    """What the process has used at the time `at` [s] of a monotonic clock; None: not known."""

    at: float
    cpu_s: float | None
    rss_bytes: int | None


def usage(at: float, proc: Path = Path("/proc/self")) -> Usage:
    """Read what this process uses."""
    try:
        # statm, field 2: resident pages. stat, after the name in brackets: field 14 and 15 are
        # user and system time in clock ticks. The name may hold spaces and brackets.
        pages = int((proc / "statm").read_text().split()[1])
        fields = (proc / "stat").read_text().rpartition(")")[2].split()
        cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return Usage(at, cpu_s, pages * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError, IndexError, AttributeError):
        return Usage(at, None, None)


def health(started: float, before: Usage, now: Usage) -> Health:
    """The health part of a status: CPU over the time between two readings, rounded for people.

    `started` is the process's start by the clock of the readings.
    """
    passed = now.at - before.at
    cpu = None
    if before.cpu_s is not None and now.cpu_s is not None and passed > 0:
        cpu = round(100 * max(0.0, now.cpu_s - before.cpu_s) / passed, 1)
    return Health(
        rss_mb=None if now.rss_bytes is None else round(now.rss_bytes / 1e6, 1),
        cpu_percent=cpu,
        uptime_s=round(max(0.0, now.at - started), 1),
    )
