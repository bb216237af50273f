"""What a person does, from a phone's 50 Hz acceleration and turning. Argument: HAPT as NPZ."""

import asyncio
import sys
import tempfile
from pathlib import Path

import numpy as np
from torch import nn

from edgechoir import program as choir

DOES = ["walking", "upstairs", "downstairs", "sitting", "standing", "laying"]
META = {"name": "activity", "task": "classification", "input": [6, 128], "outputs": DOES}
META |= {"axis": 0, "offset": [0.7, 0, 0, 0, 0, 0], "scale": [2.5, 2.5, 2.5, 2, 2, 2]}


def model() -> nn.Module:
    first = [nn.Conv1d(6, 24, 9, stride=2), nn.ReLU(), nn.Conv1d(24, 32, 9, stride=2), nn.ReLU()]
    return nn.Sequential(*first, nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(128, 6))


def stretches(part: int, path: str) -> list[choir.Block]:  # 0: to learn from, 1: to judge
    if path:
        with np.load(path) as z:
            x, y, wanted = np.float32(z["x"] * z["scale"]), z["y"].astype(int) - 1, z["split"]
            cut = np.split(np.arange(len(y)), np.flatnonzero(np.diff(z["segment"])) + 1)
            spans = [(x[at], y[at]) for at in cut if wanted[at[0]] == part]
    else:
        print("no recording given: made-up movements, a rhythm and a tilt for each activity")
        chance, t, spans = np.random.default_rng(part), np.arange(640)[:, None] / 50, []
        for does in list(range(6)) * 12:
            tilt = chance.normal(np.eye(6)[does], 0.3, (640, 6))
            beat = np.sin(2 * np.pi * (does + 1) / 2 * t + chance.uniform(0, 6, 6)) * (does < 3)
            spans.append((np.float32(tilt + beat), np.full(640, does)))
    return [choir.Block(str(i), np.arange(len(y)) / 50, x, y) for i, (x, y) in enumerate(spans)]


async def answered(blocks: list[choir.Block], model: choir.Predictor) -> list[choir.Sample]:
    flow, kept = choir.Flow(), list[choir.Sample]()
    phone = flow.source("phone", choir.PythonSource(lambda: blocks))
    phone.window(128, step=64).map(np.transpose).infer(model).sink(kept.append)
    await choir.Pipeline(flow, queue=100_000).run()
    return kept


async def main(path: str = "", epochs: str = "8") -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle = choir.build_bundle(Path(__file__), Path(folder))
        train = await answered(stretches(0, path), choir.predictor_of(bundle))
        x, y = np.stack([s.x for s in train]), np.array([s.y for s in train])
        async with choir.Trainer(Path(folder)) as trainer:
            plan = choir.FitPlan(int(epochs), batch_size=32, learning_rate=0.02, momentum=0.9)
            weights = bundle.params + (await trainer.fit(bundle.params, x, y, plan)).delta
    judged = await answered(stretches(1, path), choir.predictor_of(bundle, weights))
    right = np.mean([s.answer.label == s.y for s in judged])
    print(f"learned from {len(x)} windows; {right:.1%} of {len(judged)} new ones are right")


asyncio.run(main(*sys.argv[1:])) if __name__ == "__main__" else None
