"""Steps from a plain declaration, as it stands in a configuration file.

[[pipeline]]             ->  [{"op": "window", "count": 30, "step": 5, "summary": ["mean", "std"]},
op = "window"                 {"op": "deadband", "width": 0.1}]
count = 30 ...

Each takes from the one before it, or from what it names in `input`: sources, steps above it, or one
output of a split ("split.hot"). `infer` is the model; where it is left out it comes last. `map`,
`flat-map`, `filter` and `split` name the user's own function as "package.module:function".
Everything is checked here, before the first sample: an unknown operator or argument is an error
that names what is known.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgechoir.errors import OperatorError
from edgechoir.inference.predictor import Predictor
from edgechoir.pipeline.flow import Flow, Step
from edgechoir.pipeline.operators import (
    Deadband,
    Deadtime,
    Filter,
    FlatMap,
    JoinLatest,
    Map,
    Operator,
    Range,
    Scale,
    Select,
    Split,
    Valve,
    answer_values,
    union,
)
from edgechoir.pipeline.order import Reorder
from edgechoir.pipeline.relief import Relief
from edgechoir.pipeline.source import find_function
from edgechoir.pipeline.window import CountWindow, TimeWindow

_Bound = float | list[float]
COMMON: Final = ("op", "name", "input")
"""Keys that every operator has beside its own."""


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @abstractmethod
    def build(self) -> Operator: ...

    def side(self) -> tuple[str, ...]:
        """What the step takes from beside `input`."""
        return ()


class _Window(_Declared):
    count: int | None = None
    step: int = 1
    flatten: bool = False
    seconds: float | None = None
    every: float = 0.0
    summary: list[str] = []

    def build(self) -> Operator:
        given = self.model_fields_set
        if self.seconds is not None and self.count is None:
            if given & {"step", "flatten"}:
                raise OperatorError("'step' and 'flatten' belong to 'count': use 'every'")
            return TimeWindow(self.seconds, self.every, summary=self.summary)
        if self.count is not None and self.seconds is None:
            if "every" in given:
                raise OperatorError("'every' belongs to 'seconds': use 'step'")
            if self.summary and self.flatten:
                raise OperatorError("'flatten' has no meaning with 'summary': leave it out")
            return CountWindow(self.count, self.step, summary=self.summary, flatten=self.flatten)
        raise OperatorError("give either 'count' or 'seconds'")


class _Reorder(_Declared):
    seconds: float
    jump: float | None = None

    def build(self) -> Operator:
        return Reorder(self.seconds, self.jump)


class _Deadband(_Declared):
    width: _Bound
    silence: float | None = None

    def build(self) -> Operator:
        return Deadband(self.width, self.silence)


class _Deadtime(_Declared):
    seconds: float

    def build(self) -> Operator:
        return Deadtime(self.seconds)


class _Range(_Declared):
    minimum: _Bound | None = None
    maximum: _Bound | None = None

    def build(self) -> Operator:
        if self.minimum is None and self.maximum is None:
            raise OperatorError("give 'minimum', 'maximum' or both")
        return Range(self.minimum, self.maximum)


class _Valve(_Declared):
    open: bool = True
    control: str | None = None

    def build(self) -> Operator:
        return Valve(is_open=self.open)

    def side(self) -> tuple[str, ...]:
        return () if self.control is None else (self.control,)


class _Scale(_Declared):
    offset: _Bound = 0.0
    factor: _Bound = 1.0

    def build(self) -> Operator:
        return Scale(self.offset, self.factor)


class _Select(_Declared):
    indices: list[int] = Field(min_length=1)

    def build(self) -> Operator:
        return Select(self.indices)


class _Map(_Declared):
    function: str
    rows: bool = False

    def build(self) -> Operator:
        return Map(find_function(self.function), rows=self.rows)


class _FlatMap(_Declared):
    function: str

    def build(self) -> Operator:
        # What it gives is looked at for every sample: what cannot be gone through is a dead letter.
        function: Callable[..., Any] = find_function(self.function)
        return FlatMap(function)


class _Filter(_Declared):
    function: str

    def build(self) -> Operator:
        return Filter(find_function(self.function))


class _Split(_Declared):
    function: str
    outputs: list[str]

    def build(self) -> Operator:
        return Split(find_function(self.function), self.outputs)


class _Union(_Declared):
    def build(self) -> Operator:
        return union


class _Join(_Declared):
    latest: str
    max_age: float | None = None
    by_key: bool = False

    def build(self) -> Operator:
        return JoinLatest(self.max_age, by_key=self.by_key)

    def side(self) -> tuple[str, ...]:
        return (self.latest,)


class _Relief(_Declared):
    size: int = 64
    drop: Literal["oldest", "newest"] = "oldest"

    def build(self) -> Operator:
        return Relief(self.size, self.drop)


class _Infer(_Declared):
    def build(self) -> Operator:
        return union


class _Answer(_Declared):
    def build(self) -> Operator:
        return answer_values


OPERATORS: Final[Mapping[str, type[_Declared]]] = {
    "window": _Window,
    "reorder": _Reorder,
    "deadband": _Deadband,
    "deadtime": _Deadtime,
    "range": _Range,
    "valve": _Valve,
    "scale": _Scale,
    "select": _Select,
    "map": _Map,
    "flat-map": _FlatMap,
    "filter": _Filter,
    "split": _Split,
    "union": _Union,
    "join": _Join,
    "relief": _Relief,
    "infer": _Infer,
    "answer": _Answer,
}


def declare_steps(
    flow: Flow, declared: Sequence[Mapping[str, object]], predictor: Predictor | None
) -> str:
    """Add the declared steps to `flow`, which has its sources; the name of the last model.

    A second window is called "window-2" unless it has a name. Without a `predictor` (to look at a
    declaration alone) the model is a step that does nothing.
    Raises OperatorError: says which operator, what is wrong with it and what is allowed.
    """
    before = next(iter(flow.sources))
    if not any(entry.get("op") == "infer" for entry in declared):
        declared = [*declared, {"op": "infer"}]
    model = ""
    for position, entry in enumerate(declared, start=1):
        op = entry.get("op")
        if not isinstance(op, str) or op not in OPERATORS:
            raise OperatorError(
                f"operator {position}: unknown op {op!r}; use one of {', '.join(OPERATORS)}"
            )
        try:
            before = _add(flow, op, entry, before, predictor)
        except OperatorError as error:
            raise OperatorError(f"operator {position} ({op}): {error}") from error
        if op == "infer":
            model = before
    return model


def _add(
    flow: Flow, op: str, entry: Mapping[str, object], before: str, predictor: Predictor | None
) -> str:
    made = _validated(OPERATORS[op], {k: v for k, v in entry.items() if k not in COMMON})
    operator = predictor if op == "infer" and predictor is not None else made.build()
    name, inputs = entry.get("name", flow.free_name(op)), entry.get("input", before)
    if isinstance(inputs, str):
        inputs = [inputs]
    if not isinstance(name, str) or not isinstance(inputs, list | tuple):
        raise OperatorError("'name' is text, and 'input' text or an array of it")
    step = Step(name, op, operator, tuple(map(str, inputs)), made.side(), dict(entry))
    return flow.step(step).name


def _validated(kind: type[_Declared], arguments: Mapping[str, object]) -> _Declared:
    allowed = ", ".join((*kind.model_fields, *COMMON[1:]))
    for name in arguments:
        if name not in kind.model_fields:
            raise OperatorError(f"unknown argument {name!r}; allowed are {allowed}")
    try:
        return kind.model_validate(arguments)
    except ValidationError as error:
        first = error.errors()[0]
        raise OperatorError(
            f"argument {first['loc'][0]!r}: {first['msg']} (allowed arguments: {allowed})"
        ) from error
