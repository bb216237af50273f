"""A bare update of one step holds the rows it was made of; a sum hardly any, and noise none.

The quotient of a neuron's weight and bias gradients is the row that woke it, where only one did
(Phong et al. 2017, section 3).
"""

import numpy as np
import pytest

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from edgechoir.bundle.build import build_bundle  # noqa: E402
from edgechoir.bundle.load import Bundle  # noqa: E402
from edgechoir.learning.fixed_point import Encoding, Figures  # noqa: E402
from edgechoir.learning.privacy.terms import EXTRAS, Terms, open_mean, protect  # noqa: E402
from edgechoir.training.fit import fit  # noqa: E402
from edgechoir.training.private import system_entropy  # noqa: E402
from edgechoir.types import FitPlan, Floats  # noqa: E402

DEVICES = 8
ROWS = 4
"""Of each device."""
INPUTS = 40
SOURCE = f"""
from torch import nn

META = {{"name": "two", "task": "classification", "input": [{INPUTS}], "outputs": ["a", "b", "c"]}}


def model():
    return nn.Sequential(nn.Linear({INPUTS}, 32), nn.ReLU(), nn.Linear(32, 3))
"""
NUMBERS = np.random.default_rng(3)
X = NUMBERS.uniform(0, 1, (DEVICES, ROWS, INPUTS)).astype(np.float32)
Y = NUMBERS.integers(0, 3, (DEVICES, ROWS))
PLAN = FitPlan(1, ROWS, 0.1, 0)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("two")
    (folder / "model.py").write_text(SOURCE)
    return build_bundle(folder / "model.py", folder / "bundle", 1)


def updates(bundle: Bundle, plan: FitPlan, rows: int = ROWS) -> list[Floats]:
    """One step of every device."""
    return [
        fit(bundle, bundle.params, x[:rows], y[:rows], plan).delta
        for x, y in zip(X, Y, strict=True)
    ]


def summed(deltas: list[Floats]) -> Floats:
    """Their mean, as it comes out of the masks."""
    encoding = Encoding(len(deltas[0]), len(deltas), 1.0, ROWS)
    total = np.zeros(encoding.length, np.uint32)
    for delta in deltas:
        noise = NUMBERS.integers(0, 2**32, len(delta), np.uint32)
        total += encoding.encode(delta, ROWS, Figures(), noise)
    return encoding.decode(total).delta


def nearest(bundle: Bundle, delta: Floats, rows: Floats) -> Floats:
    """How far each of the rows [n, inputs] is from the best quotient; the mean of all is at 1."""
    weight, bias = bundle.manifest.parameters[:2]
    w = delta[weight.offset : weight.offset + weight.size].reshape(weight.shape)
    b = delta[bias.offset : bias.offset + bias.size]
    woken = np.abs(b) > 1e-9
    guesses = np.clip(w[woken] / b[woken, None], 0, 1)
    away = np.linalg.norm(rows[:, None] - guesses[None], axis=2).min(1)
    return np.asarray(away / np.linalg.norm(rows - X.mean((0, 1)), axis=1))


def test_a_bare_update_of_one_row_is_that_row(bundle: Bundle) -> None:
    for delta, x in zip(updates(bundle, PLAN, 1), X, strict=True):
        assert nearest(bundle, summed([delta]), x[:1]) < 0.02


def test_a_bare_update_of_a_few_rows_holds_some_of_them(bundle: Bundle) -> None:
    found = [
        nearest(bundle, summed([delta]), x) < 0.05
        for delta, x in zip(updates(bundle, PLAN), X, strict=True)
    ]
    assert np.mean(found) > 0.2


def test_a_sum_of_eight_devices_holds_next_to_none(bundle: Bundle) -> None:
    found = nearest(bundle, summed(updates(bundle, PLAN)), X.reshape(-1, INPUTS))
    assert np.mean(found < 0.05) < 0.05, "a row that alone wakes a neuron is in the sum, too"


def test_a_private_round_holds_none_even_with_one_row_on_each_device(bundle: Bundle) -> None:
    terms, d = Terms(0.1, 1.0), len(bundle.params)
    encoding = Encoding(d + EXTRAS, DEVICES, terms.clip(d + EXTRAS, DEVICES, 32), 1)
    total = np.zeros(encoding.length, np.uint32)
    for delta in updates(bundle, PLAN, 1):
        rounding = NUMBERS.integers(0, 2**32, d + EXTRAS, np.uint32)
        total += protect(delta, 0.5, terms, encoding, DEVICES, rounding, system_entropy)
    delta = open_mean(encoding.decode(total).delta, terms).delta
    assert nearest(bundle, delta, X[:, 0]).min() > 0.5


def test_dp_sgd_hides_the_only_row_in_a_bare_update(bundle: Bundle) -> None:
    noisy = FitPlan(1, ROWS, 0.1, 0, example_clip=1.0, example_noise=1.0)
    found = [
        nearest(bundle, delta, x[:1]) for delta, x in zip(updates(bundle, noisy, 1), X, strict=True)
    ]
    assert np.min(found) > 0.5
