"""The teacher is the mean of what the models say, and nothing else is seen of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgechoir.learning.rules.distil import Distil, centred, shared_hash
from edgechoir.learning.rules.ditto import ditto
from edgechoir.learning.task import Task

if TYPE_CHECKING:
    from tests.learning.conftest import Summed

M, K = 12, 4
COUNTS = [30, 50, 120]


def test_a_round_of_masked_sums_gives_the_mean_of_the_answers(summed: Summed) -> None:
    said = np.random.default_rng(1).normal(0, 2, (3, M * K)).astype(np.float32)
    rule = Distil(size=M * K)
    state = rule.following(rule.first(), summed(said, COUNTS, clip=20.0))[1]
    plain = np.array(COUNTS) @ said.astype(np.float64) / sum(COUNTS)
    assert np.abs(state.weights - plain).max() < 1e-5
    again = rule.following(state, summed(-said, COUNTS, clip=20.0, seed=2))[1]
    assert np.abs(again.weights + plain).max() < 1e-5, "nothing is left of the round before"


def test_it_begins_with_a_teacher_that_says_nothing() -> None:
    rule = Distil(size=M * K, shared="ab")
    assert not rule.first().weights.any()
    assert rule.coordinates(7) == M * K
    assert rule.task() == Task("distil", {"shared": "ab", "distil": 1.0, "temperature": 2.0})


def test_centred_logits_have_the_same_softmax() -> None:
    logits = np.random.default_rng(2).normal(30, 2, (M, K)).astype(np.float32)
    out = centred(logits)
    assert np.abs(out).max() < 10
    assert np.allclose(out.sum(1), 0, atol=1e-4)
    assert np.allclose(out - out[:, :1], logits - logits[:, :1], atol=1e-4)


def test_the_hash_of_a_shared_set_is_of_its_shape_and_its_numbers() -> None:
    x = np.arange(6, dtype=np.float32)
    hashes = {shared_hash(x.reshape(2, 3)), shared_hash(x.reshape(3, 2)), shared_hash(x[None] + 1)}
    assert len(hashes) == 3
    assert shared_hash(x.reshape(2, 3).copy()) in hashes


def test_ditto_asks_the_devices_for_a_model_of_their_own() -> None:
    assert ditto(pull=0.25).task() == Task("train", {"ditto": 0.25})
