"""A step of the graph at work, and how samples go on from it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from edgechoir.inference.predictor import Predictor
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.flow import Flow, Step
from edgechoir.pipeline.operators import Operator, Routed, Split, union
from edgechoir.pipeline.outlet import Outlet
from edgechoir.pipeline.relief import Relief
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.stage import Passage, Stage


@dataclass(slots=True, eq=False)
class Node:
    """A stage or an outlet; `nexts` get what comes out, or those in `routes` under its output."""

    stage: Stage
    inputs: tuple[str, ...] = ()
    step: Step | None = None
    outlet: Outlet[Sample] | None = None
    predictor: Predictor | None = None
    relief: Relief | None = None
    nexts: tuple["Node", ...] = ()
    routes: dict[str, tuple["Node", ...]] | None = None
    finish: object = field(default=None)

    def after(self, given: Sample | Routed | Block) -> tuple[tuple["Node", ...], Sample | Block]:
        """Where a result goes, and the result without the name of its output."""
        if isinstance(given, Routed):
            if self.routes is None:
                return self.nexts, given.sample
            return self.routes.get(given.output, ()), given.sample
        return self.nexts, given


def connect(
    flow: Flow,
    outlets: Mapping[str, Outlet[Sample]],
    before: Mapping[str, Node],
) -> dict[str, Node]:
    """The nodes of `flow` by name, in its order. `before` are those of the pipeline until now.

    A step that is declared as it was keeps its stage: its state, its counts, and whether it is
    paused.
    """
    nodes: dict[str, Node] = {}
    for name, (_, check) in flow.sources.items():
        old = before.get(name)
        stage = Passage(name, "source") if check is None else Stage(name, check, "source")
        nodes[name] = Node(stage if old is None else old.stage)
    takers: dict[str, list[Node]] = {}
    for step in flow.steps:
        node = _node_of(step, before.get(step.name))
        nodes[step.name] = node
        for given in step.inputs:
            takers.setdefault(given, []).append(node)
        note = getattr(node.step and node.step.operator, "note", None)
        if step.side and note is not None:
            aside = Node(Stage(f"{step.name}, its other input", note, step.kind))
            for given in step.side:
                takers.setdefault(given, []).append(aside)
    for outflow in flow.outflows:
        name = outflow.sink.name
        node = Node(Passage(name, "sink"), outflow.inputs, outlet=outlets[name])
        nodes[name] = node
        for given in outflow.inputs:
            takers.setdefault(given, []).append(node)
    for name, node in nodes.items():
        operator = None if node.step is None else node.step.operator
        if isinstance(operator, Split):
            node.routes = {
                output: tuple(takers.get(f"{name}.{output}", ())) for output in operator.outputs
            }
        node.nexts = tuple(takers.get(name, ()))
    return nodes


def _node_of(step: Step, old: Node | None) -> Node:
    if (
        old is not None
        and old.step is not None
        and step.declared is not None
        and old.step.declared == step.declared
    ):
        # The operator and the counts of before; the inputs may be others.
        step = Step(step.name, step.kind, old.step.operator, step.inputs, step.side, step.declared)
        stage = old.stage
    else:
        # A model is asked by the pipeline itself, because it may have to be waited for.
        plain = step.operator is union or isinstance(step.operator, Predictor)
        stage = (
            Passage(step.name, step.kind)
            if plain
            else Stage(step.name, cast(Operator, step.operator), step.kind)
        )
    operator = step.operator
    return Node(
        stage,
        step.inputs + step.side,
        step,
        predictor=operator if isinstance(operator, Predictor) else None,
        relief=operator if isinstance(operator, Relief) else None,
        finish=getattr(operator, "finish", None),
    )
