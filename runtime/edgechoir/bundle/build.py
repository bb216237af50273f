"""Build a bundle from a model file. Needs torch and onnx (the extra `train`)."""

import hashlib
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from pydantic import ValidationError

from edgechoir.bundle.graph import check_graph, dump_graph
from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.manifest import (
    GRAPH,
    MANIFEST,
    ONNX,
    PARAMS,
    TASK_LOSSES,
    TASK_METRIC,
    Manifest,
    Parameter,
    is_personal,
)
from edgechoir.bundle.recipe import Meta, run_model_file
from edgechoir.bundle.shapes import check_shapes
from edgechoir.errors import BadModel, OperatorError
from edgechoir.types import Floats

if TYPE_CHECKING:
    from torch import Tensor, nn

_NEEDED: Final = ("torch", "onnx", "onnxscript")
_ROWS: Final = 3
"""Rows of the example batch: more than one, for torch.export takes a 1 as fixed."""


def build_bundle(model_py: Path, out: Path, seed: int = 0, *, int8: bool = False) -> Bundle:
    """Run the model file and write its bundle into the directory `out`; the seed sets the weights.

    The bundle is written only once it has passed the checks that a device will make, and once
    infer.onnx has been seen to answer as the module does. With `int8` its dense layers multiply in
    8 bits; what is trained stays float32. Raises OperatorError.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise OperatorError(
            f"building a bundle needs {', '.join(missing)}: pip install 'edgechoir[train]'"
        )
    import torch

    recipe = run_model_file(model_py)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = recipe.model()
        if not isinstance(module, torch.nn.Module):
            raise OperatorError(
                f"{model_py}: model() gave a {type(module).__name__}, expected a torch.nn.Module"
            )
        example = torch.randn(_ROWS, *recipe.meta.input)
    files = _files(module, example, recipe.meta, model_py, int8=int8)
    out.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (out / name).write_bytes(data)
    return load_bundle(out)


def _files(
    module: "nn.Module", example: "Tensor", meta: Meta, source: Path, *, int8: bool
) -> dict[str, bytes]:
    import torch

    from edgechoir.bundle.export_onnx import check_against, export_onnx
    from edgechoir.bundle.int8 import TOLERANCE, quantised
    from edgechoir.bundle.trace import trace

    with warnings.catch_warnings():
        # torch.export warns of its own deprecations, which no author can act on.
        warnings.simplefilter("ignore")
        graph = trace(module.train(), example, source)
    tensors = _in_order(module, meta.personal)
    parameters = _parameters(tensors, source)
    vector = _vector(tensors)
    onnx = export_onnx(module, example, parameters)
    with torch.no_grad():
        expected = module.eval()(example).numpy()
    if expected.shape != (len(example), len(meta.outputs)):
        raise OperatorError(
            f"{source}: the model gives {expected.shape} for {len(example)} samples, expected "
            f"{(len(example), len(meta.outputs))}: one column for each of the outputs in META"
        )
    check_against(onnx, vector, example.numpy(), expected)
    if int8:
        onnx = quantised(onnx)
        check_against(onnx, vector, example.numpy(), expected, TOLERANCE)
    files = {GRAPH: dump_graph(graph), ONNX: onnx, PARAMS: vector.astype("<f4").tobytes()}
    try:
        manifest = Manifest(
            format=1,
            name=meta.name,
            task=meta.task,
            input_shape=meta.input,
            dtype="float32",
            outputs=meta.outputs,
            preprocessing=meta.preprocessing(),
            loss=meta.loss or TASK_LOSSES[meta.task][0],
            metric=TASK_METRIC[meta.task],
            parameters=parameters,
            personal=meta.personal,
            sha256={name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
            built_with=f"torch {torch.__version__}{', answers in int8' if int8 else ''}",
        )
        check_graph(graph, manifest)
        check_shapes(graph, manifest)
    except (ValidationError, BadModel) as error:
        raise OperatorError(f"{source}: {error}") from error
    return {MANIFEST: manifest.to_json(), **files}


def _in_order(module: "nn.Module", personal: tuple[str, ...]) -> "list[tuple[str, Tensor]]":
    """The module's parameters, the personal ones last."""
    return sorted(module.named_parameters(), key=lambda each: is_personal(each[0], personal))


def _parameters(tensors: "list[tuple[str, Tensor]]", source: Path) -> tuple[Parameter, ...]:
    import torch

    table, offset = [], 0
    for name, tensor in tensors:
        if tensor.dtype != torch.float32 or not tensor.requires_grad:
            raise OperatorError(
                f"{source}: parameter {name!r} is {tensor.dtype}, requires_grad="
                f"{tensor.requires_grad}; expected trainable float32"
            )
        table.append(Parameter(name=name, shape=tuple(tensor.shape), offset=offset))
        offset += tensor.numel()
    if not table:
        raise OperatorError(f"{source}: the model has no parameters to train")
    return tuple(table)


def _vector(tensors: "list[tuple[str, Tensor]]") -> Floats:
    """Every parameter, flat, in the order of the table: float32 [d]."""
    flat = [tensor.detach().numpy().ravel() for _, tensor in tensors]
    return np.concatenate(flat).astype(np.float32)
