"""A bundle once more, with other parameters or another preprocessing: graph and ONNX stay."""

import hashlib
from pathlib import Path

import numpy as np

from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.manifest import FILES, GRAPH, MANIFEST, ONNX, PARAMS, Preprocessing
from edgechoir.errors import OperatorError
from edgechoir.types import Floats, Reals


def write_with(
    bundle: Bundle, params: Floats, out: Path, preprocessing: Preprocessing | None = None
) -> Bundle:
    """Write the bundle into the directory `out` with params [d], and read it back checked.

    Raises OperatorError: there is something at `out`, or it cannot be written; or BadModel.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OperatorError(
            f"{out} is there already and not empty; name a directory that is empty or new"
        )
    files = {
        GRAPH: (bundle.path / GRAPH).read_bytes(),
        ONNX: bundle.onnx,
        PARAMS: np.ascontiguousarray(params, "<f4").tobytes(),
    }
    manifest = bundle.manifest.model_copy(
        update={
            "sha256": {name: hashlib.sha256(files[name]).hexdigest() for name in FILES},
            "preprocessing": preprocessing or bundle.manifest.preprocessing,
        }
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (out / name).write_bytes(data)
        (out / MANIFEST).write_bytes(manifest.to_json())
    except OSError as error:
        raise OperatorError(f"cannot write the bundle {out}: {error.strerror}") from None
    return load_bundle(out)


def write_linear(bundle: Bundle, weights: Reals, bias: Reals, out: Path) -> Bundle:
    """y = weights [k, f] x + bias [k] of raw samples, as a bundle like `bundle`, which has to be
    one matrix [k, f] and one vector [k] by its parameters. Raises OperatorError.
    """
    k, f = weights.shape
    shapes = [parameter.shape for parameter in bundle.manifest.parameters]
    if shapes != [(k, f), (k,)] or bundle.manifest.input_shape != (f,):
        raise OperatorError(
            f"{bundle.path} has parameters of shapes {shapes}, expected {[(k, f), (k,)]}: a linear "
            "model is written into the bundle of one, such as nn.Linear"
        )
    offset = np.broadcast_to(np.array(bundle.manifest.preprocessing.offset), (f,))
    scale = np.broadcast_to(np.array(bundle.manifest.preprocessing.scale), (f,))
    if not (scale != 0).all():
        raise OperatorError(f"{bundle.path} multiplies a column by zero")
    # What the graph sees is (x - offset) * scale.
    seen = weights / scale
    params = np.concatenate([seen.ravel(), bias + weights @ offset])
    return write_with(bundle, params.astype(np.float32), out)
