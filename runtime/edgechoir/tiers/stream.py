"""A device's pipeline from its configuration: sources, steps, sinks, store and late labels."""

from collections.abc import Sequence

from edgechoir.config.sensor import AnySensor, Stage
from edgechoir.config.sink import AnyOut
from edgechoir.config.tiers import DeviceConfig
from edgechoir.errors import OperatorError
from edgechoir.inference.predictor import Predictor
from edgechoir.pipeline.check import Check
from edgechoir.pipeline.declare import declare_steps
from edgechoir.pipeline.flow import Flow, Outflow, Store, Stream
from edgechoir.pipeline.labels import LateLabels
from edgechoir.pipeline.sink import Sink
from edgechoir.tiers.sensor import make_sink, make_source


def flow_of(
    config: DeviceConfig,
    predictor: Predictor,
    own: Sequence[Sink],
    store: Store,
) -> Flow:
    """What the configuration declares; the sinks `own` get the answers of the last model.

    Raises OperatorError: what is declared cannot work.
    """
    flow = Flow(store=store)
    # Operators may change the shape, so only without them must a raw sample have the model's; the
    # model refuses a wrong one in any case.
    shape = None if config.pipeline else predictor.shape
    for name, sensor in sources_of(config).items():
        flow.source(name, make_source(sensor), check=_check(sensor, shape))
        shape = None
    labels = config.labels
    if labels.source is not None:
        late = LateLabels(labels.wait_s, labels.tolerance_s, labels.samples)
        flow.label_from(Stream(flow, labels.source), late)
        # A label has no values for a check to look at.
        flow.sources[labels.source] = (flow.sources[labels.source][0], None)
    add_steps(flow, config.pipeline, config.sinks, predictor, own)
    return flow


def add_steps(
    flow: Flow,
    stages: Sequence[Stage],
    outs: Sequence[AnyOut],
    predictor: Predictor,
    own: Sequence[Sink],
) -> None:
    """The operators and sinks of a configuration, behind the sources that `flow` has."""
    model = declare_steps(flow, [stage.declared() for stage in stages], predictor)
    for sink in own:
        flow.sink(Outflow(sink, (model,), {"own": sink.name}))
    _add_sinks(flow, outs, model)


def _add_sinks(flow: Flow, outs: Sequence[AnyOut], model: str) -> None:
    for out in outs:
        inputs = (model,) if out.input is None else out.input
        inputs = (inputs,) if isinstance(inputs, str) else inputs
        declared = {"out": out.model_dump(mode="json", exclude={"input"})}
        flow.sink(Outflow(make_sink(out), inputs, declared))


def updated(old: Flow, config: DeviceConfig, predictor: Predictor, own: Sequence[Sink]) -> Flow:
    """The flow of a changed configuration, on the sources that run already.

    Raises OperatorError: the configuration has other sources, or what it declares cannot work.
    """
    flow = Flow(sources=dict(old.sources))
    if list(sources_of(config)) != list(old.sources):
        raise OperatorError(
            f"this device runs the sources {', '.join(old.sources)}, the configuration names "
            f"{', '.join(sources_of(config))}: restart the device to change them"
        )
    add_steps(flow, config.pipeline, config.sinks, predictor, own)
    return flow


def sources_of(config: DeviceConfig) -> dict[str, AnySensor]:
    """Every source by the name that operators call it."""
    found: dict[str, AnySensor] = {config.sensor.name or "sensor": config.sensor}
    return found | {each.name or each.source: each for each in config.sources}


def keeps_gaps(config: DeviceConfig) -> bool:
    """Whether samples may come to the model and the store with values missing."""
    return any(each.check.missing == "keep" for each in sources_of(config).values())


def look_at(config: DeviceConfig) -> list[str]:
    """Make everything that is declared, and run none of it; the names of steps and sinks.

    Raises OperatorError as `flow_of` does.
    """
    flow = Flow()
    for name, sensor in sources_of(config).items():
        flow.source(name, make_source(sensor))
    if config.labels.source is not None:
        flow.label_from(Stream(flow, config.labels.source), LateLabels())
    stages = [stage.declared() for stage in config.pipeline]
    _add_sinks(flow, config.sinks, declare_steps(flow, stages, None))
    return [step.name for step in flow.steps] + [each.sink.name for each in flow.outflows]


def _check(sensor: AnySensor, shape: tuple[int, ...] | None) -> Check:
    check = sensor.check
    return Check(shape, check.min, check.max, check.missing, check.fill, check.outside)
