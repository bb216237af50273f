"""A sketch of the mean is the mean of the sketches, and what is not sent is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Encoding, Figures
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.compressed import GAIN, Compressed, make_compressed
from edgechoir.learning.sketch import BLOCK, Sketch, hadamard, sketch_of
from edgechoir.learning.state import State
from edgechoir.types import Floats

SKETCHES = st.builds(
    Sketch, st.integers(0, 2**33), st.booleans(), st.sampled_from([0.01, 0.1, 0.5, 1.0])
)


KNOWN_CHOSEN = [4.0, 8.0, 11.0, 15.0]
KNOWN_TURNED = [-3.0, -10.0, 5.5, -3.5]


def draw(d: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0, 1, d).astype(np.float32)


@pytest.mark.parametrize("size", [1, 2, 8, 64])
def test_the_transform_is_that_of_the_matrix(size: int) -> None:
    x, matrix = draw(size).astype(np.float64), np.ones((1, 1))
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    np.testing.assert_allclose(hadamard(x), matrix @ x / np.sqrt(size), atol=1e-12)


@pytest.mark.parametrize("d", [1, 3, 100, BLOCK, BLOCK + 1, 2 * BLOCK + 777])
def test_the_transform_keeps_lengths_and_undoes_itself(d: int) -> None:
    x = draw(d).astype(np.float64)
    assert np.linalg.norm(hadamard(x)) == pytest.approx(np.linalg.norm(x))
    np.testing.assert_allclose(hadamard(hadamard(x)), x, atol=1e-9)


@given(sketch=SKETCHES, d=st.integers(1, 300))
def test_it_is_linear_and_as_long_as_it_says(sketch: Sketch, d: int) -> None:
    one, other = draw(d, 1), draw(d, 2)
    assert len(sketch.send(one)) == sketch.length(d)
    both = sketch.send(one) + sketch.send(other)
    np.testing.assert_allclose(sketch.send(one + other), both, atol=1e-4)


@given(sketch=SKETCHES, d=st.integers(1, 300))
def test_what_is_opened_is_the_part_that_was_sent(sketch: Sketch, d: int) -> None:
    """A projection: sent again, it is the same, and what is left has nothing to send."""
    x = draw(d)
    seen = sketch.open(sketch.send(x), d)
    np.testing.assert_allclose(sketch.send(seen), sketch.send(x), atol=1e-4)
    np.testing.assert_allclose(sketch.send(x - seen), 0, atol=1e-4)
    if sketch.share == 1:
        np.testing.assert_allclose(seen, x, atol=1e-4)


def test_another_seed_sends_other_coordinates() -> None:
    x = np.arange(1, 101, dtype=np.float32)
    first, second = (set(Sketch(seed, share=0.2).send(x)) for seed in (1, 2))
    assert len(first) == 20
    assert first <= set(x)
    assert first != second


def test_rotated_no_coordinate_is_much_larger_than_the_others() -> None:
    x = np.zeros(3 * BLOCK, np.float32)
    x[::1000] = 5.0
    turned = Sketch(1, rotate=True).send(x)
    typical = np.linalg.norm(x) / np.sqrt(len(x))
    assert np.abs(turned).max() < 6 * typical < 0.4 * x.max()


def test_the_draws_are_the_same_everywhere() -> None:
    """Another version of numpy, or another program, must send the same coordinates."""
    x = np.arange(16, dtype=np.float32)
    assert Sketch(7, share=0.25).send(x).tolist() == KNOWN_CHOSEN
    np.testing.assert_allclose(Sketch(7, rotate=True).send(x)[:4], KNOWN_TURNED, atol=1e-4)


def test_a_sketch_of_another_length_is_refused() -> None:
    with pytest.raises(BadUpdate, match="3 coordinates of a sketch, expected 5"):
        Sketch(0, share=0.5).open(np.zeros(3, np.float32), 10)
    for share in (0.0, 1.5, -1.0, float("nan")):
        with pytest.raises(BadUpdate, match="a share of"):
            Sketch(0, share=share)


# ---- the rule


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("rotate", [True, False])
def test_the_rule_follows_the_mean_of_what_was_sent(bits: int, rotate: bool) -> None:
    d, devices = 200, 4
    rule = make_compressed(make_rule("fedavg", {}), {"rotate": rotate, "sent_share": 0.5})
    sketch = sketch_of(rule.task())
    assert sketch is not None
    k = rule.coordinates(d)
    assert k == 100
    code = Encoding(k, devices, 5.0, 10, bits)
    numbers = np.random.default_rng(1)
    deltas = [draw(d, seed) for seed in range(devices)]
    total = np.zeros(code.length, code.dtype)
    for delta in deltas:
        noise = numbers.integers(0, 2**32, k, np.uint32)
        total += code.encode(sketch.send(delta), 10, Figures(), noise)
    _, state = rule.following(State(np.zeros(d, np.float32)), code.decode(total))
    mean = np.mean(deltas, axis=0)
    true = sketch.open(sketch.send(mean), d)
    step = 1 / code.scale
    error = np.linalg.norm(state.weights - true) / np.sqrt(k)
    assert error < step + 1e-6  # each device's rounding is off by less than a step


def test_each_round_has_its_own_seed() -> None:
    rule = Compressed(make_rule("fedavg", {}), seed=5, sent_share=0.5)
    code = Encoding(2, 2, 1.0, 10)
    one = code.encode(np.ones(2, np.float32), 10, Figures(), np.zeros(2, np.uint32))
    after, _ = rule.following(State(np.zeros(4, np.float32)), code.decode(one))
    assert after.seed == 6
    assert after.task() != rule.task()


@pytest.mark.parametrize(
    ("cut", "factor"), [(0.01, 1.0), (0.0, 0.001**GAIN), (1.0, 1.0), (0.001, 0.1**GAIN)]
)
def test_the_clip_follows_the_share_that_is_cut(cut: float, factor: float) -> None:
    """It never exceeds what was configured, which the members' policy bounds."""
    rule = Compressed(make_rule("fedavg", {}), clipped_share=0.01)
    code = Encoding(1000, 2, 1.0, 10)
    delta = np.where(np.arange(1000) < 1000 * cut, 2.0, 0.5).astype(np.float32)
    one = code.encode(delta, 10, Figures(), np.zeros(1000, np.uint32))
    after, _ = rule.following(State(np.zeros(1000, np.float32)), code.decode(one))
    assert after.factor == pytest.approx(factor)
    clip, most = after.weighing(0.5, 10, 1000, 2, 32)
    assert clip == pytest.approx(0.5 * factor)
    assert most == 10
    assert rule.recall(after.remember()).factor == pytest.approx(factor)


@pytest.mark.parametrize("name", ["scaffold", "fednova"])
def test_a_rule_whose_devices_send_more_is_refused(name: str) -> None:
    with pytest.raises(BadUpdate, match="updates are compressed"):
        make_compressed(make_rule(name, {}), {})
