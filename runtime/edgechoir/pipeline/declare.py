"""Operators from a plain declaration, as it stands in a configuration file.

[[operators]]            ->  [{"op": "window", "count": 30, "step": 5, "summary": ["mean", "std"]},
op = "window"                 {"op": "deadband", "width": 0.1}]
count = 30 ...

`map` and `filter` name the user's own function as "package.module:function". Everything is checked
here, before the first sample: an unknown operator or argument is an error that names what is known.
"""

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgechoir.errors import OperatorError
from edgechoir.pipeline.operators import (
    Deadband,
    Deadtime,
    Operator,
    filtered,
    mapped,
    scaled,
    selected,
    within,
)
from edgechoir.pipeline.source import find_function
from edgechoir.pipeline.window import CountWindow, TimeWindow

_Bound = float | list[float]


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @abstractmethod
    def build(self) -> Operator: ...


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
        return within(self.minimum, self.maximum)


class _Scale(_Declared):
    offset: _Bound = 0.0
    factor: _Bound = 1.0

    def build(self) -> Operator:
        return scaled(self.offset, self.factor)


class _Select(_Declared):
    indices: list[int] = Field(min_length=1)

    def build(self) -> Operator:
        return selected(self.indices)


class _Map(_Declared):
    function: str

    def build(self) -> Operator:
        return mapped(find_function(self.function))


class _Filter(_Declared):
    function: str

    def build(self) -> Operator:
        return filtered(find_function(self.function))


OPERATORS: Final[Mapping[str, type[_Declared]]] = {
    "window": _Window,
    "deadband": _Deadband,
    "deadtime": _Deadtime,
    "range": _Range,
    "scale": _Scale,
    "select": _Select,
    "map": _Map,
    "filter": _Filter,
}


def build_operators(declared: Sequence[Mapping[str, object]]) -> list[tuple[str, Operator]]:
    """(name, operator) in the declared order; a second window is called "window-2".

    Raises OperatorError: says which operator, what is wrong with it and what is allowed.
    """
    built: list[tuple[str, Operator]] = []
    used: Counter[str] = Counter()
    for position, entry in enumerate(declared, start=1):
        op = entry.get("op")
        if not isinstance(op, str) or op not in OPERATORS:
            raise OperatorError(
                f"operator {position}: unknown op {op!r}; use one of {', '.join(OPERATORS)}"
            )
        used[op] += 1
        try:
            operator = _build(OPERATORS[op], {k: v for k, v in entry.items() if k != "op"})
        except OperatorError as error:
            raise OperatorError(f"operator {position} ({op}): {error}") from error
        built.append((op if used[op] == 1 else f"{op}-{used[op]}", operator))
    return built


def _build(kind: type[_Declared], arguments: Mapping[str, object]) -> Operator:
    allowed = ", ".join(kind.model_fields)
    for name in arguments:
        if name not in kind.model_fields:
            raise OperatorError(f"unknown argument {name!r}; allowed are {allowed}")
    try:
        return kind.model_validate(arguments).build()
    except ValidationError as error:
        first = error.errors()[0]
        raise OperatorError(
            f"argument {first['loc'][0]!r}: {first['msg']} (allowed arguments: {allowed})"
        ) from error
