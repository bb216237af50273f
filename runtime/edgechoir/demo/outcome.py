"""What came of a demo: accuracies side by side, answers, bytes, and what the node could see."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from edgechoir.demo.layout import BATCH, EPOCHS, LEARNING_RATE, TRACED
from edgechoir.demo.split import Rows
from edgechoir.demo.watch import Seen
from edgechoir.learning.fixed_point import TAIL
from edgechoir.monitor.status import Status
from edgechoir.training.trainer import Trainer
from edgechoir.types import FitPlan, Floats

FLOAT_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Accuracies:
    """On the same test rows, 0 to 1; `local` is the mean over the devices."""

    before: float
    local: float
    federated: float
    pooled: float


async def accuracies(
    trainer: Trainer, first: Floats, last: Floats, parts: list[Rows], test: Rows, rounds: int
) -> Accuracies:
    """Measure the global model, and train the comparisons for as many epochs as it had."""
    plan = FitPlan(rounds * EPOCHS, BATCH, LEARNING_RATE, seed=1)

    async def measure(weights: Floats) -> float:
        return (await trainer.evaluate(weights, test.x, test.y))["accuracy"]

    async def trained_on(part: Rows) -> float:
        update = await trainer.fit(first, part.x, part.y, plan)
        return await measure((first + update.delta).astype(np.float32))

    local = [await trained_on(part) for part in parts]
    everything = Rows(np.concatenate([p.x for p in parts]), np.concatenate([p.y for p in parts]))
    return Accuracies(
        before=await measure(first),
        local=float(np.mean(local)),
        federated=await measure(last),
        pooled=await trained_on(everything),
    )


def report(
    seen: Seen, measured: Accuracies, dimension: int, picture: Path | None
) -> dict[str, Any]:
    """Everything as plain values, as `--json` prints it."""
    devices = [status for status in seen.statuses.values() if status.tier == "device"]
    done = [metrics for metrics in seen.rounds if metrics.outcome == "done"]
    answers = [s.inference for s in devices if s.inference is not None]
    up, down = _bytes(devices, "bytes_up"), _bytes(devices, "bytes_down")
    vector = FLOAT_BYTES * (dimension + len(TAIL))
    return {
        "accuracy": {
            "before": measured.before,
            "local_only": measured.local,
            "federated": measured.federated,
            "pooled": measured.pooled,
        },
        "rounds": {
            "done": len(done),
            "failed": len(seen.rounds) - len(done),
            "seconds_median": _median([m.seconds for m in done if m.seconds is not None]),
        },
        "inference": {
            "answered": sum(answer.answered for answer in answers),
            "missed": sum(answer.missed for answer in answers),
            "p99_ms_worst": max((answer.p99_ms or 0.0 for answer in answers), default=0.0),
            "models_exchanged": sum(answer.swaps or 0 for answer in answers),
        },
        "bytes_per_device_and_round": {
            "up": up,
            "down": down,
            "model": FLOAT_BYTES * dimension,
            "up_over_vector": None if up is None else up / vector,
        },
        "device_rss_mb": _median(
            [s.health.rss_mb for s in devices if s.health and s.health.rss_mb is not None]
        ),
        "picture": None if picture is None else str(picture),
    }


def table(found: dict[str, Any]) -> str:
    """The report for a person."""
    accuracy, inference = found["accuracy"], found["inference"]
    moved, rounds = found["bytes_per_device_and_round"], found["rounds"]
    lines = [
        ("accuracy before training", f"{accuracy['before']:.3f}"),
        ("  each device alone (mean)", f"{accuracy['local_only']:.3f}"),
        ("  federated", f"{accuracy['federated']:.3f}"),
        ("  pooled (all data in one place)", f"{accuracy['pooled']:.3f}"),
        ("rounds done / failed", f"{rounds['done']} / {rounds['failed']}"),
        ("seconds a round (median)", _shown(rounds["seconds_median"], "{:.2f}")),
        ("inferences answered / missed", f"{inference['answered']} / {inference['missed']}"),
        ("models exchanged while answering", f"{inference['models_exchanged']}"),
        ("bytes a device and round, up", _shown(moved["up"], "{:,.0f}")),
        ("bytes a device and round, down", _shown(moved["down"], "{:,.0f}")),
        ("bytes of the model itself", f"{moved['model']:,}"),
        ("memory of a device (median)", _shown(found["device_rss_mb"], "{:.0f} MB")),
        ("what the node could see", found["picture"] or "not drawn: no trace was written"),
        ("report of the run", found.get("report", "not written")),
    ]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in lines)


def draw(trace: Path, picture: Path) -> Path | None:
    """Histograms of one device's true vector and of the masked one; None without a trace."""
    try:
        vectors = [np.load(trace / f"{what}-{TRACED}.npy") for what in ("true", "masked")]
    except OSError:
        return None
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    true, masked = (vector.view(np.int32)[: -len(TAIL)] for vector in vectors)
    ring = (-(2**31), 2**31)
    figure, (close, left, right) = plt.subplots(1, 3, figsize=(13, 4))
    close.hist(true, bins=80, color="#3a7d44")
    close.set_title(f"{TRACED}: its true update, at its own scale")
    left.hist(true, bins=80, range=ring, color="#3a7d44")
    left.set_title("the same, at the scale of the ring")
    right.hist(masked, bins=80, range=ring, color="#7a7a7a")
    right.set_title("what its node could see of it")
    for axis in (left, right):
        axis.set_xlim(*ring)
        axis.set_ylim(0, len(true) * 1.05)
    right.set_ylim(0, None)
    for axis in (close, left, right):
        axis.set_xlabel("coordinate, as a signed 32-bit number")
        axis.set_ylabel("coordinates")
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    plt.close(figure)
    return picture


def _bytes(devices: list[Status], name: str) -> float | None:
    return _median(
        [float(value) for s in devices if s.round and (value := getattr(s.round, name)) is not None]
    )


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None


def _shown(value: float | None, form: str) -> str:
    return "unknown" if value is None else form.format(value)
