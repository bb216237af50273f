"""infer.onnx of a module: torch's own exporter, then weights out and everything personal off.

`optimize=False` keeps each parameter an initialiser under its own name, which is what lets a new
vector be put under a running model. Stack traces and paths of the author's machine are removed;
the same model gives the same bytes.
"""

import logging
import warnings
from typing import Final

import numpy as np
import onnx
import onnxruntime
import torch

from edgechoir.bundle.manifest import PARAMS, Parameter
from edgechoir.bundle.onnx_file import INPUT, OUTPUT
from edgechoir.bundle.trace import MAX_BATCH
from edgechoir.errors import OperatorError
from edgechoir.types import Floats

_TOLERANCE: Final = 1e-4


def export_onnx(
    module: torch.nn.Module, example: torch.Tensor, parameters: tuple[Parameter, ...]
) -> bytes:
    """The inference graph of `module` with every weight external, at its place in params.bin."""
    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it warns of torchvision, which nothing here needs
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own deprecations, not the author's
            program = torch.onnx.export(
                module.eval(),
                (example,),
                dynamo=True,
                optimize=False,
                verbose=False,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_shapes=({0: batch},),
            )
    except torch.onnx.OnnxExporterError as error:
        raise OperatorError(f"no ONNX form of this model: {str(error)[:2000]}") from error
    finally:
        log.setLevel(level)
    if program is None:
        raise OperatorError("torch.onnx.export gave no program; expected one with dynamo=True")
    model = program.model_proto
    _strip(model)
    places = {parameter.name: parameter for parameter in parameters}
    for tensor in model.graph.initializer:
        if tensor.name in places:
            _make_external(tensor, places[tensor.name])
    return bytes(model.SerializeToString(deterministic=True))


def check_against(
    onnx_bytes: bytes,
    params: Floats,
    x: Floats,
    expected: Floats,
    tolerance: float = _TOLERANCE,
) -> None:
    """infer.onnx must answer as the module does, to within `tolerance` of the largest output.

    Raises OperatorError with the difference.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    held = params.tobytes()  # ONNX Runtime keeps a bare pointer until the session is built
    options.add_external_initializers_from_files_in_memory([PARAMS], [held], [len(held)])
    session = onnxruntime.InferenceSession(onnx_bytes, options, ["CPUExecutionProvider"])
    for rows in (len(x), 1):
        seen = session.run([OUTPUT], {INPUT: x[:rows]})[0]
        if seen.shape != expected[:rows].shape:
            raise OperatorError(f"infer.onnx gives {seen.shape}, torch {expected[:rows].shape}")
        worst = float(np.abs(seen - expected[:rows]).max())
        # Of what is small the difference in absolute terms counts, but not in 8 bits.
        least = 1.0 if tolerance == _TOLERANCE else 0.0
        if not worst <= tolerance * max(least, float(np.abs(expected).max())):
            raise OperatorError(f"infer.onnx differs from torch by {worst:g}")


def _make_external(tensor: onnx.TensorProto, place: Parameter) -> None:
    tensor.ClearField("raw_data")
    tensor.ClearField("float_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (
        ("location", PARAMS),
        ("offset", str(4 * place.offset)),
        ("length", str(4 * place.size)),
    ):
        tensor.external_data.add(key=key, value=value)


def _strip(model: onnx.ModelProto) -> None:
    """Remove stack traces, types of inner values and notes."""
    del model.metadata_props[:]
    model.doc_string = ""
    graph = model.graph
    del graph.metadata_props[:]
    del graph.value_info[:]
    graph.doc_string = ""
    for item in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        del item.metadata_props[:]
        item.doc_string = ""
