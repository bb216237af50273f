"""Node, edge cloud and cloud: the same host, with a parent or, at the root, with the schedule."""

import asyncio
import logging
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np

from edgechoir import wire
from edgechoir.config.tiers import CloudConfig, EdgeCloudConfig, NodeConfig
from edgechoir.errors import BadModel, BadUpdate, LocalError, OperatorError, RemoteError
from edgechoir.learning.fixed_point import Total
from edgechoir.learning.rules.private import Private
from edgechoir.learning.rules.rule import Rule
from edgechoir.learning.search import Score
from edgechoir.learning.statistics.inquiry import Asked, Model, Reply
from edgechoir.monitor.records import Metrics
from edgechoir.rounds.endpoint import ModelArrived, Outcome, Outgoing
from edgechoir.rounds.events import (
    Membership,
    ModelHeld,
    Order,
    RoundDone,
    RoundFailed,
    Tick,
    Work,
)
from edgechoir.rounds.figures import Cohort, cohort_of
from edgechoir.rounds.schedule import (
    Anew,
    Answered,
    Ask,
    Begun,
    Did,
    Finished,
    Happened,
    Prepared,
    Publish,
    Result,
    Schedule,
    rmse_of,
    start,
)
from edgechoir.rounds.schedule import step as step_schedule
from edgechoir.store.rounds import RoundHistory
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.host import Host
from edgechoir.tiers.models import ROUNDS_DONE, Held, keep, latest, read_model
from edgechoir.tiers.pursuit import pursue
from edgechoir.tiers.trace import Trace
from edgechoir.types import Floats

log: Final = logging.getLogger(__name__)

PREPARE_AGAIN_S: Final = 2.0
"""Pause before mean and deviation are asked for once more."""


class Tried:
    """A trial under way: how the model does after each round, and at the end."""

    def __init__(
        self, name: str, seen: Callable[[Score], None], *, leads_back: bool = False
    ) -> None:
        self.name = name
        self._leads_back = leads_back
        self.begun = asyncio.Event()
        self.score: asyncio.Future[Score] = asyncio.get_running_loop().create_future()
        self._seen = seen
        self._last = Score(reason="no round gave a sum")

    @property
    def label(self) -> str | None:
        """What a round that ends now is a trial of."""
        return self.name if self.begun.is_set() != self._leads_back else None

    def result(self, result: Result, figures: Mapping[str, float | None]) -> None:
        """A round of it is over."""
        if not self.begun.is_set():
            return
        if result.total is None:
            self._seen(Score(reason=result.reason))
            return
        self._last = Score(figures["accuracy"], figures["loss"])
        self._seen(self._last)

    def ended(self, reason: str) -> None:
        """No round of it follows."""
        if not self.score.done():
            self.score.set_result(replace(self._last, reason=reason))


class AggregatorTier:
    """A tier with children. `schedule` and `subject`, what is known of the model, are there at the
    root and nowhere else."""

    def __init__(
        self,
        config: NodeConfig | EdgeCloudConfig | CloudConfig,
        versions: ModelVersions,
        schedule: Schedule | None,
        subject: Model | None = None,
        preparation: Callable[[], Generator[Asked, Reply, dict[str, Floats]]] | None = None,
        history: RoundHistory | None = None,
    ) -> None:
        self.config = config
        self.host: Host
        self._versions = versions
        self._schedule = schedule
        self.subject = subject
        self._preparation = preparation
        self._history = history
        self._held: Held | None = None
        self._outcome = ""
        self._reason = ""
        self._began = 0.0
        self._seconds = 0.0
        self._measures: Cohort | None = None
        self._members: tuple[str, ...] = ()
        self._survivors: tuple[str, ...] = ()
        self._bytes = (0, 0)
        self._publishing: asyncio.Task[None] | None = None
        self._asked: dict[str, asyncio.Future[Answered]] = {}
        self._tried: Tried | None = None
        directory = (
            None if isinstance(config, CloudConfig) or config.trace is None else config.trace
        )
        self._trace = None if directory is None else Trace(directory.directory)

    async def run(self) -> None:
        """Serve until cancelled."""
        if self._trace is not None:
            self.host.tap = self._record
        async with asyncio.TaskGroup() as group:
            group.create_task(self.host.run(), name="host")
            await self.host.alone.wait()
            kept = latest(self._versions)
            if self._schedule is not None:
                self._did(start(self._schedule))
                if self._schedule.waits:
                    group.create_task(self._prepare(), name="prepare")
            elif kept is not None:
                self._held = kept
                self.host.happen(ModelHeld(kept.version, kept.digest))

    def handle(self, outcome: Outcome) -> None:
        """What the state machines ask of, or tell, a tier with children."""
        match outcome:
            case ModelArrived(model, envelope):
                self._model(model, envelope)
            case Work():
                self._begin()
            case RoundDone(plan, survivors, total):
                self._survivors = survivors
                self._end("done", "", plan.round)
                if self._schedule is None:
                    self._measures = cohort_of(plan, total) or self._measures
            case RoundFailed(round_, reason):
                self._end("failed", reason, round_)
            case Membership(_, members, _, _):
                self._members = members
            case _:
                pass
        if isinstance(outcome, RoundDone | RoundFailed | Membership):
            self._move(outcome)

    def _record(self, envelope: bytes) -> None:
        down = self.host.endpoint.joint.down
        if self._trace is None or down is None or down.kem is None or down.turn is None:
            return
        encoding = down.turn.encoding
        self._trace.write_masked(envelope, down.who.verifier, down.kem, encoding, time.time())

    def _begin(self) -> None:
        self._began = time.time()
        self._bytes = (self.host.letters.sent, self.host.received)

    def _end(self, outcome: str, reason: str, round_: int) -> None:
        self._outcome, self._reason = outcome, reason
        self._seconds = time.time() - self._began if self._began else 0.0
        if reason:
            log.warning("round %d failed: %s", round_, reason)
        else:
            log.info("round %d done in %.2f s", round_, self._seconds)

    def _model(self, model: wire.Model, envelope: bytes) -> None:
        """Take a model from above, and hand it on as it came."""
        if self._schedule is not None:
            return
        try:
            held = read_model(model, self._held)
        except RemoteError as error:
            self.host.refuse(error)
            return
        if held is None:
            return
        self._held = held
        self.host.letters.put(Outgoing("model", "", envelope))
        self.host.spawn(self._keep(held), "keep model")
        self.host.happen(ModelHeld(held.version, held.digest))

    async def _keep(self, held: Held) -> None:
        try:
            await asyncio.to_thread(keep, self._versions, held, {})
        except BadModel as error:
            self.host.refuse(error)
        except OperatorError as error:  # the parent has it still, for the next start
            log.error("%s", error)

    # ---- the root's schedule

    async def ask(self, ask: Ask) -> Answered:
        """(root) Run one round of another task; its mean, or why there is none."""
        if self._schedule is None or ask.name in self._asked:
            raise LocalError(f"{ask.name!r} is asked already, or this tier has no schedule")
        answer: asyncio.Future[Answered] = asyncio.get_running_loop().create_future()
        self._asked[ask.name] = answer
        try:
            self._move(ask)
            return await answer
        finally:
            self._asked.pop(ask.name, None)

    async def _prepare(self) -> None:
        """(root) Find what belongs to the model before it is trained, for as long as it takes."""
        if self._preparation is None:
            raise LocalError("a run that waits needs to know what to ask")
        attempt = 0
        while True:
            attempt += 1
            try:
                aux = await pursue(self._preparation(), self.ask, f"preparation-{attempt}")
                break
            except (OperatorError, BadUpdate) as error:
                log.warning("training waits for statistics that there are not yet: %s", error)
                await asyncio.sleep(PREPARE_AGAIN_S)
        log.info("training begins with %s of all devices' rows", " and ".join(aux))
        self._move(Prepared(aux))

    @property
    def schedule(self) -> Schedule:
        """(root) The run as it is."""
        if self._schedule is None:
            raise LocalError("this tier has no schedule")
        return self._schedule

    async def try_out(self, name: str, anew: Anew, seen: Callable[[Score], None]) -> Score:
        """(root) Let the run go on as `anew` says until it ends, and say how it did.

        `seen` is called with how it does after each round. Whoever calls this leads the run back.
        """
        if self._tried is not None:
            raise LocalError(f"{self._tried.name} is being tried out")
        self._tried = tried = Tried(name, seen)
        try:
            self._move(anew)
            return await tried.score
        finally:
            self._tried = None

    async def lead_back(self, anew: Anew, back: str) -> None:
        """(root) Go on as `anew` says, and return once all that is on its way. A round that runs
        still is one of the trial `back`."""
        self._tried = tried = Tried(back, lambda score: None, leads_back=True)
        try:
            self._move(anew)
            await tried.begun.wait()
        finally:
            self._tried = None
        if self._publishing is not None:
            await asyncio.shield(self._publishing)

    def devices(self) -> int:
        """(root) How many devices take part now."""
        return 0 if self._schedule is None else self._schedule.devices

    def _answer(self, answered: Answered) -> None:
        waiting = self._asked.get(answered.name)
        if waiting is not None and not waiting.done():
            waiting.set_result(answered)

    def _move(self, event: Happened) -> None:
        if self._schedule is None:
            return
        self._schedule, did = step_schedule(self._schedule, event, time.time())
        for one in did:
            self._did(one)
        self.host.set_alarm("schedule", self._schedule.wake, lambda: self._move(Tick()))

    def _did(self, one: Did) -> None:
        match one:
            case Order():
                self._begin()
                self.host.spawn(self._order(one), f"round {one.round}")
            case Publish(model, state, rule, done):
                self._held = Held(model.version, model.digest, state.weights, state.aux)
                envelope = self.host.endpoint.sign(model)
                self._publishing = self.host.spawn(
                    self._publish(self._held, envelope, rule, done), "publish model"
                )
            case Result():
                figures = self._figures(one.total)
                if one.total is not None:
                    self._measures = Cohort(one.round, **figures)
                sent, received = self.host.letters.sent, self.host.received
                moved = (sent - self._bytes[0], received - self._bytes[1])
                metrics = self._metrics(one, moved, figures)
                self.host.spawn(self._report(one, metrics, self._sound(one)), "report")
                if one.total is not None and one.reason:
                    log.warning("round %d: %s", one.round, one.reason)
                    self._outcome, self._reason = "diverged", one.reason
                if self._tried is not None:
                    self._tried.result(one, figures)
            case Answered():
                self._answer(one)
            case Begun():
                if self._tried is not None:
                    self._tried.begun.set()
            case Finished(reason):
                log.info("the run is over: %s", reason)
                if self._tried is not None and self._tried.begun.is_set():
                    self._tried.ended(reason)

    async def _publish(self, held: Held, envelope: bytes, rule: Rule, done: int) -> None:
        """Hand a version out only once it is kept.

        No member goes back to an older one, so a cloud that had forgotten it could never go on.
        """
        memory = {**rule.remember(), ROUNDS_DONE: np.array([done], np.float32)}
        await asyncio.to_thread(keep, self._versions, held, {}, memory)
        self.host.letters.put(Outgoing("model", "", envelope))

    async def _order(self, order: Order) -> None:
        """Begin a round only once its model is on its way, and its number written down as used."""
        if self._publishing is not None:
            await self._publishing
        await asyncio.to_thread(
            self.host.journal.mark_round_used,
            self.config.federation,
            order.round,
            order.round,
            0,
            b"",
        )
        self.host.happen(order)

    def _sound(self, result: Result) -> bool:
        """Whether the version of a round has not diverged."""
        return not result.reason and self._schedule is not None and not self._schedule.watch.bad

    async def _measured(self, result: Result, sound: bool) -> None:
        """Remember how the version that a round began with does."""
        figures = self._figures(result.total)
        known = {name: value for name, value in figures.items() if value is not None}
        if result.total is not None and known:
            try:
                await asyncio.to_thread(
                    self._versions.measured, result.version, known, time.time(), sound=sound
                )
            except OperatorError as error:  # the run goes on all the same
                log.error("%s", error)

    def _figures(self, total: Total | None) -> dict[str, float | None]:
        if total is None or self._schedule is None:
            return {"accuracy": None, "loss": None, "rmse": None}
        rmse = rmse_of(total, self._schedule.course.classifies)
        return {"accuracy": total.accuracy, "loss": total.loss, "rmse": rmse}

    def _metrics(
        self, result: Result, moved: tuple[int, int], figures: dict[str, float | None]
    ) -> Metrics:
        """What came of a round, as it is published and kept."""
        total, privacy = result.total, self._privacy()
        trial = None if self._tried is None else self._tried.label
        rule = self.config.rule.name if isinstance(self.config, CloudConfig) else None
        outcome = "failed" if total is None else "diverged" if result.reason else "done"
        return Metrics(
            federation=self.config.federation,
            tier=self.config.tier,
            member=self.config.member,
            round=result.round,
            at=time.time(),
            version=result.version,
            outcome=outcome,
            reason=result.reason or None,
            accuracy=figures["accuracy"],
            loss=figures["loss"],
            rmse=figures["rmse"],
            members=0 if total is None else len(self._survivors),
            expected=len(self._members),
            devices=0 if total is None else total.devices,
            samples=0 if total is None else total.samples,
            clipped_share=None if total is None else total.clipped_share,
            seconds=result.seconds,
            bytes_up=moved[1],
            bytes_down=moved[0],
            trial=trial,
            rule=None if trial else rule,
            epsilon=None if privacy is None else privacy["epsilon"],
            final=self._schedule is not None and bool(self._schedule.finished),
            ended=None if self._schedule is None else self._schedule.finished or None,
        )

    async def _report(self, result: Result, metrics: Metrics, sound: bool) -> None:
        if metrics.trial is None:
            await self._measured(result, sound)
        if self._history is not None:
            try:
                await asyncio.to_thread(self._history.add, metrics.to_json())
            except OperatorError as error:  # the run goes on all the same
                log.error("%s", error)
        await self.host.publish_json("metrics", metrics.to_json(), qos=1)

    # ---- status

    def describe(self) -> dict[str, Any]:
        """The tier's own part of its status."""
        down = self.host.endpoint.joint.down
        phase = "" if down is None else down.phase.value
        if self._schedule is not None and self._schedule.finished:
            phase = f"finished: {self._schedule.finished}"
        held = self._held
        return {
            "model": None
            if held is None
            else {
                "version": held.version,
                "sha256": held.digest.hex()[:16],
                **self._quality(),
            },
            "privacy": self._privacy(),
            "round": {
                "number": 0 if down is None else down.last_round,
                "epoch": 0 if down is None else down.epoch,
                "phase": phase,
                "members": len(self._members),
                "expected": self._expected(),
                "last_outcome": self._outcome or None,
                "reason": self._reason or None,
                "seconds": self._seconds,
            },
        }

    def _quality(self) -> dict[str, Any]:
        """How the version before this one did beneath, and which has done best."""
        best = None if self._schedule is None else self._schedule.watch.best
        seen = self._measures
        return {
            "accuracy": None if seen is None else seen.accuracy,
            "rmse": None if seen is None else seen.rmse,
            "loss": None if seen is None else seen.loss,
            "measured_in": None if seen is None else seen.round,
            "best_version": None if best is None else best.version,
            "rollbacks": None if self._schedule is None else self._schedule.watch.rollbacks,
        }

    def _privacy(self) -> dict[str, Any] | None:
        """(root) What the run has cost a device that was in every round."""
        rule = None if self._schedule is None else self._schedule.rule
        if not isinstance(rule, Private):
            return None
        return {
            "epsilon": rule.epsilon,
            "delta": rule.delta,
            "max_epsilon": rule.max_epsilon,
            "required": True,
            "rounds": round(rule.spent * 2 * rule.z**2),
        }

    def _expected(self) -> int | None:
        down = self.host.endpoint.joint.down
        return None if down is None or down.turn is None else len(down.turn.plan.cohort)
