"""How PM2.5 changes within the hour. Argument: hourly readings of Beijing's stations as NPZ."""

import asyncio
import sys
import tempfile
from pathlib import Path

import numpy as np
from torch import nn

from edgechoir import program as choir

MEAN = [80, 106, 17.8, 51, 1242, 57, 13.4, 1011, 2.4, 0, 1.7, 0, 0]  # of PM2.5, PM10, SO2, ...
SCALE = [0.0125, 0.011, 0.0425, 0.0286, 0.0009, 0.018, 0.087, 0.0955, 0.072, 1.26, 0.79, 1.4, 1.4]
META = {"name": "air", "task": "regression", "input": [6, 13], "outputs": ["change / 20"]}


def model() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(78, 32), nn.ReLU(), nn.Linear(32, 1))


def recorded(path: str) -> list[np.ndarray]:  # two halves: hours x stations x 13 values
    if path:
        with np.load(path) as z:
            return np.array_split(z["x"].reshape(12, -1, 13).transpose(1, 0, 2)[17544:], 2)
    print("no recording given: made-up air with a daily wave, and gaps")
    chance, wave = np.random.default_rng(0), np.sin(np.arange(3000) / 3.8)[:, None, None]
    air = MEAN + (wave + 0.1 * chance.normal(size=(3000, 3, 13))) / SCALE
    return np.array_split(np.where(chance.random(air.shape) < 0.02, np.nan, air), 2)


def readings(air: np.ndarray) -> list[choir.Sample]:
    change = np.diff(air[:, :, 0], axis=0) / 20  # what the next hour showed, where it did
    label, x = np.where(np.isfinite(change), change, None), np.float32(air)
    return [choir.Sample(str(i), 3600.0 * h, x[h, i], y) for (h, i), y in np.ndenumerate(label)]


async def answered(samples: list[choir.Sample], model: choir.Predictor) -> list[choir.Sample]:
    flow, kept, check = choir.Flow(), list[choir.Sample](), choir.Check((13,), missing="last")
    air = flow.source("air", choir.PythonSource(lambda: samples), check=check)
    air.scale(MEAN, SCALE).window(6).infer(model).sink(kept.append)
    await choir.Pipeline(flow, queue=len(samples)).run()
    return [sample for sample in kept if sample.y is not None]


async def main(path: str = "") -> None:
    with tempfile.TemporaryDirectory() as folder:
        bundle, (first, last) = choir.build_bundle(Path(__file__), Path(folder)), recorded(path)
        train = await answered(readings(first), choir.predictor_of(bundle))
        x, y = np.stack([s.x for s in train]), np.array([[s.y] for s in train], np.float32)
        async with choir.Trainer(Path(folder)) as trainer:
            plan = choir.FitPlan(epochs=10, batch_size=64, learning_rate=0.005, momentum=0.9)
            weights = bundle.params + (await trainer.fit(bundle.params, x, y, plan)).delta
    judged = await answered(readings(last), choir.predictor_of(bundle, weights))
    wrong = [(s.y, s.y - s.answer.values[0]) for s in judged]
    still, rmse = 20 * np.sqrt(np.mean(np.square(wrong), axis=0))
    print(f"learned from {len(x)}; RMSE {rmse:.2f} ug/m3 on {len(wrong)}, no change {still:.2f}")


asyncio.run(main(*sys.argv[1:])) if __name__ == "__main__" else None
