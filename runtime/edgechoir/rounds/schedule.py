"""The root's schedule: which round runs when, what its sum makes of the model, and when to stop.

Training rounds follow each other as long as children are keyed; what was asked beside them (a
statistic, an evaluation) has its round before the next of those, also when training is over. A run
that `waits` trains only after `Prepared` has said what goes with the model from then on. A
failed round is tried again with whoever is left after a pause that doubles up to a bound. The run
ends at `rounds` done, at `target_accuracy` or `target_rmse`, or when the loss has not fallen by
`min_gain` for `patience` rounds. A run that diverges goes on from its best version, as a new one,
with half the learning rate, and ends when that has not helped `MAX_ROLLBACKS` times. One that is to
release the best version has a last round that measures the last, and then publishes the better.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from edgechoir import wire
from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Total, heaviest
from edgechoir.learning.rates import Rates
from edgechoir.learning.rules.fedavg import FedAvg
from edgechoir.learning.rules.private import having_spent
from edgechoir.learning.rules.rule import Rule
from edgechoir.learning.slots import decode_apart
from edgechoir.learning.state import State, digest, digest_of, to_bytes
from edgechoir.learning.task import MEASURE, Option, Task
from edgechoir.rounds.epoch import encoding_of, slots_of
from edgechoir.rounds.events import Membership, Order, RoundDone, RoundFailed, Tick
from edgechoir.rounds.figures import SQUARED
from edgechoir.rounds.watch import Best, Watch
from edgechoir.types import Floats

MAX_BACKOFF_S = 30.0
MAX_ASKED = 16
"""Questions that wait for their round."""
MAX_ROLLBACKS = 5
CLOSING = "closing"
"""The question that the run itself asks at its end: how good is the last version?"""
TRIES = 3
"""Rounds that a question may fail in before its answer is the reason."""


@dataclass(frozen=True, slots=True)
class Course:
    """What the operator asks of a run. Times in seconds; a model that does not classify has no
    accuracy. `rates` is how `learning_rate` changes over the rounds, `local` what goes into the
    task of every training round beside the rule's own options."""

    rounds: int = 30
    deadline: float = 60.0
    pause: float = 0.0
    target_accuracy: float | None = None
    target_rmse: float | None = None
    patience: int | None = None
    diverged_factor: float = 10.0
    diverged_rounds: int = 3
    release: Literal["last", "best"] = "last"
    min_gain: float = 1e-3
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.05
    rates: Rates = field(default_factory=Rates)
    local: Mapping[str, Option] = field(default_factory=dict)
    clip: float = 1.0
    max_samples: int = 10_000
    bits: int = 32
    seed: int = 0
    classifies: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """One round as the root knows it. The means describe the model the round began with. With a
    `total`, a `reason` says why it was not followed: the run had diverged."""

    round: int
    version: int
    seconds: float
    total: Total | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Publish:
    """A new global state for all tiers; `rule` is the one that made it, with its memory, and
    `done` the training rounds that it took."""

    model: wire.Model
    state: State
    rule: Rule
    done: int = 0


@dataclass(frozen=True, slots=True)
class Ask:
    """One round of another task beside training: `dimension` coordinates, each clipped to `clip`,
    a device weighing at most `max_samples` rows."""

    name: str
    task: Task
    dimension: int
    clip: float
    max_samples: int
    bits: int = 32


@dataclass(frozen=True, slots=True)
class Answered:
    """The mean that was asked for, or why there is none."""

    name: str
    total: Total | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What goes with the model from now on (the columns' mean and scale): training may begin."""

    aux: Mapping[str, Floats]


@dataclass(frozen=True, slots=True)
class Anew:
    """As soon as no round runs: go on from this state as a new version, under this course and rule,
    as if `done` training rounds had led to it. What has been spent of privacy stays spent."""

    course: Course
    state: State
    rule: Rule
    done: int = 0
    watch: Watch = field(default_factory=Watch)
    finished: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """The run goes on as `Anew` asked, with this version."""

    version: int


@dataclass(frozen=True, slots=True)
class Finished:
    """No further round follows."""

    reason: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """The whole state. `round` is the last one spent, here or by a child, `ordered` the last one
    ordered; `done` counts the training rounds that gave a sum; `wake` is when a Tick is due;
    `asking` is the question of the running round, or of the one to be tried again; `waits`: no
    training before it is prepared; `closing`: why the run is over but for its last question;
    `anew`: how it shall go on once no round runs."""

    course: Course
    state: State
    rule: Rule = field(default_factory=FedAvg)
    version: int = 0
    round: int = 0
    done: int = 0
    devices: int = 0
    members: int = 0
    running: bool = False
    began: float = 0.0
    failures: int = 0
    watch: Watch = field(default_factory=Watch)
    finished: str = ""
    closing: str = ""
    wake: float | None = None
    ordered: int = 0
    asked: tuple[Ask, ...] = ()
    asking: Ask | None = None
    tries: int = 0
    waits: bool = False
    anew: Anew | None = None


Did = Order | Publish | Result | Answered | Finished | Begun
Happened = Membership | RoundDone | RoundFailed | Tick | Ask | Prepared | Anew


def start(schedule: Schedule) -> Publish:
    """The model the run begins with, so that all devices begin alike."""
    return _publication(schedule, 0, 0, "")


def _publication(s: Schedule, devices: int, samples: int, finished: str) -> Publish:
    return Publish(model_of(s, devices, samples, finished), s.state, s.rule, s.done)


def now_as(s: Schedule) -> Anew:
    """What leads back to how the run is now."""
    return Anew(s.course, s.state, s.rule, s.done, s.watch, s.finished)


def step(s: Schedule, event: Happened, now: float) -> tuple[Schedule, list[Did]]:
    """Advance by one event."""
    s, did = _step(s, event, now)
    if s.anew is None or s.running or s.asking is not None:
        return s, did
    s, more = _begun(s, s.anew, now)
    return s, [*did, *more]


def _begun(s: Schedule, a: Anew, now: float) -> tuple[Schedule, list[Did]]:
    s = replace(
        s,
        course=a.course,
        state=a.state,
        rule=having_spent(a.rule, s.rule),
        version=s.version + 1,
        done=a.done,
        watch=a.watch,
        finished=a.finished,
        closing="",
        failures=0,
        wake=None,
        anew=None,
    )
    begun: list[Did] = [_publication(s, 0, 0, s.finished), Begun(s.version)]
    s, more = _next(s, now)
    return s, [*begun, *more]


def _step(s: Schedule, event: Happened, now: float) -> tuple[Schedule, list[Did]]:
    match event:
        case Anew():
            return replace(s, anew=event), []
        case Membership(_, members, devices, last_round):
            beneath = replace(s, devices=devices, members=len(members))
            s = replace(beneath, round=max(s.round, last_round))
            return _next(s, now)
        case RoundDone():
            return _done(s, event, now)
        case RoundFailed(round_, reason):
            return _failed(s, round_, reason, now)
        case Ask():
            if len(s.asked) >= MAX_ASKED:
                return s, [Answered(event.name, None, f"{MAX_ASKED} questions wait already")]
            return _next(replace(s, asked=(*s.asked, event)), now)
        case Prepared(aux):
            return _prepared(s, aux, now)
        case Tick():
            return _next(s, now)


def _next(s: Schedule, now: float) -> tuple[Schedule, list[Did]]:
    course = s.course
    # A pause that is longer than any: the clock has been set back meanwhile.
    pausing = s.wake is not None and now < s.wake <= now + max(course.pause, MAX_BACKOFF_S)
    untrained = s.finished or s.waits or s.anew is not None
    idle = untrained and not s.asked and s.asking is None
    if s.running or idle or not s.devices or (pausing and not s.asked):
        return s, []
    if s.asking is None and s.asked:
        s = replace(s, asking=s.asked[0], asked=s.asked[1:], tries=0)
    if s.asking is None and (over := s.rule.over()):  # an earlier process, or a trial, spent all
        s = replace(s, finished=over)
        return s, [Finished(over)]
    try:
        ask = s.asking or _training(s)
    except BadUpdate as error:
        s = replace(s, finished=str(error))
        return s, [Finished(s.finished)]
    if s.asking is None and (lacking := s.rule.lacking(s.members)):
        s = replace(s, failures=s.failures + 1, wake=now + _backoff(s))
        return s, [Result(s.round, s.version, 0.0, None, lacking)]
    following = s.round + 1
    s = replace(s, round=following, ordered=following, running=True, began=now, wake=None)
    order = Order(
        round=s.round,
        model_version=s.version,
        model_hash=digest_of(s.state),
        task=ask.task.encode(),
        dimension=ask.dimension,
        devices=s.devices,
        clip=ask.clip,
        max_samples=ask.max_samples
        if s.asking is None
        else min(ask.max_samples, heaviest(s.devices, ask.bits)),
        bits=ask.bits,
        epochs=course.epochs,
        batch_size=course.batch_size,
        learning_rate=course.learning_rate * course.rates.part(s.done) / 2**s.watch.rollbacks,
        seed=course.seed + s.round,
        deadline=course.deadline,
        apart=wire.APART if s.asking is None and s.rule.apart else wire.TOGETHER,
    )
    return s, [order]


def _training(s: Schedule) -> Ask:
    """The next training round. Raises BadUpdate where the rule's bounds do not fit the ring."""
    course, work = s.course, s.rule.task()
    task = replace(work, options={**course.local, **_measured_by(course), **work.options})
    dimension = s.rule.coordinates(len(s.state.weights))
    clip, most = s.rule.weighing(course.clip, course.max_samples, dimension, s.devices, course.bits)
    return Ask("", task, dimension, clip, most, course.bits)


def _measured_by(course: Course) -> dict[str, Option]:
    """What tiers between must know to read the figures of their sums."""
    return {} if course.classifies else {SQUARED: True}


def _prepared(s: Schedule, aux: Mapping[str, Floats], now: float) -> tuple[Schedule, list[Did]]:
    """A version with the same weights, so that no member goes on without what belongs to it."""
    state = State(s.state.weights, {**s.state.aux, **aux})
    s = replace(s, state=state, version=s.version + 1, waits=False)
    published = _publication(s, 0, 0, s.finished)
    s, more = _next(s, now)
    return s, [published, *more]


def _done(s: Schedule, e: RoundDone, now: float) -> tuple[Schedule, list[Did]]:
    plan = e.plan
    try:
        encoding = encoding_of(plan)
        if plan.apart == wire.APART:
            total = decode_apart(encoding, e.total, slots_of(plan))
        else:
            total = encoding.decode(e.total)
        if s.asking is not None and s.asking.name != CLOSING:
            return _answered(s, Answered(s.asking.name, total), now)
        shown = total if s.asking else s.rule.report(total)
        shown = shown if s.course.classifies else replace(shown, accuracy=None)
        s = _watched(s, shown)
        result = Result(plan.round, s.version, max(now - s.began, 0.0), shown)
        if s.asking is not None:
            s, did = _closed(s, s.closing)
            return s, [result, *did]
        if s.watch.bad >= s.course.diverged_rounds and s.watch.best is not None:
            return _rolled_back(s, s.watch.best, result, now)
        rule, state = s.rule.following(s.state, total)
    except BadUpdate as error:
        return _failed(s, plan.round, str(error), now)
    s = _moved(replace(s, rule=rule), state, now)
    s, did = _published(s, shown.devices, shown.samples, _enough(s, shown), now)
    return s, [result, *did]


def _watched(s: Schedule, total: Total) -> Schedule:
    course = s.course
    watch = s.watch.seen(s.version, s.state, total, course.min_gain, course.diverged_factor)
    return replace(s, watch=watch)


def _moved(s: Schedule, state: State, now: float) -> Schedule:
    """After a training round that leads to another state."""
    wake = now + s.course.pause if s.course.pause else None
    return replace(
        s,
        state=state,
        version=s.version + 1,
        done=s.done + 1,
        running=False,
        failures=0,
        wake=wake,
    )


def _published(
    s: Schedule, devices: int, samples: int, why: str, now: float
) -> tuple[Schedule, list[Did]]:
    """Hand the state out, and go on: with the next round, or with the end for `why`."""
    closes = bool(why) and s.course.release == "best"
    if closes:
        task = Task(MEASURE, _measured_by(s.course))
        measure = Ask(CLOSING, task, 1, 1.0, s.course.max_samples, s.course.bits)
        s = replace(s, closing=why, asking=measure, tries=0)
    else:
        s = replace(s, finished=why)
    publish = _publication(s, devices, samples, s.finished)
    if s.finished:
        return s, [publish, Finished(why)]
    s, more = _next(s, now)
    return s, [publish, *more]


def _rolled_back(s: Schedule, best: Best, result: Result, now: float) -> tuple[Schedule, list[Did]]:
    """Go on from the best version with nothing remembered, and at half the rate."""
    watch = s.watch
    why = (
        f"diverged: a loss of {result.total.loss if result.total else None:.4g} after {watch.bad} "
        f"rounds above {s.course.diverged_factor:g} times the lowest, {watch.lowest:.4g}; "
        f"going on from version {best.version}"
    )
    watch = replace(watch, bad=0, stale=0, rollbacks=watch.rollbacks + 1)
    s = _moved(replace(s, watch=watch, rule=s.rule.recall({})), best.state, now)
    enough = f"{s.done} rounds done" if s.done >= s.course.rounds else ""
    if watch.rollbacks > MAX_ROLLBACKS:
        enough = f"it has diverged {watch.rollbacks} times; version {best.version} was the best"
    s, did = _published(s, 0, 0, enough, now)
    return s, [replace(result, reason=why), *did]


def _closed(s: Schedule, why: str) -> tuple[Schedule, list[Did]]:
    """The end of a run that releases its best version, the last one measured or not."""
    best = s.watch.best
    state = s.state
    if best is not None and best.version != s.version:
        state, why = best.state, f"{why}; version {best.version}, the best, is released"
    s = replace(s, asking=None, running=False, failures=0, tries=0, closing="", finished=why)
    s = replace(s, state=state, version=s.version + 1)
    return s, [_publication(s, 0, 0, why), Finished(why)]


def _answered(s: Schedule, answer: Answered, now: float) -> tuple[Schedule, list[Did]]:
    s = replace(s, asking=None, running=False, failures=0, tries=0)
    s, more = _next(s, now)
    return s, [answer, *more]


def _enough(s: Schedule, total: Total) -> str:
    course = s.course
    if over := s.rule.over():
        return over
    if s.done >= course.rounds:
        return f"{s.done} rounds done"
    target = course.target_accuracy
    if target is not None and total.accuracy is not None and total.accuracy >= target:
        return f"accuracy {total.accuracy:.4f} has reached the target {target:g}"
    error = rmse_of(total, course.classifies)
    if course.target_rmse is not None and error is not None and error <= course.target_rmse:
        return f"RMSE {error:.4g} has reached the target {course.target_rmse:g}"
    if course.patience is not None and s.watch.stale >= course.patience:
        return f"the loss has not fallen by {course.min_gain:g} for {s.watch.stale} rounds"
    return ""


def rmse_of(total: Total, classifies: bool) -> float | None:
    """Of a regression, whose devices measure the mean squared error."""
    return None if classifies or total.loss is None else math.sqrt(total.loss)


def _failed(s: Schedule, round_: int, reason: str, now: float) -> tuple[Schedule, list[Did]]:
    if not s.running or round_ != s.ordered:
        return s, []
    if s.asking is not None and s.tries + 1 >= TRIES:
        if s.asking.name == CLOSING:
            return _closed(s, f"{s.closing}; the last version was not measured: {reason}")
        return _answered(s, Answered(s.asking.name, None, reason), now)
    result = Result(round_, s.version, max(now - s.began, 0.0), None, reason)
    wake = now + _backoff(s)
    s = replace(s, running=False, failures=s.failures + 1, tries=s.tries + 1, wake=wake)
    return s, [result]


def _backoff(s: Schedule) -> float:
    doubled: int = 2 ** min(s.failures, 10)
    return min(0.2 * doubled, MAX_BACKOFF_S)


def model_of(s: Schedule, devices: int, samples: int, finished: str) -> wire.Model:
    """The message that publishes the current state."""
    params = to_bytes(s.state.weights)
    aux = {name: to_bytes(vector) for name, vector in sorted(s.state.aux.items())}
    return wire.Model(
        version=s.version,
        round=s.ordered,
        digest=digest(params, aux),
        params=params,
        aux=tuple(aux.items()),
        devices=devices,
        samples=samples,
        final=int(bool(finished)),
    )
