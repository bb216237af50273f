"""What processes hold in memory after a minute of work in a small federation with TLS.

Two devices only infer, at 20 and at 1,000 samples a second; four train, so that rounds run and
models are exchanged all the time. Resident (RSS) counts shared code too; what is private is the
process's own and not backed by a file (smaps_rollup in proc(5)).
"""

import asyncio
import compileall
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import edgechoir
from bench.figures import Figure
from bench.fleet import Fleet, Part, device, fleet, write_samples
from edgechoir.demo.show import bundle_path

SETTLED_S: Final = 25.0
"""When the growth begins to count: the start is over."""
MINUTE_S: Final = 60.0
GROWTH_S: Final = 60.0
SLOW_HZ: Final = 20.0
FAST_HZ: Final = 1000.0


def measure() -> list[Figure]:
    # As an installation has it: a process that compiles what it imports holds some MB more.
    compileall.compile_dir(Path(edgechoir.__file__).parent, quiet=1)
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_watch(Path(folder)))


async def _watch(folder: Path) -> list[Figure]:
    async with fleet(folder, parts(write_samples(folder / "samples.npz"))) as running:
        pid = running.processes.pid
        await running.start()
        began = time.monotonic()
        await asyncio.sleep(SETTLED_S)
        before = memory(pid("fast"))
        await asyncio.sleep(began + MINUTE_S - time.monotonic())
        figures = [
            *of_process("device that infers", pid("slow")),
            *of_process("device that trains", pid("dev-a")),
            *of_process("node", pid("node-1")),
            *of_process("cloud", pid("cloud")),
        ]
        for worker in children(pid("dev-a")):
            figures += of_process("its training worker", worker)
        await asyncio.sleep(began + SETTLED_S + GROWTH_S - time.monotonic())
        grown = memory(pid("fast")).resident - before.resident
        return [
            *figures,
            Figure(f"growth in {GROWTH_S:g} s at {FAST_HZ:g} samples/s", grown, "MB"),
            *of_status(running),
        ]


def parts(samples: Path) -> list[Part]:
    """A cloud over one device and one node; the node over three that train and two that do not."""
    bundle = {"bundle": str(bundle_path())}
    still: Mapping[str, object] = {"enabled": False}
    return [
        Part("cloud", "cloud", None, {"model": bundle, "rounds": _rounds(2, pause_s=2.0)}),
        Part("node", "node-1", "cloud", {"parent_tier": "cloud", "rounds": _rounds(3)}),
        device("dev-a", "node-1", samples, 20.0),
        device("dev-b", "node-1", samples, 20.0),
        device("dev-c", "node-1", samples, 20.0),
        device("dev-d", "cloud", samples, 20.0, parent_tier="cloud"),
        device("slow", "node-1", samples, SLOW_HZ, training=still),
        device("fast", "node-1", samples, FAST_HZ, training=still),
    ]


def _rounds(members: int, **values: object) -> dict[str, object]:
    return {"expected_members": members, "join_wait_s": 30.0, **values}


@dataclass(frozen=True, slots=True)
class Memory:
    """In MB of 10^6 bytes; `private` is what no file is behind."""

    resident: float
    private: float


def memory(pid: int) -> Memory:
    """What Linux says a process has."""
    found: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, kilobytes = line.split()[:2]
        found[name] = int(kilobytes) * 1024 / 1e6
    return Memory(found["Rss:"], found["Anonymous:"])


def of_process(what: str, pid: int) -> list[Figure]:
    seen = memory(pid)
    return [
        Figure(f"{what}, resident", seen.resident, "MB"),
        Figure("  of that private", seen.private, "MB"),
    ]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def of_status(running: Fleet) -> list[Figure]:
    """What the devices say of themselves."""
    figures = []
    for member, rate in (("slow", SLOW_HZ), ("fast", FAST_HZ)):
        status = running.seen.statuses[member]
        if status.health is None or status.inference is None:
            raise AssertionError(f"the status of {member} is not a device's")
        answers = status.inference
        figures += [
            Figure(f"CPU at {rate:g} samples/s", status.health.cpu_percent or 0.0, "% of a core"),
            Figure("  models exchanged meanwhile", answers.swaps or 0, ""),
            Figure("  samples without an answer", answers.missed, f"of {answers.answered:,}"),
        ]
    return figures
