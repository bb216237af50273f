"""The root's schedule: which round runs when, what its sum makes of the model, and when to stop.

Rounds follow each other as long as children are keyed. A failed one is tried again with whoever is
left after a pause that doubles up to a bound. The run ends at `rounds` done, at `target_accuracy`,
or when the loss has not fallen by `min_gain` for `patience` rounds.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from edgechoir import wire
from edgechoir.errors import BadUpdate
from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.fedavg import fedavg
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import Membership, Order, RoundDone, RoundFailed, Tick
from edgechoir.types import Floats

MAX_BACKOFF_S = 30.0


@dataclass(frozen=True, slots=True)
class Course:
    """What the operator asks of a run. Times in seconds; a model that does not classify has no
    accuracy."""

    rounds: int = 30
    deadline: float = 60.0
    pause: float = 0.0
    target_accuracy: float | None = None
    patience: int | None = None
    min_gain: float = 1e-3
    epochs: int = 1
    batch_size: int = 32
    learning_rate: float = 0.05
    clip: float = 1.0
    max_samples: int = 10_000
    bits: int = 32
    seed: int = 0
    classifies: bool = True


@dataclass(frozen=True, slots=True)
class Result:
    """One round as the root knows it. The means describe the model the round began with."""

    round: int
    version: int
    seconds: float
    total: Total | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Publish:
    """A new global model for all tiers."""

    model: wire.Model
    weights: Floats


@dataclass(frozen=True, slots=True)
class Finished:
    """No further round follows."""

    reason: str


@dataclass(frozen=True, slots=True)
class Schedule:
    """The whole state. `round` is the last one spent, here or by a child, `ordered` the last one
    ordered; `done` counts the rounds that gave a sum; `wake` is when a Tick is due."""

    course: Course
    weights: Floats
    version: int = 0
    round: int = 0
    done: int = 0
    devices: int = 0
    running: bool = False
    began: float = 0.0
    failures: int = 0
    best_loss: float = float("inf")
    stale: int = 0
    finished: str = ""
    wake: float | None = None
    ordered: int = 0


Did = Order | Publish | Result | Finished
Happened = Membership | RoundDone | RoundFailed | Tick


def start(schedule: Schedule) -> Publish:
    """The model the run begins with, so that all devices begin alike."""
    return Publish(model_of(schedule, 0, 0, ""), schedule.weights)


def step(s: Schedule, event: Happened, now: float) -> tuple[Schedule, list[Did]]:
    """Advance by one event."""
    match event:
        case Membership(_, _, devices, last_round):
            s = replace(s, devices=devices, round=max(s.round, last_round))
            return _next(s, now)
        case RoundDone():
            return _done(s, event, now)
        case RoundFailed(round_, reason):
            return _failed(s, round_, reason, now)
        case Tick():
            return _next(s, now)


def _next(s: Schedule, now: float) -> tuple[Schedule, list[Did]]:
    course = s.course
    # A pause that is longer than any: the clock has been set back meanwhile.
    pausing = s.wake is not None and now < s.wake <= now + max(course.pause, MAX_BACKOFF_S)
    if s.running or s.finished or not s.devices or pausing:
        return s, []
    following = s.round + 1
    s = replace(s, round=following, ordered=following, running=True, began=now, wake=None)
    order = Order(
        round=s.round,
        model_version=s.version,
        model_hash=digest(s.weights),
        dimension=len(s.weights),
        devices=s.devices,
        clip=course.clip,
        max_samples=course.max_samples,
        bits=course.bits,
        epochs=course.epochs,
        batch_size=course.batch_size,
        learning_rate=course.learning_rate,
        seed=course.seed + s.round,
        deadline=course.deadline,
    )
    return s, [order]


def _done(s: Schedule, e: RoundDone, now: float) -> tuple[Schedule, list[Did]]:
    plan = e.plan
    try:
        encoding = encoding_of(plan)
        total = encoding.decode(e.total)
        weights = fedavg(s.weights, total.delta)
    except BadUpdate as error:
        return _failed(s, plan.round, str(error), now)
    if not s.course.classifies:
        total = replace(total, accuracy=None)
    result = Result(plan.round, s.version, max(now - s.began, 0.0), total)
    loss, stale = total.loss, s.stale
    if loss is not None:  # without hold-out rows there is nothing to lose patience with
        stale = 0 if loss < s.best_loss - s.course.min_gain else stale + 1
    s = replace(
        s,
        weights=weights,
        version=s.version + 1,
        done=s.done + 1,
        running=False,
        failures=0,
        best_loss=s.best_loss if loss is None else min(s.best_loss, loss),
        stale=stale,
        wake=now + s.course.pause if s.course.pause else None,
    )
    why = _enough(s, total)
    s = replace(s, finished=why)
    did: list[Did] = [
        result,
        Publish(model_of(s, total.devices, total.samples, why), weights),
    ]
    if why:
        return s, [*did, Finished(why)]
    s, more = _next(s, now)
    return s, did + more


def _enough(s: Schedule, total: Total) -> str:
    course = s.course
    if s.done >= course.rounds:
        return f"{s.done} rounds done"
    target = course.target_accuracy
    if target is not None and total.accuracy is not None and total.accuracy >= target:
        return f"accuracy {total.accuracy:.4f} has reached the target {target:g}"
    if course.patience is not None and s.stale >= course.patience:
        return f"the loss has not fallen by {course.min_gain:g} for {s.stale} rounds"
    return ""


def _failed(s: Schedule, round_: int, reason: str, now: float) -> tuple[Schedule, list[Did]]:
    if not s.running or round_ != s.ordered:
        return s, []
    result = Result(round_, s.version, max(now - s.began, 0.0), None, reason)
    pause = min(0.2 * 2**s.failures, MAX_BACKOFF_S)
    s = replace(s, running=False, failures=s.failures + 1, wake=now + pause)
    return s, [result]


def digest(weights: Floats) -> bytes:
    """SHA-256 of the weights [d] as they travel: float32, little-endian."""
    return hashlib.sha256(np.ascontiguousarray(weights, dtype="<f4").tobytes()).digest()


def model_of(s: Schedule, devices: int, samples: int, finished: str) -> wire.Model:
    """The message that publishes the current weights."""
    params = np.ascontiguousarray(s.weights, dtype="<f4").tobytes()
    sha256 = hashlib.sha256(params).digest()
    final = int(bool(finished))
    return wire.Model(s.version, s.round, sha256, params, devices, samples, final)
