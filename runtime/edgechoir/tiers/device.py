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
import os
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from edgechoir import wire
from edgechoir.bundle.load import Bundle
from edgechoir.bundle.manifest import preparation
from edgechoir.bundle.personal import compose, layout, split
from edgechoir.config.tiers import DeviceConfig
from edgechoir.errors import (
    BadModel,
    BadSample,
    BadUpdate,
    OperatorError,
    RemoteError,
    TrainingError,
)
from edgechoir.inference.candidate import Candidate, fingerprint
from edgechoir.inference.prediction import Output
from edgechoir.inference.predictor import Predictor
from edgechoir.learning.fixed_point import Figures
from edgechoir.monitor.records import PredictionRecord
from edgechoir.pipeline.declare import build_operators
from edgechoir.pipeline.run import Pipeline
from edgechoir.pipeline.sample import Check, Sample
from edgechoir.pipeline.sink import Answer
from edgechoir.pipeline.sinks.callback import CallbackSink
from edgechoir.rounds.endpoint import ModelArrived, Outcome
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import (
    Abandon,
    Begin,
    Contribution,
    ModelHeld,
    NoContribution,
    Work,
)
from edgechoir.secagg.pads import uniform
from edgechoir.store.personal import PersonalLayers
from edgechoir.store.samples import SampleStore
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.host import Host
from edgechoir.tiers.models import Held, keep, latest, read_model
from edgechoir.tiers.sensor import make_source
from edgechoir.tiers.trace import Trace
from edgechoir.training.trainer import Trainer, available
from edgechoir.types import FitPlan, Floats, Update

log: Final = logging.getLogger(__name__)


class Device:
    """One device's work; `host` carries its messages."""

    def __init__(
        self,
        config: DeviceConfig,
        bundle: Bundle,
        samples: SampleStore,
        versions: ModelVersions,
        layers: PersonalLayers | None = None,
    ) -> None:
        """`layers` keeps the personal layers, and is there where the bundle has some."""
        self.config = config
        self.host: Host
        self._bundle = bundle
        self._samples = samples
        self._versions = versions
        kept = latest(versions)
        shared, self._personal = split(bundle.manifest, bundle.params)
        self._held = Held(0, fingerprint(shared), shared) if kept is None else kept
        self._layers = layers
        stored = None if layers is None else layers.get(layout(bundle.manifest))
        if stored is not None:
            self._personal = stored
        self._started_with_bundle = kept is None
        classes = bundle.manifest.task == "classification"
        self.predictor = Predictor(
            bundle.onnx,
            self._composed(self._held.weights, self._personal),
            self._held.version,
            shape=bundle.manifest.input_shape,
            output=Output.LOGITS if classes else Output.VALUES,
            prepare=preparation(bundle.manifest),
        )
        self.pipeline = Pipeline(
            make_source(config.sensor),
            build_operators([{"op": s.op, **s.arguments} for s in config.pipeline]),
            self.predictor,
            [CallbackSink("publish", self._publish)] if config.predictions.publish else [],
            self._store,
            check=_check_of(config, bundle),
        )
        self._trains = config.training.enabled and available()
        self._trainer = (
            Trainer(config.model.bundle, idle_timeout=config.training.idle_timeout_s)
            if self._trains
            else None
        )
        self._trace = None if config.trace is None else Trace(config.trace.directory)
        self._job: asyncio.Task[None] | None = None
        self._published = 0.0
        self._mark = (0, 0)
        self._moved: tuple[int, int] | None = None
        self._swap = asyncio.Lock()
        self._enough = asyncio.Event()
        if self._has_enough():
            self._enough.set()

    # ---- the stream

    async def run(self) -> None:
        """Stream, and take part in rounds, until the source ends or the task is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(self.host.run(), name="host")]
                if self._trainer is not None:
                    taking_part = self._take_part(self._trainer)
                    beside.append(group.create_task(taking_part, name="take part"))
                await self.pipeline.run()
                log.info("the source has ended")
                for task in beside:
                    task.cancel()
        finally:
            if self._trainer is not None:
                await self._trainer.close()
            self.predictor.close()

    async def _publish(self, answer: Answer) -> None:
        now = time.monotonic()
        if now - self._published < 1.0 / self.config.predictions.max_rate_hz:
            return
        self._published = now
        sample, prediction = answer.sample, answer.prediction
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

    async def _take_part(self, trainer: Trainer) -> None:
        """Join as soon as there is something to train on; torch is imported meanwhile."""
        await self.host.alone.wait()
        try:
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
        if self._trainer is None:
            self.host.happen(NoContribution(plan.round, "this device does not train"))
            return
        held = self._held
        try:
            x, y = await asyncio.to_thread(self._samples.training_arrays)
            if not len(x):
                raise TrainingError("no samples are stored")
            w = self._composed(held.weights, self._personal)
            figures = await self._measure(self._trainer, w)
            fit = FitPlan(plan.epochs, plan.batch_size, plan.learning_rate, plan.seed)
            update = await self._trainer.fit(w, x, y, fit, deadline=plan.deadline)
            vector = self._encode(plan, update, figures)
        except (TrainingError, BadUpdate) as error:
            log.warning("round %d: %s", plan.round, error)
            self.host.happen(NoContribution(plan.round, str(error)))
            return
        self.host.happen(Contribution(plan.round, vector))
        if update.personal is not None:
            await self._personalise(update.personal)

    async def _measure(self, trainer: Trainer, w: Floats) -> Figures:
        """The global model on the rows held out here, before it is trained on."""
        x, y = await asyncio.to_thread(self._samples.hold_out_arrays)
        if not len(x):
            return Figures()
        result = await trainer.evaluate(w, x, y)
        n = len(x)
        correct = round(result.get("accuracy", 0.0) * n)
        return Figures(n, correct, result["loss"] * n)

    def _encode(self, plan: wire.Plan, update: Update, figures: Figures) -> Any:
        encoding = encoding_of(plan)
        noise = uniform(os.urandom(32), plan.dimension)
        vector = encoding.encode(update.delta, update.n, figures, noise)
        if self._trace is not None:
            self._trace.write("true", str(self.config.member), vector)
        return vector

    async def _exchange(self, model: wire.Model) -> None:
        """Put a newer global model in the place of the one that answers, or refuse it."""
        async with self._swap:
            try:
                held = read_model(model, None if self._is_first(model) else self._held)
                if held is None:
                    return
                candidate = await self._stage(held, self._personal)
                await self._keep(held)
            except RemoteError as error:
                self.host.refuse(error)
                return
            self.predictor.commit(candidate)
            self._held = held
            self._started_with_bundle = False
        self.host.happen(ModelHeld(held.version, held.digest))

    async def _personalise(self, personal: Floats) -> None:
        """Answer with what the personal layers have learnt, and keep them; or leave them alone."""
        async with self._swap:
            try:
                candidate = await self._stage(self._held, personal)
            except BadModel as error:
                log.warning("the personal layers stay as they were: %s", error)
                return
            self.predictor.commit(candidate)
            self._personal = personal
            if self._layers is not None:
                try:
                    await asyncio.to_thread(
                        self._layers.put, layout(self._bundle.manifest), personal, time.time()
                    )
                except OperatorError as error:  # used all the same, until the next start
                    log.error("%s", error)

    async def _stage(self, held: Held, personal: Floats) -> Candidate:
        params = self._composed(held.weights, personal)
        return await asyncio.to_thread(
            self.predictor.stage, params, held.version, fingerprint(params)
        )

    def _composed(self, shared: Floats, personal: Floats) -> Floats:
        return compose(self._bundle.manifest, shared, personal)

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
        answers = stats.predictor
        up = self.host.endpoint.joint.up
        dropped = sum(stats.dropped.values())
        return {
            "model": {"version": self._held.version, "sha256": self._held.digest.hex()[:16]},
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
                "provider": answers.provider,
                "swaps": answers.swaps,
            },
            "training": {
                "available": self._trains,
                **self._training(),
            },
        }

    def _training(self) -> dict[str, Any]:
        if self._trainer is None:
            return {"state": "off"}
        busy = self._job is not None and not self._job.done()
        stats = self._trainer.stats
        return {
            "state": "working" if busy else "idle",
            "fits": stats.fits,
            "seconds": round(stats.fit_seconds, 4),
        }


def _check_of(config: DeviceConfig, bundle: Bundle) -> Check:
    """The sensor's declaration. Operators may change the shape, so only without them must a raw
    sample have the model's; the model refuses a wrong one in any case."""
    check = config.sensor.check
    shape = None if config.pipeline else bundle.manifest.input_shape
    return Check(shape, check.min, check.max, check.missing, check.fill)
