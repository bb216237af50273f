"""DP-SGD: each row's gradient is clipped on its own, and the noise is what was asked for."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from edgechoir.bundle.build import build_bundle  # noqa: E402
from edgechoir.bundle.load import Bundle  # noqa: E402
from edgechoir.training.fit import Model, fit  # noqa: E402
from edgechoir.training.interpret import run  # noqa: E402
from edgechoir.training.loss import loss_of  # noqa: E402
from edgechoir.training.private import poisson_rows, private_sum, system_entropy  # noqa: E402
from edgechoir.types import FitPlan  # noqa: E402

SOURCE = """
from torch import nn

META = {{"name": "small", "task": "classification", "input": {shape}, "outputs": ["a", "b", "c"]}}


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.gru(x)[0][:, -1])


def model():
    return {body}
"""
BODIES = {
    "mlp": ([12], "nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))"),
    "cnn": (
        [3, 20],
        "nn.Sequential(nn.Conv1d(3, 8, 5), nn.GroupNorm(2, 8), nn.ReLU(), "
        "nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))",
    ),
    "gru": ([10, 4], "Recurrent()"),
}


def bundle_of(name: str, folder: Path) -> Bundle:
    shape, body = BODIES[name]
    source = folder / "model.py"
    source.write_text(SOURCE.format(shape=shape, body=body))
    return build_bundle(source, folder / "bundle")


def seeded(n: int) -> npt.NDArray[np.uint64]:
    return np.random.default_rng(n).integers(0, 2**64, n, np.uint64)


@pytest.mark.parametrize("name", list(BODIES))
@pytest.mark.parametrize("clip", [0.05, 1e6])
def test_the_sum_is_that_of_gradients_clipped_one_by_one(
    name: str, clip: float, tmp_path: Path
) -> None:
    bundle = bundle_of(name, tmp_path)
    model = Model.of(bundle, bundle.params)
    x = torch.randn(40, *bundle.manifest.input_shape)
    y = torch.arange(40) % 3
    expected = torch.zeros(bundle.manifest.size)
    for i in range(40):
        leaves = {k: v.detach().clone().requires_grad_() for k, v in model.params.items()}
        output = run(model.program, leaves, x[i : i + 1], training=True)
        loss = loss_of("cross_entropy", output, y[i : i + 1])
        g = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(leaves.values()))])
        expected += g * min(1.0, clip / float(g.norm()))
    # So little noise that it is none: below half a step of the grid.
    found = private_sum(
        model.program, "cross_entropy", model.params, x, y, clip, 1e-9, system_entropy
    )
    flat = torch.cat([found[k].flatten() for k in model.params])
    assert torch.allclose(flat, expected, atol=max(40 * clip / 65536, 1e-4))


def test_without_rows_the_sum_is_noise_of_the_promised_size(tmp_path: Path) -> None:
    bundle = bundle_of("mlp", tmp_path)
    model = Model.of(bundle, bundle.params)
    x, y = torch.zeros(0, 12), torch.zeros(0, dtype=torch.int64)
    drawn = [
        torch.cat(
            [
                v.flatten()
                for v in private_sum(
                    model.program, "cross_entropy", model.params, x, y, 2.0, 0.7, system_entropy
                ).values()
            ]
        )
        for _ in range(200)
    ]
    values = torch.stack(drawn).double()
    assert float(values.std()) == pytest.approx(0.7 * 2.0, rel=0.03)
    assert abs(float(values.mean())) < 5 * 1.4 / values.numel() ** 0.5


def test_each_row_is_drawn_with_its_share() -> None:
    counts = np.zeros(1000)
    for _ in range(400):
        counts[poisson_rows(1000, 0.1, system_entropy)] += 1
    assert counts.mean() == pytest.approx(40, rel=0.03)
    assert counts.std() == pytest.approx(np.sqrt(400 * 0.1 * 0.9), rel=0.15)


def test_a_model_learns_under_noise_and_each_run_is_another(tmp_path: Path) -> None:
    bundle = bundle_of("mlp", tmp_path)
    numbers = np.random.default_rng(1)
    y = numbers.integers(0, 3, 600)
    x = (numbers.normal(0, 1, (600, 12)) + 2 * np.eye(3, 12)[y]).astype(np.float32)
    plan = FitPlan(10, 50, 0.5, 3, example_clip=1.0, example_noise=1.0)
    one, two = fit(bundle, bundle.params, x, y, plan), fit(bundle, bundle.params, x, y, plan)
    assert one.steps == 120
    assert not np.array_equal(one.delta, two.delta)
    after = fit(bundle, bundle.params + one.delta, x, y, FitPlan(1, 600, 1e-9))
    assert after.metrics["loss"] < 0.8 * one.metrics["loss"]
