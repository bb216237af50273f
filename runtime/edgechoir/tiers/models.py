"""The global model as it comes down the tree: checked, kept, and never taken backwards."""

import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edgechoir import wire
from edgechoir.errors import BadModel, OperatorError, Replayed
from edgechoir.learning.rules.choose import MEMORY
from edgechoir.learning.state import State, digest, digest_of
from edgechoir.store.versions import ModelVersions, StoredModel
from edgechoir.types import Floats

ROUNDS_DONE: Final = "rounds_done"
"""What is kept beside a rule's memory: the training rounds that led to the version."""


@dataclass(frozen=True, slots=True)
class Held:
    """The version in use here; `weights` [d] and what goes with them in `aux` are read-only.
    `round` is the one that made it, as far as it is known."""

    version: int
    digest: bytes
    weights: Floats
    aux: Mapping[str, Floats] = field(default_factory=dict)
    round: int = 0


def read_model(model: wire.Model, held: Held | None) -> Held | None:
    """The weights in a model message; None for the version already held.

    Raises BadModel (hash, length, values that are not finite) or Replayed (an older version).
    """
    aux = dict(model.aux)
    if digest(model.params, aux) != model.digest or len(aux) != len(model.aux):
        raise BadModel(f"model version {model.version} does not have the hash it claims")
    if held is not None and model.version <= held.version:
        if model.version == held.version and model.digest == held.digest:
            return None
        raise Replayed(f"model version {model.version}, version {held.version} is in use")
    weights = _vector(model, "params", model.params)
    if held is not None and len(weights) != len(held.weights):
        raise BadModel(f"model of {len(weights)} weights, expected {len(held.weights)}")
    vectors = {name: _vector(model, name, data) for name, data in aux.items()}
    return Held(model.version, model.digest, weights, vectors, model.round)


def _vector(model: wire.Model, name: str, data: bytes) -> Floats:
    if len(data) % 4 or not data:
        raise BadModel(f"{name} of model version {model.version}: {len(data)} bytes of float32")
    vector = np.frombuffer(data, "<f4")
    if not np.isfinite(vector).all():
        raise BadModel(f"{name} of model version {model.version} has values that are not finite")
    return vector


def keep(
    versions: ModelVersions,
    held: Held,
    metrics: dict[str, float],
    memory: Mapping[str, Floats] | None = None,
) -> None:
    """Store a version, at the root with its rule's memory, for the next start.

    Raises BadModel, or OperatorError (a full disk).
    """
    remembered = {MEMORY + name: vector for name, vector in (memory or {}).items()}
    try:
        extra = {**held.aux, **remembered}
        versions.put(held.version, held.weights, metrics, time.time(), extra)
    except sqlite3.Error as error:
        raise OperatorError(
            f"model version {held.version} cannot be kept: {error}; check the disk"
        ) from error


def latest(versions: ModelVersions) -> Held | None:
    """The version to start with, if one was kept."""
    stored = versions.latest()
    if stored is None:
        return None
    aux = aux_of(stored)
    return Held(stored.version, digest_of(State(stored.params, aux)), stored.params, aux)


def aux_of(stored: StoredModel) -> dict[str, Floats]:
    """The vectors that travel with a version kept."""
    return {name: v for name, v in stored.extra.items() if not name.startswith(MEMORY)}


def memory_of(versions: ModelVersions) -> dict[str, Floats]:
    """What the rule of the latest version remembered."""
    stored = versions.latest()
    found = {} if stored is None else stored.extra
    return {name.removeprefix(MEMORY): v for name, v in found.items() if name.startswith(MEMORY)}
