"""From the start of `edgechoir device` to its first answer, and to being on line.

The reference is what no start can be without: the interpreter, numpy and ONNX Runtime.
"""

import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.figures import Figure, seconds_of
from bench.fleet import WAIT_S, Fleet, device, fleet, monitor_link, write_samples
from edgechoir.monitor.health import usage
from edgechoir.monitor.records import PredictionRecord
from edgechoir.monitor.status import MemberState, parse
from edgechoir.transport.topics import monitor_filters

STARTS: Final = 8
MEMBER: Final = "dev"
RATE_HZ: Final = 200.0
"""The first answer is found to within one period: those given before it connected go unheard."""
BARE: Final = (sys.executable, "-c", "import numpy, onnxruntime")


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_starts(Path(folder)))


async def _starts(folder: Path) -> list[Figure]:
    samples = write_samples(folder / "samples.npz")
    part = device(
        MEMBER,
        "node",
        samples,
        RATE_HZ,
        training={"enabled": False},
        predictions={"max_rate_hz": RATE_HZ},
    )
    answered, online, spent, bare, bare_spent = [], [], [], [], []
    async with fleet(folder, [part]) as running:
        for turn in range(STARTS + 1):
            before = _spent_by_children()
            imports = await asyncio.to_thread(seconds_of, lambda: subprocess.run(BARE, check=True))
            imports_spent = _spent_by_children() - before
            first, there = await _start(running)
            used = usage(0.0, Path(f"/proc/{running.processes.pid(MEMBER)}")).cpu_s
            await running.processes.stop(MEMBER)
            if turn:  # the first has neither a status from before nor a warm page cache
                answered.append(first)
                online.append(there)
                spent.append(used or 0.0)
                bare.append(imports)
                bare_spent.append(imports_spent)
    against, reference = "s, bare imports", median(bare)
    return [
        Figure("process start to first answer", median(answered), "s", against, reference),
        Figure("process start to its status", median(online), "s", against, reference),
        Figure("processor time of both", median(spent), "s", against, median(bare_spent)),
    ]


def _spent_by_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _start(running: Fleet) -> tuple[float, float]:
    """Seconds from the start to the first answer, and to the status `online` at a monitor."""
    first = there = 0.0
    async with monitor_link(running.monitor) as link, asyncio.timeout(WAIT_S):
        for pattern in monitor_filters():
            await link.subscribe(pattern)
        began = time.time()
        await running.start()
        async for message in link.messages():
            if message.retained or not message.payload:
                continue
            if message.topic.endswith("predictions") and not first:
                record = PredictionRecord.from_json(message.payload)
                first = record.at + (record.latency_ms or 0.0) / 1e3 - began
            if message.topic.endswith("status"):
                state = parse(message.payload).state
                there = there or (time.time() - began if state is MemberState.ONLINE else 0.0)
            if first and there:
                break
    return first, there
