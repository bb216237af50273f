"""Training through the graph is training through the module it was traced from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.load import Bundle
from edgechoir.bundle.manifest import prepare
from edgechoir.bundle.personal import compose, split
from edgechoir.bundle.recipe import run_model_file
from edgechoir.errors import BadModel
from edgechoir.types import FitPlan

torch = pytest.importorskip("torch", reason="training needs the extra 'train'")
pytestmark = pytest.mark.torch

from edgechoir.bundle.graph import Graph, Node, Ref  # noqa: E402  torch is there now
from edgechoir.training.fit import fit, predict  # noqa: E402
from edgechoir.training.interpret import compile_graph, run  # noqa: E402

MODELS = Path(__file__).parents[1] / "bundle" / "models"
SEED = 3
PLAN = FitPlan(epochs=2, batch_size=8, learning_rate=0.05, seed=11)


def rows(bundle: Bundle, n: int) -> tuple[Any, Any]:
    """n made-up samples and their targets."""
    source = np.random.default_rng(5)
    x = source.normal(size=(n, *bundle.manifest.input_shape)).astype(np.float32)
    if bundle.manifest.task == "classification":
        return x, source.integers(0, len(bundle.manifest.outputs), n)
    return x, source.normal(size=(n, len(bundle.manifest.outputs))).astype(np.float32)


def train_module(module: Any, loss: Any, x: Any, y: Any) -> float:
    """The same plan by torch's own means; the mean loss of the last epoch."""
    sgd = torch.optim.SGD(module.parameters(), PLAN.learning_rate)
    order = np.random.default_rng(PLAN.seed)
    module.train()
    torch.manual_seed(PLAN.seed)
    total = 0.0
    for _ in range(PLAN.epochs):
        total = 0.0
        for batch in torch.from_numpy(order.permutation(len(x))).split(PLAN.batch_size):
            sgd.zero_grad()
            mean = loss(module(x[batch]), y[batch])
            mean.backward()
            sgd.step()
            total += mean.item() * len(batch)
    return total / len(x)


@pytest.mark.parametrize("name", ["mlp", "cnn", "gru", "lstm", "resnet", "personal"])
def test_training_through_the_graph_is_training_through_the_module(
    name: str, tmp_path: Path
) -> None:
    bundle = build_bundle(MODELS / f"{name}.py", tmp_path, seed=SEED)
    torch.manual_seed(SEED)
    module: Any = run_model_file(MODELS / f"{name}.py").model()
    x, y = rows(bundle, 30)
    prepared = torch.from_numpy(prepare(bundle.manifest, x))
    with torch.no_grad():
        expected = module.eval()(prepared).numpy()
    np.testing.assert_allclose(predict(bundle, bundle.params, x), expected, atol=1e-5)

    update = fit(bundle, bundle.params, x, y, PLAN)
    loss = {"cross_entropy": torch.nn.CrossEntropyLoss(), "huber": torch.nn.HuberLoss()}
    seen = train_module(module, loss[bundle.manifest.loss], prepared, torch.from_numpy(y))
    assert update.metrics["fit_loss"] == pytest.approx(seen, rel=1e-5)
    tensors = dict(module.named_parameters())
    trained = torch.cat([tensors[p.name].detach().flatten() for p in bundle.manifest.parameters])
    shared, personal = split(bundle.manifest, bundle.params)
    own = personal if update.personal is None else update.personal
    through_graph = compose(bundle.manifest, shared + update.delta, own)
    np.testing.assert_allclose(through_graph, trained.numpy(), atol=1e-5)
    assert np.abs(update.delta).max() > 1e-3  # it did train


def test_dropout_acts_in_training_alone() -> None:
    graph = Graph(
        (Node("y", "aten.dropout.default", {"input": Ref("x"), "p": 0.5, "train": True}),), "y"
    )
    program = compile_graph(graph)
    x = torch.ones(4, 100)
    assert torch.equal(run(program, {}, x, training=False), x)
    assert not torch.equal(run(program, {}, x, training=True), x)


def test_only_listed_operators_can_be_reached() -> None:
    for op in ("aten.from_file.default", "aten.relu_.default", "prims.add.default", "getattr"):
        with pytest.raises(BadModel, match="not allowed"):
            compile_graph(Graph((Node("y", op, {}),), "y"))


def test_a_rule_may_name_the_shared_part_alone(tmp_path: Path) -> None:
    bundle = build_bundle(MODELS / "personal.py", tmp_path / "bundle")
    rng = np.random.default_rng(1)
    x = rng.normal(size=(24, 6)).astype(np.float32)
    y = rng.integers(0, 3, 24)
    plan = FitPlan(2, 8, 0.1, 5, proximal=0.5)
    shared, _ = split(bundle.manifest, bundle.params)
    plain = fit(bundle, bundle.params, x, y, plan)
    named = fit(bundle, bundle.params, x, y, plan, anchor=shared, shift=np.zeros_like(shared))
    assert plain.personal is not None
    assert named.personal is not None
    assert np.array_equal(plain.delta, named.delta)
    assert np.array_equal(plain.personal, named.personal)
    # A shift of the shared part leaves what the first step does to the personal one alone.
    one = FitPlan(1, 24, 0.1, 5)
    still = fit(bundle, bundle.params, x, y, one)
    moved = fit(bundle, bundle.params, x, y, one, shift=np.ones_like(shared))
    assert still.personal is not None
    assert moved.personal is not None
    assert np.array_equal(still.personal, moved.personal)
    np.testing.assert_allclose(moved.delta, still.delta - 0.1, atol=1e-6)
