"""One ONNX Runtime session: a model file without weights joined to one flat parameter vector.

The model names its weights as external data in `params.bin`. That file never exists on disk: the
vector is handed over from memory. ONNX Runtime copies what it needs while it builds the session,
so the vector has to stay alive during the build and no longer; a session never looks back at it.

Reads of real files are shut off: external data is looked for in a folder that cannot exist, so a
model that names any other file fails to load instead of reading what lies beside the process.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as native

from edgechoir.errors import BadModel, InferenceError, OperatorError
from edgechoir.types import Floats

log = logging.getLogger(__name__)

PARAMS_FILE: Final = "params.bin"
CPU: Final = "CPUExecutionProvider"
PREFERENCE: Final = (
    "TensorrtExecutionProvider",
    "CUDAExecutionProvider",
    "XnnpackExecutionProvider",
    CPU,
)

# ONNX Runtime's own errors have no common base below Exception.
RUNTIME_ERRORS: Final[tuple[type[Exception], ...]] = (
    native.EPFail,
    native.EngineError,
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.NoSuchFile,
    native.NotFound,
    native.NotImplemented,
    native.RuntimeException,
    RuntimeError,
    ValueError,
)

LEAN_ABOVE: Final = 1 << 20
"""Bytes of weights from which on a session gives up speed for memory.

ONNX Runtime keeps a second, packed copy of the weights and an arena that never shrinks. For a
million weights they take 3.4 of 7.9 MB and save a tenth of the time of one sample; a device holds
up to three sessions (live, previous, candidate). For a small model they cost nothing. A model in 8
bits keeps them: there they are a quarter as large, and save two thirds of the time.
"""
_IN_INTEGERS: Final = b"MatMulInteger"
"""What a graph of bundle/int8.py has, and no other."""

_SILENT: Final = 4
_NO_FOLDER: Final = "/nonexistent/edgechoir"


@dataclass(frozen=True, slots=True)
class Session:
    """A model ready to run. `shape` is one sample's shape, without the batch.

    `provider` is the execution provider that most of the graph was given to, which need not be
    the first one that was asked for.
    """

    shape: tuple[int, ...]
    provider: str
    _run: Callable[[Floats], Floats]

    def run(self, batch: Floats) -> Floats:
        """First output [n, ...] for a float32 batch [n, *shape].

        Raises InferenceError: ONNX Runtime refused or failed.
        """
        try:
            return self._run(batch)
        except RUNTIME_ERRORS as error:
            raise InferenceError(f"the model failed on a batch {batch.shape}: {error}") from error


def providers_in_order(available: Iterable[str], wanted: Sequence[str] | None = None) -> list[str]:
    """The providers to try, best first; the CPU always comes last.

    `wanted` narrows the choice. Raises OperatorError: a wanted provider is unknown or absent.
    """
    present = set(available)
    for name in wanted or ():
        if name not in PREFERENCE or name not in present:
            usable = [known for known in PREFERENCE if known in present]
            raise OperatorError(f"execution provider {name!r} is not usable here: use {usable}")
    chosen = present if wanted is None else {*wanted, CPU}
    return [name for name in PREFERENCE if name in chosen and name in present]


def open_session(
    onnx: bytes,
    params: Floats,
    shape: tuple[int, ...],
    providers: Sequence[str] | None = None,
) -> Session:
    """Build a session for samples of `shape` with weights `params` [d].

    Each accelerator that fails to take the model is left out, with a log line; the CPU is last.
    Raises BadModel: not a model, wrong input, or weights that do not fit.
    """
    if PARAMS_FILE.encode() not in onnx:
        raise BadModel(f"the model takes no weights from {PARAMS_FILE!r}")
    names = providers_in_order(ort.get_available_providers(), providers)
    for first in range(len(names)):
        try:
            native_session = _build(onnx, params, names[first:])
        except RUNTIME_ERRORS as error:
            if names[first] == CPU:
                raise BadModel(f"ONNX Runtime refuses the model: {error}") from error
            log.warning("%s cannot take the model, trying the next: %s", names[first], error)
        else:
            return _checked(native_session, shape)
    raise OperatorError("this build of ONNX Runtime has no CPU execution provider")


def _build(onnx: bytes, params: Floats, names: list[str]) -> Any:
    options = ort.SessionOptions()
    # One thread, and none that spins: inference shares a small CPU with training and sensors.
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NO_FOLDER
    )
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.log_severity_level = _SILENT  # failures are raised; a second copy on stderr is noise
    flat = np.ascontiguousarray(params, dtype="<f4")
    if flat.nbytes >= LEAN_ABOVE:
        options.enable_cpu_mem_arena = False
        if _IN_INTEGERS not in onnx:
            options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_external_initializers_from_files_in_memory(
        [PARAMS_FILE], [flat.view(np.uint8)], [flat.nbytes]
    )
    # No fall-back inside ONNX Runtime: it rebuilds from `options`, which point at `flat`, and
    # `flat` is gone by then. Falling back is the loop above.
    return ort.InferenceSession(onnx, options, providers=names, enable_fallback=0)


def _checked(native_session: Any, shape: tuple[int, ...]) -> Session:
    inputs = native_session.get_inputs()
    if len(inputs) != 1:
        raise BadModel(f"the model has {len(inputs)} inputs, expected one")
    taken = inputs[0]
    if taken.type != "tensor(float)":
        raise BadModel(f"the model's input is {taken.type}, expected tensor(float)")
    if len(taken.shape) != len(shape) + 1 or isinstance(taken.shape[0], int):
        raise BadModel(f"the model's input is {taken.shape}, expected [batch, {list(shape)}]")
    for fixed, size in zip(taken.shape[1:], shape, strict=True):
        if isinstance(fixed, int) and fixed != size:
            raise BadModel(f"the model's input is {taken.shape}, expected [batch, {list(shape)}]")
    input_name: str = taken.name
    outputs: list[str] = [native_session.get_outputs()[0].name]
    call = native_session.run

    def run(batch: Floats) -> Floats:
        answer: Floats = call(outputs, {input_name: batch})[0]
        return answer

    return Session(shape, _provider_in_use(native_session), run)


def _provider_in_use(native_session: Any) -> str:
    """Where most nodes run; older releases can only say what was registered first."""
    registered: str = native_session.get_providers()[0]
    if not hasattr(native_session, "get_provider_graph_assignment_info"):
        return registered
    nodes: dict[str, int] = {}
    for part in native_session.get_provider_graph_assignment_info():
        nodes[part.ep_name] = nodes.get(part.ep_name, 0) + len(part.get_nodes())
    return max(nodes, key=lambda name: nodes[name], default=registered)
