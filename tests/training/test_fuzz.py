"""A spoiled training graph is refused before torch sees it, or torch can run and train it.

In a process of its own: what torch does not survive has to fail one test, not end them all.
"""

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from json import dumps, loads
from pathlib import Path
from typing import Any, Final

import pytest

from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.graph import dump_graph, parse_graph
from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.operators import OPERATORS
from edgechoir.bundle.shapes import check_shapes
from edgechoir.errors import EdgechoirError

pytest.importorskip("torch", reason="training needs the extra 'train'")
pytestmark = pytest.mark.torch

MODELS: Final = Path(__file__).parents[1] / "bundle" / "models"
NUMBERS: Final = [*range(-3, 9), 16, 64, 1000, 32768, 65535, 65536, 2**31, 2**40]
SPOILED: Final = 400
CRASHES: Final = [
    {"op": "aten.conv2d.default", "args": {"stride": [2, 65536]}},  # in the gradient
    {"op": "aten.group_norm.default", "args": {"weight": None}},  # no gradient
    {"op": "aten.relu.default", "becomes": "aten.clamp.default", "args": {}},  # of nothing
]
"""Changes to a node of the residual net that torch does not take, or does not survive."""


def spoil(document: dict[str, Any], bundle: Bundle, chance: random.Random) -> None:
    """Change one call of a graph: an argument, the operator, or its place."""
    nodes = document["nodes"]
    names = ["x", *(row["name"] for row in nodes)]
    makers: list[Callable[[], object]] = [
        lambda: chance.choice(NUMBERS),
        lambda: chance.choice([True, False, None, 0.0, 0.5, 1e9, "same", "none"]),
        lambda: {"value": chance.choice(names)},
        lambda: {"param": chance.choice(bundle.manifest.parameters).name},
        lambda: [chance.choice(NUMBERS) for _ in range(chance.randrange(1, 4))],
    ]
    row, arguments = chance.choice(nodes), OPERATORS
    match chance.randrange(4):
        case 0:
            op = chance.choice(sorted(arguments))
            known = [name for name, each in arguments[op].arguments.items() if each.required]
            row["args"] = {
                name: row["args"].get(name, chance.choice(makers)()) for name in sorted(known)
            }
            row["op"] = op
        case 1:
            again = {**deepcopy(row), "name": "again"}
            nodes.insert(chance.randrange(len(nodes)), again)
        case _:
            name = chance.choice(sorted(arguments[row["op"]].arguments))
            value = row["args"].get(name)
            if isinstance(value, list) and value and chance.random() < 0.7:
                value[chance.randrange(len(value))] = chance.choice(makers)()
            else:
                row["args"][name] = chance.choice(makers)()


def crash(document: dict[str, Any], change: dict[str, Any]) -> None:
    row = next(row for row in document["nodes"] if row["op"] == change["op"])
    row["op"] = change.get("becomes", row["op"])
    row["args"].update(change["args"])


def outcome(document: dict[str, Any], bundle: Bundle) -> str:
    """`refused`, or `ran`: forwards for two sizes of a batch, and backwards."""
    import torch

    from edgechoir.training.interpret import compile_graph, run

    try:
        graph = parse_graph(dumps(document).encode(), bundle.manifest)
        check_shapes(graph, bundle.manifest)
    except EdgechoirError:
        return "refused"
    flat = torch.from_numpy(bundle.params.copy())
    params = {
        p.name: flat[p.offset : p.offset + p.size].view(p.shape).requires_grad_()
        for p in bundle.manifest.parameters
    }
    for rows in (1, 4):
        x = torch.randn(rows, *bundle.manifest.input_shape)
        y = run(compile_graph(graph), params, x, training=True)
        assert y.shape == (rows, len(bundle.manifest.outputs))
        if y.requires_grad:
            torch.autograd.grad(y.sum(), list(params.values()), allow_unused=True)
    return "ran"


def campaign(folder: Path, seed: int) -> Counter[str]:
    """Run in the process of its own."""
    import torch

    torch.set_num_threads(1)
    chance = random.Random(seed)
    bundle = load_bundle(folder)
    found: Counter[str] = Counter()
    for number in range(SPOILED):
        document = loads(dump_graph(bundle.graph))
        spoil(document, bundle, chance)
        try:
            found[outcome(document, bundle)] += 1
        except Exception as error:
            raise AssertionError(f"graph {number} of seed {seed}: {document}") from error
    return found


@pytest.mark.parametrize("name", ["mlp", "cnn", "gru", "resnet"])
def test_a_spoiled_graph_is_refused_or_trains(name: str, tmp_path: Path) -> None:
    bundle = build_bundle(MODELS / f"{name}.py", tmp_path / "bundle")
    if name == "resnet":
        for change in CRASHES:
            document = loads(dump_graph(bundle.graph))
            crash(document, change)
            assert outcome(document, bundle) == "refused"
    done = subprocess.run(
        [sys.executable, __file__, str(tmp_path / "bundle"), "7"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    refused, ran = map(int, done.stdout.split())
    assert refused + ran == SPOILED
    assert ran > 10


if __name__ == "__main__":
    counts = campaign(Path(sys.argv[1]), int(sys.argv[2]))
    print(counts["refused"], counts["ran"])
