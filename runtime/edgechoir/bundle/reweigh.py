"""A bundle with other weights: what a federation has learnt, as a model of its own."""

import hashlib
from pathlib import Path

import numpy as np

from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.manifest import GRAPH, MANIFEST, ONNX, PARAMS, Preprocessing
from edgechoir.errors import OperatorError
from edgechoir.types import Floats


def with_params(
    bundle: Bundle, params: Floats, out: Path, normalisation: tuple[Floats, Floats] | None = None
) -> Bundle:
    """Write `bundle` with params [d] into the directory `out`, which must be empty or new.

    `normalisation`, offset and scale of each column, becomes its preprocessing. Raises
    OperatorError, BadModel.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OperatorError(f"{out} is there already; name a directory that is empty or new")
    data = np.ascontiguousarray(params, "<f4").tobytes()
    files = {
        GRAPH: (bundle.path / GRAPH).read_bytes(),
        ONNX: bundle.onnx,
        PARAMS: data,
    }
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    changes: dict[str, object] = {"sha256": hashes}
    if normalisation is not None:
        offset, scale = (tuple(map(float, each)) for each in normalisation)
        changes["preprocessing"] = Preprocessing(offset=offset, scale=scale)
    manifest = bundle.manifest.model_copy(update=changes)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
        (out / MANIFEST).write_text(manifest.model_dump_json(indent=1) + "\n")
    except OSError as error:
        raise OperatorError(f"{out} cannot be written: {error.strerror}") from None
    return load_bundle(out)
