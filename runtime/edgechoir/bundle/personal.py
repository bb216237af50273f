"""The layers that stay on a device (FedPer): joined to the shared ones, and told apart again.

A model's vector [d] is its shared part [s], which travels, followed by its personal part [d - s],
which does not. A device answers and trains with both.
"""

import hashlib
import json

import numpy as np

from edgechoir.bundle.manifest import Manifest
from edgechoir.errors import BadModel
from edgechoir.types import Floats


def split(manifest: Manifest, w: Floats) -> tuple[Floats, Floats]:
    """The shared [s] and the personal part [d - s] of w [d], as views."""
    return w[: manifest.shared], w[manifest.shared :]


def compose(manifest: Manifest, shared: Floats, personal: Floats) -> Floats:
    """The vector [d] of these parts; `shared` itself where nothing is personal.

    Raises BadModel: a part of another length.
    """
    expected = (manifest.shared, manifest.size - manifest.shared)
    if (shared.size, personal.size) != expected:
        raise BadModel(
            f"{manifest.name}: {shared.size} shared and {personal.size} personal weights, "
            f"expected {expected[0]} and {expected[1]}"
        )
    return np.concatenate([shared, personal]) if personal.size else shared


def layout(manifest: Manifest) -> bytes:
    """Names the model and its personal tensors: layers kept under one layout fit no other."""
    table, at = [], 0
    for parameter in manifest.parameters:
        if at >= manifest.shared:
            table.append([parameter.name, list(parameter.shape)])
        at += parameter.size
    return hashlib.sha256(json.dumps([manifest.name, table]).encode()).digest()
