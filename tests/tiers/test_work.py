"""What a device does for a round where it cannot do what was asked, or its owner says no."""

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.manifest import Targets
from edgechoir.errors import PolicyViolation, TrainingError
from edgechoir.learning.privacy.terms import BOUND, EXTRAS, NOISE
from edgechoir.learning.task import MEASURE, Task
from edgechoir.rounds.epoch import encoding_of
from edgechoir.tiers.contribution import contribution
from edgechoir.tiers.desk import Desk
from edgechoir.tiers.examples import check_covered
from edgechoir.tiers.models import Held
from edgechoir.tiers.work import do, do_privately
from edgechoir.types import FitPlan, Floats, Update

MODEL = Path(__file__).parents[2] / "models" / "heart" / "model.py"


class Samples:
    """Forty rows, none held out."""

    def training_arrays(self) -> tuple[Floats, Targets]:
        return np.zeros((40, 13), np.float32), np.zeros(40, np.int64)

    def hold_out_arrays(self) -> tuple[Floats, Targets]:
        return np.zeros((0, 13), np.float32), np.zeros(0, np.int64)


class Exploding:
    """Training that makes the loss of just these rows explode."""

    async def fit(
        self,
        w: Floats,
        x: Floats,
        y: Targets,
        plan: FitPlan,
        *,
        deadline: float | None = None,
        **beside: Floats,
    ) -> Update:
        return Update(w, len(x), 1, {"loss": 0.5, "fit_loss": 5000.0})

    async def predict(self, w: Floats, x: Floats, *, deadline: float | None = None) -> Floats:
        return np.zeros((len(x), 2), np.float32)

    async def evaluate(
        self, w: Floats, x: Floats, y: Targets, *, deadline: float | None = None
    ) -> dict[str, float]:
        return {"loss": 0.5}


def plan_for(d: int, **options: float) -> wire.Plan:
    return wire.Plan(
        epoch=1,
        turn=1,
        round=1,
        roster=bytes(32),
        cohort=("dev-1", "dev-2"),
        min_survivors=2,
        model_version=0,
        model_hash=bytes(32),
        task=Task("train", options).encode(),
        dimension=d,
        devices=2,
        clip=100.0,
        max_samples=1,
        bits=32,
        epochs=1,
        batch_size=8,
        learning_rate=0.1,
        seed=0,
        deadline=1e9,
    )


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    pytest.importorskip("torch")
    bundle = build_bundle(MODEL, tmp_path_factory.mktemp("heart") / "bundle")
    held = Held(0, bytes(32), bundle.params)
    return Desk(bundle, held, Samples(), Exploding())


@pytest.mark.torch
def test_that_training_fails_here_is_told_with_its_figures_where_there_is_no_noise(
    desk: Desk,
) -> None:
    with pytest.raises(TrainingError, match=r"from 0\.5 to 5000"):
        asyncio.run(do(desk, plan_for(len(desk.held.weights))))


@pytest.mark.torch
def test_in_a_private_round_nobody_is_told_that_training_fails_here(desk: Desk) -> None:
    d = len(desk.held.weights)
    piece = asyncio.run(do_privately(desk, plan_for(d + EXTRAS, **{BOUND: 1.0, NOISE: 1.0})))
    assert (piece.n, piece.figures.held_out) == (1, 0)
    assert piece.vector.shape == (d,)
    assert not piece.vector.any()


class Hopeless(Exploding):
    """The global model itself has no finite loss on the rows held out."""

    async def evaluate(
        self, w: Floats, x: Floats, y: Targets, *, deadline: float | None = None
    ) -> dict[str, float]:
        return {"loss": np.inf, "accuracy": 0.25}


class HeldOut(Samples):
    """Eight of the rows are."""

    def hold_out_arrays(self) -> tuple[Floats, Targets]:
        return np.zeros((8, 13), np.float32), np.zeros(8, np.int64)


@pytest.mark.torch
@pytest.mark.parametrize("private", [False, True])
def test_how_bad_a_hopeless_model_is_travels_in_either_kind_of_round(
    desk: Desk, private: bool
) -> None:
    desk = replace(desk, trainer=Hopeless(), samples=HeldOut())
    d, options = len(desk.held.weights), {BOUND: 1.0, NOISE: 1.0}
    plan = plan_for(d + EXTRAS, **options) if private else plan_for(d)
    piece = asyncio.run(do_privately(desk, plan))
    assert piece.figures.correct == 2
    assert contribution(plan, piece, 1, os.urandom).shape == (encoding_of(plan).length,)


@pytest.mark.torch
def test_a_device_that_cannot_train_at_all_says_so(desk: Desk) -> None:
    plan = plan_for(len(desk.held.weights) + EXTRAS, **{BOUND: 1.0, NOISE: 1.0})
    with pytest.raises(TrainingError, match="does not train"):
        asyncio.run(do_privately(replace(desk, trainer=None), plan))


@pytest.mark.parametrize("kind", [MEASURE, "moments", "gradients", "histogram", "unheard of"])
def test_where_every_row_has_noise_nothing_else_is_told_of_rows(kind: str) -> None:
    check_covered(Task("train"))
    check_covered(Task("scaffold"))
    with pytest.raises(PolicyViolation, match="tells of rows without noise"):
        check_covered(Task(kind))
