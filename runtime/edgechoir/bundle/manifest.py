"""manifest.json: what a bundle holds, and the caps that a bundle must keep to."""

import hashlib
import math
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Annotated, Final, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from edgechoir.errors import BadModel, first_wrong
from edgechoir.types import NAME, Floats

MANIFEST: Final = "manifest.json"
GRAPH: Final = "graph.json"
ONNX: Final = "infer.onnx"
PARAMS: Final = "params.bin"
FILES: Final = (GRAPH, ONNX, PARAMS)

MAX_PARAMS: Final = 64_000_000
MAX_TENSORS: Final = 4096
MAX_INPUT: Final = 4_000_000
"""Elements of one sample."""
MAX_BYTES: Final[Mapping[str, int]] = {
    MANIFEST: 2 << 20,
    GRAPH: 1 << 20,
    ONNX: 64 << 20,
    PARAMS: 4 * MAX_PARAMS,
}

Targets = npt.NDArray[np.int64] | Floats
"""What a model should have answered: class numbers [n], or quantities [n, outputs]."""

Task = Literal["classification", "regression"]
LossName = Literal["cross_entropy", "mse", "huber"]
MetricName = Literal["accuracy", "rmse"]

TASK_LOSSES: Final[Mapping[Task, tuple[LossName, ...]]] = {
    "classification": ("cross_entropy",),
    "regression": ("mse", "huber"),
}
"""The losses a task may be trained with; the first is what a model file gets if it names none."""
TASK_METRIC: Final[Mapping[Task, MetricName]] = {"classification": "accuracy", "regression": "rmse"}

Label = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Dim = Annotated[int, Field(ge=1, le=MAX_PARAMS)]
Pattern = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.*?]{1,200}$")]
"""A parameter's name, where * stands for any characters and ? for one."""
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Frozen(BaseModel):
    """Strict, immutable, finite, and without keys nobody asked for."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Parameter(Frozen):
    """One tensor of the model; `offset` counts elements into the flat vector."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.]{1,200}$")]
    shape: Annotated[tuple[Dim, ...], Field(max_length=8)]
    offset: Annotated[int, Field(ge=0, le=MAX_PARAMS)]

    @property
    def size(self) -> int:
        """Number of elements; 1 for a scalar."""
        return math.prod(self.shape)


class Preprocessing(Frozen):
    """x -> (x - offset) * scale along `axis` of a sample; a single number serves every feature."""

    offset: Annotated[tuple[float, ...], Field(min_length=1, max_length=65536)] = (0.0,)
    scale: Annotated[tuple[float, ...], Field(min_length=1, max_length=65536)] = (1.0,)
    axis: Annotated[int, Field(ge=-8, le=7)] = -1


class Trees(Frozen):
    """A forest: its parameters are features, thresholds and leaves of complete trees."""

    count: Annotated[int, Field(ge=1, le=10_000)]
    depth: Annotated[int, Field(ge=1, le=10)]


TREES_GRAPH: Final = b'{"format": 1, "trees": true}\n'
"""graph.json of a forest, which no gradient step trains."""


class Manifest(Frozen):
    """What the model is. `outputs` names its output columns: class labels, or quantities.

    `personal` are the patterns of the parameters that stay on each device (FedPer; Arivazhagan et
    al. 2019, section 3). They stand behind all shared ones, so the first `shared` elements of a
    vector are what the federation learns together, and the rest is the device's own.
    """

    format: Literal[1]
    name: Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
    task: Task
    input_shape: Annotated[tuple[Dim, ...], Field(min_length=1, max_length=4)]
    dtype: Literal["float32"]
    outputs: Annotated[tuple[Label, ...], Field(min_length=1, max_length=4096)]
    preprocessing: Preprocessing
    loss: LossName
    metric: MetricName
    parameters: Annotated[tuple[Parameter, ...], Field(min_length=1, max_length=MAX_TENSORS)]
    personal: Annotated[tuple[Pattern, ...], Field(max_length=64)] = ()
    sha256: Mapping[str, Sha256]
    built_with: Annotated[str, StringConstraints(max_length=100)]
    trees: Trees | None = None

    @property
    def size(self) -> int:
        """d: the number of elements in the flat vector."""
        return sum(parameter.size for parameter in self.parameters)

    @property
    def shared(self) -> int:
        """s: the number of elements that travel; the d - s behind them are personal."""
        return sum(p.size for p in self.parameters if not is_personal(p.name, self.personal))

    def to_json(self) -> bytes:
        """As manifest.json has it; `personal` and `trees` only where there are some."""
        unused = {name for name in ("personal", "trees") if not getattr(self, name)}
        return self.model_dump_json(indent=1, exclude=unused).encode() + b"\n"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        end = 0
        for parameter in self.parameters:
            if parameter.offset != end:
                raise ValueError(
                    f"parameter {parameter.name!r} starts at {parameter.offset}, expected {end}: "
                    "parameters follow one another without gap or overlap"
                )
            end += parameter.size
        if end > MAX_PARAMS:
            raise ValueError(f"{end} parameters, at most {MAX_PARAMS} are allowed")
        if len({parameter.name for parameter in self.parameters}) != len(self.parameters):
            raise ValueError("two parameters have the same name")
        if math.prod(self.input_shape) > MAX_INPUT:
            raise ValueError(f"a sample of shape {self.input_shape} has over {MAX_INPUT} elements")
        if len(set(self.outputs)) != len(self.outputs):
            raise ValueError("two outputs have the same name")
        if self.task == "classification" and len(self.outputs) < 2:
            raise ValueError("a classification needs at least two outputs")
        if self.loss not in TASK_LOSSES[self.task] or self.metric != TASK_METRIC[self.task]:
            raise ValueError(f"{self.task} does not go with {self.loss} and {self.metric}")
        if set(self.sha256) != set(FILES):
            raise ValueError(f"sha256 must name exactly {', '.join(FILES)}")
        self._check_preprocessing()
        self._check_personal()
        self._check_trees()
        return self

    def _check_personal(self) -> None:
        for pattern in self.personal:
            if not any(is_personal(parameter.name, (pattern,)) for parameter in self.parameters):
                raise ValueError(f"personal {pattern!r} fits no parameter")
        own = [is_personal(parameter.name, self.personal) for parameter in self.parameters]
        if all(own):
            raise ValueError("every parameter is personal: nothing is left to learn together")
        if own != sorted(own):
            raise ValueError("a personal parameter stands before a shared one")

    def _check_trees(self) -> None:
        if self.trees is None:
            return
        scores = 1 if self.task == "classification" and len(self.outputs) == 2 else -1
        scores = len(self.outputs) if scores < 0 else scores
        count, nodes = self.trees.count, 2**self.trees.depth - 1
        expected = [(scores,), (count, nodes), (count, nodes), (count, nodes + 1)]
        if [p.shape for p in self.parameters] != expected or count % scores:
            raise ValueError(f"a forest has parameters of shapes {expected}")
        if self.personal:
            raise ValueError("a forest has no personal parameters")
        if len(self.input_shape) != 1:
            raise ValueError("a forest takes samples with one axis")

    def _check_preprocessing(self) -> None:
        axis, rank = self.preprocessing.axis, len(self.input_shape)
        if not -rank <= axis < rank:
            raise ValueError(f"preprocessing axis {axis} is outside a sample of {rank} axes")
        allowed = (1, self.input_shape[axis])
        for word in ("offset", "scale"):
            seen = len(getattr(self.preprocessing, word))
            if seen not in allowed:
                raise ValueError(
                    f"preprocessing {word} has {seen} numbers, expected 1 or {allowed[1]}"
                )


def is_personal(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether the parameter `name` stays on the device."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def parse_manifest(data: bytes) -> Manifest:
    """Read manifest.json. Raises BadModel with the first thing that is wrong."""
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        place, what = first_wrong(error)
        raise BadModel(f"{MANIFEST}: {place or 'document'}: {what}") from error


def verify_params(manifest: Manifest, params: bytes | memoryview, sha256: str) -> Floats:
    """The bytes of a received model as a read-only vector [d], once length, hash and values hold.

    Raises BadModel.
    """
    expected = 4 * manifest.size
    if len(params) != expected:
        raise BadModel(
            f"{manifest.name}: {len(params)} bytes of parameters, expected {expected} "
            f"({manifest.size} float32)"
        )
    seen = hashlib.sha256(params).hexdigest()
    if seen != sha256:
        raise BadModel(f"{manifest.name}: parameters hash to {seen}, expected {sha256}")
    vector = np.frombuffer(params, dtype="<f4").astype(np.float32, copy=False)
    if not np.isfinite(vector).all():
        where = int(np.flatnonzero(~np.isfinite(vector))[0])
        raise BadModel(f"{manifest.name}: parameter {where} is {vector[where]}, expected finite")
    vector.flags.writeable = False
    return vector


def preparation(manifest: Manifest) -> Callable[[Floats], Floats]:
    """Raw samples [n, *input_shape] -> what the model takes, as the manifest's preprocessing says.

    Applied once: by whoever feeds infer.onnx, and by the trainer (which is given raw samples).
    """
    how = manifest.preprocessing
    axis = how.axis % len(manifest.input_shape)
    along = [1] * len(manifest.input_shape)
    along[axis] = -1
    offset = np.asarray(how.offset, np.float32).reshape(along)
    scale = np.asarray(how.scale, np.float32).reshape(along)
    moved = bool(offset.any())

    def run(x: Floats) -> Floats:
        prepared: Floats = (x - offset if moved else x) * scale
        return prepared

    return run


def prepare(manifest: Manifest, x: Floats) -> Floats:
    """`preparation`, for one call."""
    return preparation(manifest)(x)
