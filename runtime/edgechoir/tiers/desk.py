"""What a device has to work with in a round, and what it gives for it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from edgechoir.bundle.load import Bundle
from edgechoir.bundle.manifest import Targets
from edgechoir.learning.fixed_point import Figures
from edgechoir.tiers.models import Held
from edgechoir.types import FitPlan, Floats, Update


class Rows(Protocol):
    """Labelled samples: what is trained on, and what is held out to measure on."""

    def training_arrays(self) -> tuple[Floats, Targets]: ...
    def hold_out_arrays(self) -> tuple[Floats, Targets]: ...


class Learner(Protocol):
    """Trains and measures. Raises TrainingError."""

    async def fit(
        self,
        w: Floats,
        x: Floats,
        y: Targets,
        plan: FitPlan,
        *,
        deadline: float | None = None,
        **beside: Floats,
    ) -> Update: ...
    async def predict(self, w: Floats, x: Floats, *, deadline: float | None = None) -> Floats: ...
    async def evaluate(
        self, w: Floats, x: Floats, y: Targets, *, deadline: float | None = None
    ) -> dict[str, float]: ...


@dataclass(frozen=True, slots=True)
class Examples:
    """Example-level privacy as the owner wants it: the clip of a row's gradient, the noise, and
    who keeps the account (rows, plan, noise). Raises PolicyViolation."""

    clip: float
    noise: float
    charge: Callable[[int, FitPlan, float], Awaitable[None]]


class Keeper(Protocol):
    """Vectors by name that stay on the device, each with the round it is of. Raises
    OperatorError."""

    def put(self, name: str, vector: Floats, round_: int) -> None: ...
    def get(self, name: str) -> tuple[Floats, int] | None: ...
    def drop(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What a device has to work with. `answer` gives the model's outputs [n, k] for raw samples,
    `recent` the latest samples inferred on and their outputs, `personal` [p] are the layers that
    stay here, `shared` the samples that all members have."""

    bundle: Bundle
    held: Held
    samples: Rows
    trainer: Learner | None
    answer: Callable[[Floats], Floats] | None = None
    recent: Callable[[], tuple[Floats, Floats]] | None = None
    kept: Keeper | None = None
    examples: Examples | None = None
    personal: Floats | None = None
    shared: Floats | None = None

    @property
    def weights(self) -> Floats:
        """w [d]: the global model's weights [s], then the personal ones, where it has any."""
        shared, own = self.held.weights, self.personal
        return shared if own is None or not own.size else np.concatenate([shared, own])


@dataclass(frozen=True, slots=True)
class Own:
    """A device's own model [d]; `answers` where it takes the global one's place here."""

    vector: Floats
    answers: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """A device's part: `vector` [plan.dimension], a mean over `n` rows, and what was measured.
    `personal` [p] are layers trained on the way, and `own` a whole model; they are sent nowhere."""

    vector: Floats
    n: int
    figures: Figures = field(default_factory=Figures)
    personal: Floats | None = None
    own: Own | None = None
