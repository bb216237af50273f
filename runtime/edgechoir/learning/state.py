"""The global state as it travels: the model's parameters and the vectors that go with them."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from edgechoir.types import Floats


@dataclass(frozen=True, slots=True)
class State:
    """`weights` [d] of the model, and vectors by name beside them."""

    weights: Floats
    aux: Mapping[str, Floats] = field(default_factory=dict)


def to_bytes(vector: Floats) -> bytes:
    """float32, little-endian."""
    return np.ascontiguousarray(vector, "<f4").tobytes()


def digest(params: bytes, aux: Mapping[str, bytes]) -> bytes:
    """SHA-256 of the parameters and, by name and length, of what goes with them."""
    whole = hashlib.sha256(params)
    for name in sorted(aux):
        head = name.encode()
        whole.update(len(head).to_bytes(4) + head + len(aux[name]).to_bytes(8) + aux[name])
    return whole.digest()


def digest_of(state: State) -> bytes:
    """The same, of vectors."""
    return digest(to_bytes(state.weights), {k: to_bytes(v) for k, v in state.aux.items()})
