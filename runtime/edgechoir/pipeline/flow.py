"""The graph of a pipeline, declared in Python.

    flow = Flow()
    readings = flow.source("pump", Replay(path, 50.0), check=Check((4,)))
    answers = readings.scale(0.0, 0.1).window(30, step=10).infer(predictor)
    answers.filter(lambda s: s.answer.confidence > 0.9).sink(JsonlSink(Path("sure.jsonl")))

Every step names what it takes its samples from, which must be declared before it: a graph cannot
have a ring. Several steps may take from one, and one may take from several. `declare.py` makes the
same out of a configuration file; `run.py` runs it.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from edgechoir.errors import OperatorError
from edgechoir.inference.predictor import Predictor
from edgechoir.pipeline.check import Check
from edgechoir.pipeline.labels import LateLabels
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
from edgechoir.pipeline.sample import Bound, Sample
from edgechoir.pipeline.sink import Sink
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.pipeline.source import Source
from edgechoir.pipeline.window import CountWindow, TimeWindow
from edgechoir.types import NAME, Floats

MAX_STEPS: Final = 64

Store = Callable[[Sequence[Sample]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Step:
    """`operator` under `name`, fed by `inputs`; what `side` gives goes to its method `note`.

    `declared` is what a configuration said of it: a step that is declared as before keeps its
    state when the pipeline is updated. An operator that is a `Predictor` answers each sample.
    """

    name: str
    kind: str
    operator: Operator | Predictor | Relief
    inputs: tuple[str, ...]
    side: tuple[str, ...] = ()
    declared: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Outflow:
    """A sink, and the steps whose samples it gets."""

    sink: Sink
    inputs: tuple[str, ...]
    declared: Mapping[str, object] | None = None


@dataclass(slots=True)
class Flow:
    """Sources, steps, sinks and the training store of one pipeline.

    `store` gets the labelled samples that leave a model, as the model saw them; `labels` is the
    name of a source whose samples are labels for those that had none, joined by `late`.
    """

    sources: dict[str, tuple[Source, Check | None]] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    outflows: list[Outflow] = field(default_factory=list)
    store: Store | None = None
    labels: str | None = None
    late: LateLabels | None = None

    def source(self, name: str, source: Source, *, check: Check | None = None) -> "Stream":
        """Where samples come from. Raises OperatorError: the name is taken or no name."""
        self._check_name(name)
        self.sources[name] = (source, check)
        return Stream(self, name)

    def step(self, step: Step) -> "Stream":
        """Raises OperatorError: its name is taken, or an input is not declared before it."""
        self._check_name(step.name)
        if len(self.steps) >= MAX_STEPS:
            raise OperatorError(f"more than {MAX_STEPS} steps: make the pipeline simpler")
        self._check_inputs(step.name, (*step.inputs, *step.side))
        self.steps.append(step)
        return Stream(self, step.name)

    def sink(self, outflow: Outflow) -> None:
        """Raises OperatorError: its name is taken, or an input is not declared."""
        self._check_name(outflow.sink.name)
        self._check_inputs(outflow.sink.name, outflow.inputs)
        self.outflows.append(outflow)

    def label_from(self, stream: "Stream", late: LateLabels) -> None:
        """Samples of `stream` are labels: see `LateLabels`. Raises OperatorError: no source."""
        if stream.name not in self.sources:
            raise OperatorError(f"labels come from {stream.name!r}, which is not a source")
        self.labels, self.late = stream.name, late

    def free_name(self, kind: str) -> str:
        """`window`, or `window-2` where there is one already."""
        taken = self._names()
        name, n = kind, 1
        while name in taken:
            n += 1
            name = f"{kind}-{n}"
        return name

    def _names(self) -> set[str]:
        sinks = (outflow.sink.name for outflow in self.outflows)
        return {*self.sources, *(step.name for step in self.steps), *sinks}

    def _check_name(self, name: str) -> None:
        if not NAME.fullmatch(name):
            raise OperatorError(f"{name!r} is no name: use {NAME.pattern}")
        if name in self._names() or name == "store":
            raise OperatorError(f"the name {name!r} is taken: give another")

    def _check_inputs(self, name: str, inputs: tuple[str, ...]) -> None:
        if not inputs:
            raise OperatorError(f"{name} has no input")
        known = self.outputs()
        for given in inputs:
            if given not in known:
                raise OperatorError(
                    f"{name} takes from {given!r}, which is not declared before it; "
                    f"declared are {', '.join(known)}"
                )

    def outputs(self) -> list[str]:
        """Everything that a step or a sink can take from."""
        known = list(self.sources)
        for step in self.steps:
            if isinstance(step.operator, Split):
                known += [f"{step.name}.{output}" for output in step.operator.outputs]
            else:
                known.append(step.name)
        return known


@dataclass(frozen=True, slots=True)
class Stream:
    """What comes out of the step `name`; each method adds a step behind it."""

    flow: Flow
    name: str

    def through(
        self, kind: str, operator: Operator | Predictor | Relief, name: str | None = None
    ) -> "Stream":
        """Any operator: a function of a sample, or an object that is called like one."""
        name = self.flow.free_name(kind) if name is None else name
        return self.flow.step(Step(name, kind, operator, (self.name,)))

    def map(self, function: Callable[[Floats], object], *, rows: bool = False) -> "Stream":
        return self.through("map", Map(function, rows=rows))

    def filter(self, keep: Callable[[Sample], object]) -> "Stream":
        return self.through("filter", Filter(keep))

    def flat_map(self, function: Callable[[Sample], Iterable[object]]) -> "Stream":
        return self.through("flat-map", FlatMap(function))

    def scale(self, offset: Bound = 0.0, factor: Bound = 1.0) -> "Stream":
        return self.through("scale", Scale(offset, factor))

    def select(self, indices: Sequence[int]) -> "Stream":
        return self.through("select", Select(indices))

    def range(self, minimum: Bound | None = None, maximum: Bound | None = None) -> "Stream":
        return self.through("range", Range(minimum, maximum))

    def deadband(self, width: Bound, silence: float | None = None) -> "Stream":
        return self.through("deadband", Deadband(width, silence))

    def deadtime(self, seconds: float) -> "Stream":
        return self.through("deadtime", Deadtime(seconds))

    def reorder(self, seconds: float, jump: float | None = None) -> "Stream":
        return self.through("reorder", Reorder(seconds, jump))

    def window(
        self, count: int, step: int = 1, *, summary: Sequence[str] = (), flatten: bool = False
    ) -> "Stream":
        window = CountWindow(count, step, summary=summary, flatten=flatten)
        return self.through("window", window)

    def time_window(
        self, seconds: float, every: float = 0.0, *, summary: Sequence[str]
    ) -> "Stream":
        return self.through("window", TimeWindow(seconds, every, summary=summary))

    def relief(self, size: int = 64, drop: Literal["oldest", "newest"] = "oldest") -> "Stream":
        return self.through("relief", Relief(size, drop))

    def infer(self, predictor: Predictor, name: str | None = None) -> "Stream":
        return self.through("infer", predictor, name)

    def answers(self) -> "Stream":
        """The model's answer in place of the values."""
        return self.through("answer", answer_values)

    def split(
        self, choose: Callable[[Sample], object], outputs: Sequence[str]
    ) -> tuple["Stream", ...]:
        """One stream for each output, in that order."""
        name = self.through("split", Split(choose, outputs)).name
        return tuple(Stream(self.flow, f"{name}.{output}") for output in outputs)

    def union(self, *others: "Stream") -> "Stream":
        inputs = (self.name, *(other.name for other in others))
        return self.flow.step(Step(self.flow.free_name("union"), "union", union, inputs))

    def join_latest(
        self, other: "Stream", max_age: float | None = None, *, by_key: bool = False
    ) -> "Stream":
        join = JoinLatest(max_age, by_key=by_key)
        name = self.flow.free_name("join")
        return self.flow.step(Step(name, "join", join, (self.name,), (other.name,)))

    def valve(self, control: "Stream | None" = None, *, is_open: bool = True) -> "Stream":
        side = () if control is None else (control.name,)
        name = self.flow.free_name("valve")
        return self.flow.step(Step(name, "valve", Valve(is_open=is_open), (self.name,), side))

    def sink(self, sink: Sink | Callable[[Sample], Awaitable[None] | None]) -> "Stream":
        """Give the samples to `sink` too, which may be a function; the stream goes on from here."""
        if callable(sink):
            sink = CallbackSink(self.flow.free_name("callback"), sink)
        self.flow.sink(Outflow(sink, (self.name,)))
        return self

    def store(self, store: Store) -> "Stream":
        """The training store gets what is labelled behind every model."""
        self.flow.store = store
        return self
