"""A device: the sensor stream and its answers, and training beside them.

The stream runs from the first second, whether or not there is a broker, a node or a model newer
than the one it started with. A round only borrows what the stream has stored: its samples are
trained on in a process of their own, and the model that comes back is built beside the one that
answers and then exchanged. Layers that the bundle names personal stay here: a global model has none
of them, and what they learn changes the answers as soon as the training is over.
"""

import asyncio
import hashlib
import logging
import math
import os
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from edgechoir import wire
from edgechoir.bundle.load import Bundle
from edgechoir.config.tiers import DeviceConfig
from edgechoir.errors import (
    BadModel,
    BadSample,
    InferenceError,
    OperatorError,
    PolicyViolation,
    RemoteError,
    TrainingError,
)
from edgechoir.inference.candidate import Candidate, fingerprint
from edgechoir.inference.prediction import Output
from edgechoir.inference.predictor import Predictor
from edgechoir.inference.waiting import WhenFull
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.rules.distil import Distil
from edgechoir.learning.state import State, digest_of
from edgechoir.monitor.records import PredictionRecord
from edgechoir.pipeline.run import Pipeline
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sink import Sink
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.rounds.endpoint import ModelArrived, Outcome
from edgechoir.rounds.events import (
    Abandon,
    Begin,
    Contribution,
    ModelHeld,
    NoContribution,
    Work,
)
from edgechoir.rounds.participant import honest_survivors
from edgechoir.store.journal import RoundJournal
from edgechoir.store.samples import SampleStore
from edgechoir.store.vectors import KeptVectors
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.consent import WITHDRAWN, Gate
from edgechoir.tiers.contribution import contribution, cost_of, private_terms
from edgechoir.tiers.desk import Examples
from edgechoir.tiers.distil import own_model, shared_set
from edgechoir.tiers.ditto import answering
from edgechoir.tiers.examples import ExampleAccount, check_covered
from edgechoir.tiers.host import Host
from edgechoir.tiers.ledger import Ledger, Owner
from edgechoir.tiers.models import Held, keep, latest, read_model
from edgechoir.tiers.pending import settle
from edgechoir.tiers.personal import PersonalLayers
from edgechoir.tiers.recent import Recent
from edgechoir.tiers.statistics import preparation_of
from edgechoir.tiers.stream import flow_of, keeps_gaps
from edgechoir.tiers.trace import Trace
from edgechoir.tiers.work import Desk, do, do_privately
from edgechoir.tiers.yielding import yield_to_answers
from edgechoir.training.account import MISSING
from edgechoir.training.account import available as accountable
from edgechoir.training.trainer import Trainer, available
from edgechoir.types import Floats

log: Final = logging.getLogger(__name__)

ANSWER_S: Final = 300.0
"""Seconds that a statistic waits for the model to answer its rows."""
JUDGES: Final = 50
"""Rows held out that it takes to say that a model does worse."""
MOST_JUDGES: Final = 512
"""The newest ones are asked, at most so many."""
MAX_ROWS: Final = 64
"""Steps named in a status document; `edgechoir pipeline list` has all."""


class Device:
    """One device's work; `host` carries its messages."""

    def __init__(
        self,
        config: DeviceConfig,
        bundle: Bundle,
        samples: SampleStore,
        versions: ModelVersions,
        vectors: KeptVectors | None = None,
    ) -> None:
        """`vectors` keeps what a rule leaves here and the personal layers, and is there where this
        device trains or has such layers."""
        self.config = config
        self.host: Host
        self._bundle = bundle
        self._samples = samples
        self._versions = versions
        self._vectors = vectors
        kept = latest(versions)
        self._layers = PersonalLayers(bundle, vectors)
        shared = self._layers.shared
        manifest = bundle.manifest
        self._shared = shared_set(config.training.shared, manifest.input_shape)
        self._own = answering(vectors, manifest.size)
        if self._shared is not None:  # the federation's is a teacher, the model is this device's
            shared = Distil(len(self._shared) * len(manifest.outputs)).first().weights
            self._own = own_model(vectors, bundle.params)
        first = Held(0, digest_of(State(shared)), shared)
        self._held = first if kept is None else kept
        self._started_with_bundle = kept is None
        self._gaps = keeps_gaps(config)
        classes = bundle.manifest.task == "classification"
        self.predictor = Predictor(
            bundle.onnx,
            self._params(self._held, self._layers.own, self._own),
            self._held.version,
            shape=bundle.manifest.input_shape,
            output=Output.LOGITS if classes else Output.VALUES,
            prepare=preparation_of(bundle.manifest, self._held.aux, gaps=self._gaps),
            deadline=config.inference.deadline_ms / 1e3,
            providers=config.inference.providers or None,
            batch=config.inference.batch_ms / 1e3,
            bound=config.inference.waiting,
            when_full=WhenFull(config.inference.when_full),
        )
        self._held_back = 0
        self._loop: asyncio.AbstractEventLoop
        self._recent = Recent(
            config.predictions.recent, bundle.manifest.input_shape, len(bundle.manifest.outputs)
        )
        self.sinks = self._sinks()
        self.pipeline = Pipeline(flow_of(config, self.predictor, self.sinks, self._store))
        # Trees need no torch: numpy adds up their histograms.
        trees = bundle.manifest.trees is not None
        self._trains = config.training.enabled and (trees or available())
        self._trainer = (
            Trainer(
                config.model.bundle,
                idle_timeout=config.training.idle_timeout_s,
                memory_limit_mb=config.training.memory_mb,
                threads=config.training.threads,
            )
            if self._trains and not trees
            else None
        )
        self.ledger: Ledger
        self.examples: ExampleAccount | None = None
        self._trace = None if config.trace is None else Trace(config.trace.directory)
        self._consent = Gate(config.consent, config.state)
        self._measures: tuple[int, Figures] | None = None
        self._job: asyncio.Task[None] | None = None
        self._published = 0.0
        self._mark = (0, 0)
        self._moved: tuple[int, int] | None = None
        self._swap = asyncio.Lock()
        self._enough = asyncio.Event()
        if self._has_enough():
            self._enough.set()

    def _sinks(self) -> list[Sink]:
        sinks: list[Sink] = []
        if self.config.predictions.publish:
            sinks.append(CallbackSink("publish", self._publish))
        if self.config.predictions.recent:
            sinks.append(self._recent)
        return sinks

    # ---- the stream

    async def run(self) -> None:
        """Stream, and take part in rounds, until the source ends or the task is cancelled."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self.host.run(), name="host")]
                if self._trains:
                    taking_part = self._take_part(self._trainer)
                    beside.append(group.create_task(taking_part, name="take part"))
                if self._trainer is not None:
                    budget = self.config.training.p99_budget_ms / 1e3
                    yielding = yield_to_answers(self._trainer, self.predictor, budget)
                    beside.append(group.create_task(yielding, name="yield"))
                await self.pipeline.run()
                log.info("the source has ended")
                for task in beside:
                    task.cancel()
        finally:
            if self._trainer is not None:
                await self._trainer.close()
            self.predictor.close()

    async def _publish(self, sample: Sample) -> None:
        now = time.monotonic()
        if now - self._published < 1.0 / self.config.predictions.max_rate_hz:
            return
        self._published = now
        prediction = sample.answer
        if prediction is None:
            return
        record = PredictionRecord(
            federation=self.config.federation,
            tier="device",
            member=self.config.member,
            at=sample.time,
            key=sample.key,
            version=prediction.version,
            label=prediction.label,
            confidence=prediction.confidence,
            values=() if prediction.label is not None else tuple(prediction.values.tolist()),
            latency_ms=round(prediction.seconds * 1e3, 4),
        )
        await self.host.publish_json("predictions", record.to_json())

    async def _store(self, samples: Sequence[Sample]) -> None:
        """Keep labelled samples; one that comes again (a replay in a loop) is kept once."""
        now = time.time()
        due = False
        for sample in samples:
            if sample.y is None:
                continue
            y = sample.y
            key = hashlib.blake2b(sample.x.tobytes() + repr(y).encode(), digest_size=16).hexdigest()
            label = int(y) if self._classes else np.array([y], np.float32)
            try:
                due |= self._samples.add(sample.x, label, now, key)
            except BadSample as error:
                self.host.endpoint.drops[error.reason] += 1
        # Until it is flushed, what came again still counts twice.
        if due or (self._has_enough() and not self._enough.is_set()):
            await asyncio.to_thread(self._samples.flush, now)
            if self._has_enough():
                self._enough.set()

    def _has_enough(self) -> bool:
        return len(self._samples) >= self.config.training.min_samples

    @property
    def _classes(self) -> bool:
        return self._bundle.manifest.task == "classification"

    # ---- rounds

    async def _take_part(self, trainer: Trainer | None) -> None:
        """Join as soon as there is something to train on; torch is imported meanwhile."""
        await self.host.alone.wait()
        try:
            if trainer is not None:
                await trainer.warm()
        except TrainingError as error:
            self._trains = False
            log.error("this device infers but does not train: %s", error)
            return
        await self._enough.wait()
        last = self.host.journal.last_round(self.config.federation)
        self.host.happen(ModelHeld(self._held.version, self._held.digest))
        self.host.happen(Begin(1, last))

    def handle(self, outcome: Outcome) -> None:
        """What the state machines ask of a device."""
        match outcome:
            case Work(plan):
                self._start_job(plan)
            case ModelArrived(model):
                self.host.spawn(self._exchange(model), "model exchange")
            case Abandon(round_, reason):
                log.info("round %d is given up: %s", round_, reason)
            case _:
                pass

    def _start_job(self, plan: wire.Plan) -> None:
        mark = (self.host.letters.sent, self.host.received)
        if self._job is not None:
            self._moved = (mark[0] - self._mark[0], mark[1] - self._mark[1])
        self._mark = mark
        if self._job is not None and not self._job.done():
            self._job.cancel()
        self._job = self.host.spawn(self._work(plan), f"round {plan.round}")

    async def _work(self, plan: wire.Plan) -> None:
        desk = Desk(
            self._bundle,
            self._held,
            self._samples,
            self._trainer,
            self._answer,
            self._recent.arrays if self.config.predictions.recent else None,
            self._vectors,
            self._examples(),
            self._layers.own,
            self._shared,
        )
        try:
            decision = await asyncio.to_thread(self._consent.decide, plan)
            self.host.account.consent(plan.round, decision)
            if decision.reason:
                raise PolicyViolation(decision.reason)
            rho, honest = self._cost(plan)
            self.ledger.check(rho)
            if self.config.privacy.example_clip is not None:
                check_covered(decision.task)
            piece = await (do(desk, plan) if rho is None else do_privately(desk, plan))
            vector = contribution(plan, piece, honest, os.urandom)
            if rho is None and piece.figures.held_out:
                self._measures = plan.round, piece.figures
            if await asyncio.to_thread(self._consent.withdrawn):
                raise PolicyViolation(WITHDRAWN)
            await asyncio.to_thread(self.ledger.charge, rho)
        except (TrainingError, RemoteError, OperatorError) as error:
            log.warning("round %d: %s", plan.round, error)
            self.host.happen(NoContribution(plan.round, str(error)))
            return
        if self._trace is not None:
            self._trace.write("true", str(self.config.member), vector)
        self.host.happen(Contribution(plan.round, vector))
        if piece.personal is not None:
            await self._personalise(piece.personal, plan.round)
        if piece.own is not None:
            await self._answer_with(piece.own.vector if piece.own.answers else None)

    def open_accounts(self, journal: RoundJournal) -> None:
        """What this device has given of its privacy so far. Raises OperatorError."""
        privacy, federation = self.config.privacy, self.config.federation
        owner = Owner(privacy.require, privacy.max_epsilon, privacy.delta)
        self.ledger = Ledger(journal, federation, owner)
        if privacy.example_clip is None or self._trainer is None:
            return
        if not accountable():
            raise OperatorError(MISSING)
        most = privacy.example_max_epsilon
        count = self._trainer.account
        self.examples = ExampleAccount(journal, federation, privacy.delta, most, count)

    def _examples(self) -> Examples | None:
        privacy, account = self.config.privacy, self.examples
        if privacy.example_clip is None or account is None:
            return None
        return Examples(privacy.example_clip, privacy.example_noise, account.charge)

    def _cost(self, plan: wire.Plan) -> tuple[float | None, int]:
        """rho of taking part, None for a round without noise, and how many are honest."""
        up = self.host.endpoint.joint.up
        honest = 0 if up is None else honest_survivors(up, plan)
        terms = private_terms(plan)
        return None if terms is None else cost_of(plan, terms, honest), honest

    def _answer(self, x: Floats) -> Floats:
        """The live model's outputs [n, k] for raw samples x [n, ...]; live ones go before them.
        Called in a thread."""
        answers = asyncio.run_coroutine_threadsafe(self.predictor.apredict_batch(x), self._loop)
        return np.stack([one.values for one in answers.result(ANSWER_S)])

    async def _exchange(self, model: wire.Model) -> None:
        """Put a newer global model in the place of the one that answers, or refuse it."""
        async with self._swap:
            try:
                held = read_model(model, None if self._is_first(model) else self._held)
                if held is None:
                    return
                candidate = await self._stage(held, self._layers.own, self._own)
                await self._keep(held)
            except RemoteError as error:
                self.host.refuse(error)
                return
            await self._settle(held)
            await self._put_in_place(candidate)
            self._held = held
            self._started_with_bundle = False
        self.host.happen(ModelHeld(held.version, held.digest))

    async def _personalise(self, own: Floats, round_: int) -> None:
        """Answer with what the personal layers have learnt, and keep them; or leave them alone."""
        async with self._swap:
            try:
                candidate = await self._stage(self._held, own, self._own)
            except BadModel as error:
                log.warning("the personal layers stay as they were: %s", error)
                return
            await self._put_in_place(candidate)
            try:
                await asyncio.to_thread(self._layers.put, own, round_)
            except OperatorError as error:  # used all the same, until the next start
                log.error("%s", error)

    async def _put_in_place(self, candidate: Candidate) -> None:
        """Answer with it from now on, unless it does much worse on the rows held out here."""
        worse = await asyncio.to_thread(self._worse, candidate)
        if worse is None or worse <= self.config.inference.max_worse:
            self.predictor.commit(candidate)
            return
        self._held_back += 1
        log.warning(
            "version %d does not answer here: its error on the samples held out is greater by %.3g "
            "than that of version %d, and inference.max_worse is %g",
            candidate.version,
            worse,
            self.predictor.version,
            self.config.inference.max_worse,
        )

    def _worse(self, candidate: Candidate) -> float | None:
        """How much greater its error is than the live model's; None where too few rows say."""
        x, y = self._samples.hold_out_arrays()
        if len(x) < JUDGES:
            return None
        try:
            live, new = self.predictor.compare(candidate, x[-MOST_JUDGES:], y[-MOST_JUDGES:])
        except InferenceError as error:
            log.warning("version %d was not judged: %s", candidate.version, error)
            return None
        return new - live if np.isfinite(live) else None

    async def _answer_with(self, own: Floats | None) -> None:
        """Answer with this device's own model, or, with None, with the global one again."""
        async with self._swap:
            try:
                candidate = await self._stage(self._held, self._layers.own, own)
            except BadModel as error:
                log.warning("what answers stays as it was: %s", error)
                return
            self.predictor.commit(candidate)
            self._own = own

    def _params(self, held: Held, layers: Floats, own: Floats | None) -> Floats:
        """What answers [d]: a model of this device's own, or the global one and these layers."""
        return self._layers.with_shared(held.weights, layers) if own is None else own

    async def _stage(self, held: Held, layers: Floats, own: Floats | None) -> Candidate:
        """What would answer with these. Raises BadModel."""
        params = self._params(held, layers, own)
        return await asyncio.to_thread(
            self.predictor.stage,
            params,
            held.version,
            fingerprint(params),
            preparation_of(self._bundle.manifest, held.aux, gaps=self._gaps),
        )

    async def _settle(self, held: Held) -> None:
        """What waited to hear whether its round was counted."""
        if self._vectors is None:
            return
        uploaded = self.host.journal.last_round(self.config.federation)
        try:
            await asyncio.to_thread(settle, self._vectors, held.round, uploaded)
        except OperatorError as error:  # as if it had not been counted
            log.error("%s", error)

    async def _keep(self, held: Held) -> None:
        try:
            await asyncio.to_thread(keep, self._versions, held, {})
        except OperatorError as error:  # it answers all the same, until the next start
            log.error("%s", error)

    def _is_first(self, model: wire.Model) -> bool:
        """The run's version 0 may replace the bundle's own parameters, but nothing else."""
        if not self._started_with_bundle:
            return False
        if len(model.params) != 4 * len(self._held.weights):
            raise BadModel(
                f"model of {len(model.params)} bytes for {len(self._held.weights)} weights"
            )
        return True

    # ---- status

    def describe(self) -> dict[str, Any]:
        """The device's own part of its status."""
        stats = self.pipeline.stats()
        answers = self.predictor.stats()
        up = self.host.endpoint.joint.up
        dropped = sum(stats.dropped.values())
        return {
            "model": {
                "version": self._held.version,
                "sha256": self._held.digest.hex()[:16],
                **self._quality(),
            },
            "round": None
            if up is None
            else {
                "number": up.last_round,
                "phase": up.phase.value,
                "epoch": up.epoch,
                "bytes_up": None if self._moved is None else self._moved[0],
                "bytes_down": None if self._moved is None else self._moved[1],
            },
            "inference": {
                "answered": answers.answered,
                "missed": answers.missed + dropped,
                "p50_ms": answers.p50 * 1e3,
                "p99_ms": answers.p99 * 1e3,
                "late": answers.late,
                "dropped": answers.dropped,
                "batch": answers.batch,
                "provider": answers.provider,
                "version": answers.version,
                "swaps": answers.swaps,
                "own": self._own is not None,
                "held_back": self._held_back,
                "rollbacks": answers.rollbacks,
            },
            "pipeline": [
                {
                    "name": row.name,
                    "taken": row.taken,
                    "given": row.given,
                    "dead": sum(row.dead.values()),
                    "dropped": row.dropped,
                    "mean_us": row.mean_us,
                    "paused": row.paused,
                }
                for row in self.pipeline.rows()[:MAX_ROWS]
            ],
            "privacy": {
                **self.ledger.describe(),
                "example_epsilon": None if self.examples is None else self.examples.epsilon,
            },
            "training": {
                "available": self._trains,
                "samples": len(self._samples),
                **self._training(),
            },
        }

    def _quality(self) -> dict[str, Any]:
        """How the global model does on the rows held out here, for an owner who says so."""
        if self._measures is None or not self.config.training.publish_accuracy:
            return {}
        round_, seen = self._measures
        loss = seen.loss_sum / seen.held_out
        return {
            "accuracy": seen.correct / seen.held_out if self._classes else None,
            "rmse": None if self._classes else math.sqrt(loss),
            "loss": loss,
            "measured_in": round_,
        }

    def _training(self) -> dict[str, Any]:
        if not self._trains:
            return {"state": "off"}
        busy = self._job is not None and not self._job.done()
        if self._trainer is None:  # trees
            return {"state": "working" if busy else "idle"}
        stats = self._trainer.stats
        state = "paused" if self._trainer.paused else "working" if busy else "idle"
        return {
            "state": state,
            "pauses": stats.pauses,
            "peak_mb": round(stats.peak_mb, 1),
            "fits": stats.fits,
            "seconds": round(stats.fit_seconds, 4),
        }
