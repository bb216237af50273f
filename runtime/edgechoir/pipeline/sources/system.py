"""The machine's own state, from /proc and /sys: for a model that watches the device itself.

A metric that this machine does not have (no battery, no thermal zone) is NaN: the check's policy
for missing values says what becomes of it.
"""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError

NAN: Final = float("nan")
MEGABYTE: Final = 1e6


class SystemMetrics:
    """One reading a call: the metrics named, in that order.

    cpu: share of all processors since the last reading, 0 to 1 (NaN at first). load: runnable
    tasks, mean over a minute. memory, disk: share in use. temperature: hottest zone, degrees C.
    network: bytes a second since the last reading, all interfaces but lo. battery: charge, 0 to 1.
    """

    def __init__(
        self,
        metrics: Sequence[str],
        root: Path = Path("/"),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises OperatorError: no metrics, or an unknown one."""
        self._proc, self._sys, self._monotonic = root / "proc", root / "sys", monotonic
        self._root = root
        self._cpu: tuple[float, float] | None = None
        self._network: tuple[float, float] | None = None
        readers: dict[str, Callable[[], float]] = {
            "cpu": self._read_cpu,
            "load": lambda: float((self._proc / "loadavg").read_text().split()[0]),
            "memory": self._read_memory,
            "disk": self._read_disk,
            "temperature": self._read_temperature,
            "network": self._read_network,
            "battery": self._read_battery,
        }
        if not metrics or set(metrics) - readers.keys():
            raise OperatorError(f"metrics are {list(metrics)}: use {', '.join(readers)}")
        self._readers = [readers[name] for name in metrics]

    def __call__(self) -> list[float]:
        values = []
        for read in self._readers:
            try:
                values.append(read())
            except (OSError, ValueError, IndexError, KeyError, ZeroDivisionError):
                values.append(NAN)
        return values

    def _read_cpu(self) -> float:
        ticks = [float(n) for n in (self._proc / "stat").read_text().split("\n")[0].split()[1:9]]
        total, idle = sum(ticks), ticks[3] + ticks[4]
        before, self._cpu = self._cpu, (total, idle)
        if before is None:
            return NAN
        return 1.0 - (idle - before[1]) / (total - before[0])

    def _read_memory(self) -> float:
        lines = (self._proc / "meminfo").read_text().splitlines()
        sizes = {
            name: float(rest.split()[0]) for name, _, rest in (x.partition(":") for x in lines)
        }
        return 1.0 - sizes["MemAvailable"] / sizes["MemTotal"]

    def _read_disk(self) -> float:
        disk = os.statvfs(self._root)
        return 1.0 - disk.f_bavail / disk.f_blocks

    def _read_temperature(self) -> float:
        zones = (self._sys / "class" / "thermal").glob("thermal_zone*/temp")
        return max((float(zone.read_text()) / 1000 for zone in zones), default=NAN)

    def _read_network(self) -> float:
        now, total = self._monotonic(), 0.0
        for line in (self._proc / "net" / "dev").read_text().splitlines()[2:]:
            name, _, rest = line.partition(":")
            if name.strip() != "lo":
                fields = rest.split()
                total += float(fields[0]) + float(fields[8])
        before, self._network = self._network, (now, total)
        return NAN if before is None else (total - before[1]) / (now - before[0])

    def _read_battery(self) -> float:
        supplies = (self._sys / "class" / "power_supply").glob("*/capacity")
        return min((float(each.read_text()) / 100 for each in supplies), default=NAN)
