"""What a device does not send of an update it sends later, once it knows what became of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import OperatorError, TrainingError
from edgechoir.learning.rules.choose import make_rule
from edgechoir.learning.rules.compressed import Compressed
from edgechoir.learning.sketch import sketch_of
from edgechoir.learning.task import TRAIN, Task
from edgechoir.tiers.desk import Desk
from edgechoir.tiers.pending import RESIDUAL, pending, settle
from edgechoir.tiers.sketching import in_form
from edgechoir.types import Floats

D = 40
PLAN = wire.Plan(
    epoch=1,
    turn=1,
    round=1,
    roster=bytes(32),
    min_survivors=2,
    bits=32,
    cohort=("dev-1", "dev-2"),
    model_version=0,
    model_hash=bytes(32),
    task=b"",
    dimension=D,
    devices=2,
    clip=0.5,
    max_samples=10,
    epochs=1,
    batch_size=8,
    learning_rate=0.1,
    seed=0,
    deadline=9.0,
)


class Memory(dict[str, tuple[Floats, int]]):
    """A device's disk; `full` as disks get."""

    full = False

    def put(self, name: str, vector: Floats, round_: int) -> None:
        if self.full:
            raise OperatorError("no space left on the disk")
        self[name] = vector, round_

    def drop(self, name: str) -> None:
        self.pop(name, None)


def desk_of(kept: Memory | None) -> Desk:
    desk = Desk.__new__(Desk)
    for name, value in (("kept", kept),):
        object.__setattr__(desk, name, value)
    return desk


def draw(seed: int) -> Floats:
    return np.random.default_rng(seed).normal(0, 0.2, D).astype(np.float32)


def formed(kept: Memory | None, rule: Compressed, delta: Floats, round_: int = 1) -> Floats:
    plan = replace(PLAN, round=round_)
    return asyncio.run(in_form(desk_of(kept), plan, rule.task(), delta))


@pytest.mark.parametrize("rotate", [True, False])
def test_over_the_rounds_everything_is_sent(rotate: bool) -> None:
    """What was sent in all, and what is left, add up to what there was to send."""
    kept = Memory()
    rule = Compressed(make_rule("fedavg", {}), rotate=rotate, sent_share=0.25)
    seen = np.zeros(D)
    whole = np.zeros(D)
    for round_ in range(1, 6):
        delta = draw(round_)
        whole += delta
        sent = formed(kept, rule, delta, round_)
        assert len(sent) == D // 4
        sketch = sketch_of(rule.task())
        assert sketch is not None
        seen += sketch.open(np.clip(sent, -PLAN.clip, PLAN.clip), D)
        settle(kept, round_, round_)
        np.testing.assert_allclose(seen + kept[RESIDUAL][0], whole, atol=1e-5)
        rule = replace(rule, seed=rule.seed + 1)


def test_a_round_that_ended_without_this_device_leaves_the_residual_as_it_was() -> None:
    kept = Memory()
    rule = Compressed(make_rule("fedavg", {}), sent_share=0.25)
    formed(kept, rule, draw(1), 1)
    settle(kept, 1, 1)
    before = kept[RESIDUAL][0].copy()
    formed(kept, rule, draw(2), 2)
    settle(kept, 3, 2)
    assert np.array_equal(kept[RESIDUAL][0], before)
    assert pending(RESIDUAL) not in kept


def test_what_was_cut_by_the_clip_is_sent_later() -> None:
    kept = Memory()
    rule = Compressed(make_rule("fedavg", {}), sent_share=0.5)
    delta = np.full(D, 2.0, np.float32)
    sent = formed(kept, rule, delta)
    assert (sent == 2.0).all()  # the encoding cuts, and counts what it cut
    settle(kept, 1, 1)
    left = kept[RESIDUAL][0]
    assert sorted(set(left)) == [1.5, 2.0]


def test_an_update_that_is_sent_whole_leaves_nothing_behind() -> None:
    kept = Memory()
    sent = formed(kept, Compressed(make_rule("fedavg", {}), rotate=True), draw(1))
    assert len(sent) == D
    assert not kept


def test_an_update_of_an_ordinary_round_is_left_alone() -> None:
    delta = draw(1)
    found = asyncio.run(in_form(desk_of(None), PLAN, Task(TRAIN), delta))
    assert found is delta


def test_a_residual_of_another_model_is_forgotten() -> None:
    kept = Memory()
    kept.put(RESIDUAL, np.ones(3, np.float32), 1)
    rule = Compressed(make_rule("fedavg", {}), sent_share=0.5)
    assert np.isin(formed(kept, rule, draw(1), 2), draw(1)).all()


def test_a_disk_that_is_full_or_missing_keeps_the_device_out_of_the_round() -> None:
    rule = Compressed(make_rule("fedavg", {}), sent_share=0.5)
    full = Memory()
    full.full = True
    for kept, word in ((full, "no space left"), (None, "nowhere to keep")):
        with pytest.raises(TrainingError, match=word):
            formed(kept, rule, draw(1))
