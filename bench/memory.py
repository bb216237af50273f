"""What processes hold in memory after two minutes of work in a small federation with TLS.

Two devices only infer, at 20 and at 1,000 samples a second; four train, so that rounds run and
models are exchanged all the time. Resident (RSS) counts shared code too; what is private is the
process's own and not backed by a file (smaps_rollup in proc(5)).
"""

import asyncio
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.figures import Figure
from bench.fleet import Fleet, Part, device, fleet, write_samples
from edgechoir.demo.show import bundle_path

SETTLED_S: Final = 25.0
"""When the growth begins to count: the start is over."""
MINUTE_S: Final = 60.0
END_S: Final = 145.0
FAST_HZ: Final = 1000.0


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_watch(Path(folder)))


async def _watch(folder: Path) -> list[Figure]:
    async with fleet(folder, parts(write_samples(folder / "samples.npz"))) as running:
        await running.start()
        began = time.monotonic()

        async def at(seconds: float) -> None:
            await asyncio.sleep(max(0.0, began + seconds - time.monotonic()))

        await at(SETTLED_S)
        fast = memory(running.processes.pid("fast"))
        await at(MINUTE_S)
        figures = [
            figure
            for member, what in (
                ("slow", "device that infers"),
                ("dev-a", "device that trains"),
                ("node-1", "node"),
                ("cloud", "cloud"),
            )
            for figure in of_process(what, running.processes.pid(member))
        ]
        worker = children(running.processes.pid("dev-a"))
        figures += [one for pid in worker for one in of_process("its training worker", pid)]
        await at(END_S)
        grown = memory(running.processes.pid("fast")).resident - fast.resident
        minutes = f"{(END_S - SETTLED_S) / 60:g} minutes"
        return [
            *figures,
            Figure(f"growth in {minutes} at {FAST_HZ:g} samples/s", grown, "MB"),
            *exchanged(running),
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
        device("slow", "node-1", samples, 20.0, training=still),
        device("fast", "node-1", samples, FAST_HZ, training=still),
    ]


def _rounds(members: int, **values: object) -> dict[str, object]:
    return {"expected_members": members, "join_wait_s": 30.0, **values}


@dataclass(frozen=True, slots=True)
class Memory:
    """In MB of 10^6 bytes. `proportional` shares each page among those that map it."""

    resident: float
    proportional: float
    private: float


def memory(pid: int) -> Memory:
    """What Linux says a process has."""
    found: dict[str, float] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, kilobytes = line.split()[:2]
        found[name] = int(kilobytes) * 1024 / 1e6
    return Memory(found["Rss:"], found["Pss:"], found["Anonymous:"])


def of_process(what: str, pid: int) -> list[Figure]:
    seen = memory(pid)
    return [
        Figure(f"{what}, resident", seen.resident, "MB"),
        Figure("  its proportional share", seen.proportional, "MB"),
        Figure("  private, no file behind it", seen.private, "MB"),
    ]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def exchanged(running: Fleet) -> list[Figure]:
    answers = running.seen.statuses["slow"].inference
    if answers is None:
        return []
    return [
        Figure("models exchanged meanwhile", answers.swaps or 0, ""),
        Figure("samples without an answer meanwhile", answers.missed, ""),
    ]
