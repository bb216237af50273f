"""Rounds of a whole federation on this machine: 12 devices, 4 nodes, 2 edge clouds, a cloud.

First the demo as a user starts it. Then the same tree with a pause between rounds, so that after
each one every member has said how long its part took: the devices' training, and what each tier
adds on its way up and down.
"""

import asyncio
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np

from bench.figures import Figure
from bench.fleet import WAIT_S, Fleet, Part, device, fleet
from edgechoir.demo.layout import (
    BATCH,
    DEVICES,
    EDGE_CLOUDS,
    EPOCHS,
    LEARNING_RATE,
    NODES,
    RATE_HZ,
)
from edgechoir.demo.processes import processes
from edgechoir.demo.show import bundle_path
from edgechoir.demo.split import digits, shared_out

DEMO_ROUNDS: Final = 15
ROUNDS: Final = 10
PAUSE_S: Final = 1.6
TOLD_S: Final = 1.2
"""After so long every member has published a status about the round that ended."""


def measure() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        shown = asyncio.run(_demo(Path(folder)))
    with tempfile.TemporaryDirectory() as folder:
        return [*_of_demo(shown), *asyncio.run(_paused(Path(folder)))]


async def _demo(folder: Path) -> dict[str, Any]:
    """The outcome of `edgechoir demo`."""
    log, work = folder / "log.txt", folder / "demo"
    arguments = ("demo", "--rounds", str(DEMO_ROUNDS), "--directory", str(work), "--json")
    async with processes() as running:
        await running.start("demo", log, *arguments)
        await running.wait("demo")
    outcome: dict[str, Any] = json.loads((work / "outcome.json").read_text())
    return outcome


def _of_demo(outcome: dict[str, Any]) -> list[Figure]:
    moved = outcome["bytes_per_device_and_round"]
    model = moved["model"]
    return [
        Figure("demo: start to first round", outcome["seconds"]["to_first_round"], "s"),
        Figure("demo: a round, median", outcome["rounds"]["seconds_median"], "s"),
        Figure("demo: failed rounds", outcome["rounds"]["failed"], f"of {DEMO_ROUNDS}"),
        Figure("demo: samples without an answer", outcome["inference"]["missed"], ""),
        Figure("a device and round, up", moved["up"], "bytes", "bytes, the model", model),
        Figure("a device and round, down", moved["down"], "bytes", "bytes, the model", model),
    ]


async def _paused(folder: Path) -> list[Figure]:
    parts = tree(folder)
    seen: dict[str, list[float]] = {"cloud": [], "edge-cloud": [], "node": [], "training": []}
    async with fleet(folder, parts) as running:
        await running.start()
        for count in range(1, ROUNDS + 1):
            await running.seen.until(
                lambda s, n=count: len(s.rounds) >= n,  # type: ignore[misc]
                WAIT_S,
                f"round {count}",
            )
            await asyncio.sleep(TOLD_S)
            for tier, seconds in slowest(running).items():
                seen[tier].append(seconds)
    whole, edge, node, training = (median(seen[tier]) for tier in seen)
    beyond = median(a - b for a, b in zip(seen["cloud"], seen["training"], strict=True))
    return [
        Figure("a round as the cloud sees it, median", whole, "s"),
        Figure("  the slowest device's training in it", training, "s"),
        Figure("  beyond the training itself", beyond, "s", "s of training", training),
        Figure("  of that between device and node", node - training, "s"),
        Figure("  between node and edge cloud", edge - node, "s"),
        Figure("  between edge cloud and cloud", whole - edge, "s"),
    ]


def slowest(running: Fleet) -> dict[str, float]:
    """Seconds of the last round by tier: of each tier the member that took longest."""
    found = {"cloud": running.seen.rounds[-1].seconds or 0.0}
    for status in running.seen.statuses.values():
        if status.tier in ("node", "edge-cloud") and status.round and status.round.seconds:
            found[status.tier] = max(found.get(status.tier, 0.0), status.round.seconds)
        if status.training and status.training.seconds:
            found["training"] = max(found.get("training", 0.0), status.training.seconds)
    return found


def tree(folder: Path) -> list[Part]:
    """The demo's federation, each device with its part of the digits."""
    bundle = {"bundle": str(bundle_path())}
    plan = {"epochs": EPOCHS, "batch_size": BATCH, "learning_rate": LEARNING_RATE}
    parts = [
        Part(
            "cloud",
            "cloud",
            None,
            {"model": bundle, "rounds": _waiting(EDGE_CLOUDS, pause_s=PAUSE_S), "training": plan},
        )
    ]
    for e in range(EDGE_CLOUDS):
        waiting = {"rounds": _waiting(NODES // EDGE_CLOUDS)}
        parts.append(Part("edge-cloud", f"edge-{e}", "cloud", waiting))
    for n in range(NODES):
        waiting = {"rounds": _waiting(DEVICES // NODES)}
        parts.append(Part("node", f"node-{n}", f"edge-{n * EDGE_CLOUDS // NODES}", waiting))
    rows, _ = shared_out(digits(), DEVICES, 0)
    for d, part in enumerate(rows):
        samples = folder / f"samples-{d}.npz"
        np.savez(samples, x=part.x, y=part.y)
        parent = f"node-{d * NODES // DEVICES}"
        enough = {"min_samples": 20}
        parts.append(device(f"dev-{d:02d}", parent, samples, RATE_HZ, training=enough))
    return parts


def _waiting(children: int, **values: object) -> dict[str, object]:
    return {"expected_members": children, "join_wait_s": 30.0, **values}
