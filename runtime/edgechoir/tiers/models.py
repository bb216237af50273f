"""The global model as it comes down the tree: checked, kept, and never taken backwards."""

import hashlib
import sqlite3
import time
from dataclasses import dataclass

import numpy as np

from edgechoir import wire
from edgechoir.errors import BadModel, OperatorError, Replayed
from edgechoir.store.versions import ModelVersions
from edgechoir.types import Floats


@dataclass(frozen=True, slots=True)
class Held:
    """The version in use here; `weights` [d] are read-only."""

    version: int
    digest: bytes
    weights: Floats


def read_model(model: wire.Model, held: Held | None) -> Held | None:
    """The weights in a model message; None for the version already held.

    Raises BadModel (hash, length, values that are not finite) or Replayed (an older version).
    """
    if hashlib.sha256(model.params).digest() != model.digest:
        raise BadModel(f"model version {model.version} does not have the hash it claims")
    if held is not None and model.version <= held.version:
        if model.version == held.version and model.digest == held.digest:
            return None
        raise Replayed(f"model version {model.version}, version {held.version} is in use")
    if len(model.params) % 4 or not model.params:
        raise BadModel(f"model of {len(model.params)} bytes is no float32 vector")
    weights = np.frombuffer(model.params, "<f4")
    if held is not None and len(weights) != len(held.weights):
        raise BadModel(f"model of {len(weights)} weights, expected {len(held.weights)}")
    if not np.isfinite(weights).all():
        raise BadModel(f"model version {model.version} has values that are not finite")
    return Held(model.version, model.digest, weights)


def keep(versions: ModelVersions, held: Held, metrics: dict[str, float]) -> None:
    """Store a version for the next start. Raises BadModel, or OperatorError (a full disk)."""
    try:
        versions.put(held.version, held.weights, metrics, time.time())
    except sqlite3.Error as error:
        raise OperatorError(
            f"model version {held.version} cannot be kept: {error}; check the disk"
        ) from error


def latest(versions: ModelVersions) -> Held | None:
    """The version to start with, if one was kept."""
    stored = versions.latest()
    return None if stored is None else Held(stored.version, stored.digest, stored.params)
