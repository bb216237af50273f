"""Trials of rules and step sizes on the live federation, one after the other from the same state.

A trial is the run itself, under other settings, for some rounds, and one more that measures where
they led. Whatever happens, the run goes back to how it was before, as a new version; should this
process end before that, the next one does it (`base.py`).
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgechoir.bundle.load import Bundle
from edgechoir.config.tiers import CloudConfig
from edgechoir.errors import LocalError, OperatorError, first_wrong
from edgechoir.learning.search import Placed, Score, Trial, halving, planned
from edgechoir.rounds.schedule import Anew, now_as
from edgechoir.tiers.aggregator import AggregatorTier
from edgechoir.tiers.base import drop_base, save_base
from edgechoir.tiers.course import course_of, rule_of
from edgechoir.tiers.local_calls import Tell
from edgechoir.tiers.models import ROUNDS_DONE

MAX_TRIALS: Final = 64
TRIES: Final = 3
"""A trial has this many times the deadlines of its rounds."""
TOLD: Final = 256
"""Lines of progress that may wait for whoever asked."""
DROPPED: Final = ("target_accuracy", "target_rmse", "patience", "release")


class Candidate(BaseModel):
    """Settings to try: a `[rule]`, and keys of `[training]` in place of those configured."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str = Field(default="", max_length=60)
    rule: dict[str, Any] = Field(default={}, max_length=32)
    training: dict[str, Any] = Field(default={}, max_length=32)

    def title(self) -> str:
        """Its name, or what it sets."""
        parts = [str(self.rule.get("name", ""))]
        parts += [f"{k}={v}" for k, v in self.rule.items() if k != "name"]
        parts += [f"{k}={v}" for k, v in self.training.items()]
        return (self.name or " ".join(part for part in parts if part))[:60]


class Request(BaseModel):
    """What is asked at the control socket. No trials: those of `grid_of`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    do: str = "tune"
    rounds: Annotated[int, Field(ge=1, le=1000)] = 9
    trials: Annotated[tuple[Candidate, ...], Field(max_length=MAX_TRIALS)] = ()


def grid_of(config: CloudConfig) -> tuple[Candidate, ...]:
    """Three rules with three step sizes around the one configured."""
    rates = [f"{config.training.learning_rate * factor:.3g}" for factor in (0.3, 1.0, 3.0)]
    rules: tuple[dict[str, Any], ...] = (
        {"name": "fedavg"},
        {"name": "fedavgm"},
        {"name": "fedadam", "rate": 0.01},
    )
    return tuple(
        Candidate(rule=rule, training={"learning_rate": min(float(rate), 10.0)})
        for rule in rules
        for rate in rates
    )


def with_settings(config: CloudConfig, candidate: Candidate) -> CloudConfig:
    """The configuration of a trial. Raises OperatorError for settings that do not go together."""
    values = config.model_dump(exclude_unset=True)
    rounds = {k: v for k, v in values.get("rounds", {}).items() if k not in DROPPED}
    training = {**values.get("training", {}), **candidate.training}
    rule = candidate.rule or {"name": config.rule.name, **values.get("rule", {})}
    try:
        tried = CloudConfig.model_validate(
            {**values, "rounds": rounds, "training": training, "rule": rule}
        )
    except ValidationError as error:
        place, what = first_wrong(error)
        raise OperatorError(f"trial {candidate.title()!r}: {place} {what}") from None
    for one in (config.rule, tried.rule):
        if not one.ALIKE:
            raise OperatorError(
                f"rule {one.name} leaves something on the devices, or is of another kind of model: "
                "trials with it would not begin alike"
            )
    return tried


class Desk:
    """Takes requests for trials at the root, one at a time."""

    def __init__(self, config: CloudConfig, bundle: Bundle, tier: AggregatorTier) -> None:
        self._config, self._bundle, self._tier = config, bundle, tier
        self._busy = False

    async def tune(self, request: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
        """Try all, and say which did best. Raises EdgechoirError."""
        if self._busy:
            raise OperatorError("trials run already: one `edgechoir tune` at a time")
        self._busy = True
        try:
            return await self._tune(_read(request), tell)
        finally:
            self._busy = False

    async def _tune(self, wanted: Request, tell: Tell) -> Mapping[str, Any]:
        self._check()
        candidates = wanted.trials or grid_of(self._config)
        starts = [self._start(candidate) for candidate in candidates]
        tier, state = self._tier, self._config.state
        base = now_as(tier.schedule)
        memory = {**base.rule.remember(), ROUNDS_DONE: np.array([base.done], np.float32)}
        await asyncio.to_thread(save_base, state, base.state, memory)
        total = planned(len(starts), wanted.rounds)
        tier.host.account.audit.record("tune", trials=str(len(starts)), rounds=str(total))
        await tell(f"{len(starts)} settings, {total} rounds in all")
        search = halving(len(starts), wanted.rounds)
        try:
            trial = next(search)
            while True:
                trial = search.send(await self._run(trial, candidates, starts, base, tell))
        except StopIteration as over:
            placed: list[Placed] = over.value
        finally:
            search.close()
            await self._lead_back(base)
        best = with_settings(self._config, candidates[placed[0].trial.candidate])
        chosen = placed[0].score.usable
        return {
            "trials": [_row(one, candidates) for one in placed],
            "rule": best.rule.model_dump(mode="json") if chosen else None,
            "training": best.training.model_dump(mode="json", exclude_none=True)
            if chosen
            else None,
        }

    def _check(self) -> None:
        schedule, manifest = self._tier.schedule, self._bundle.manifest
        if manifest.trees is not None:
            raise OperatorError("a forest grows from round to round: there is nothing to tune")
        if manifest.shared < len(self._bundle.params):
            raise OperatorError(
                f"{manifest.name} has personal layers, which stay trained on the devices: trials "
                "would not begin alike"
            )
        if schedule.waits or (schedule.closing and not schedule.finished):
            raise OperatorError("the run is about to begin, or to end: try again in a minute")
        if not schedule.devices:
            raise OperatorError("no devices take part now: start them, and try again")

    def _start(self, candidate: Candidate) -> Callable[[Anew, int], Anew]:
        """What begins a trial from a base, for so many rounds. Raises EdgechoirError."""
        config = with_settings(self._config, candidate)
        course, rule = course_of(config, self._bundle), rule_of(config, self._bundle)

        def start(base: Anew, rounds: int) -> Anew:
            # The last round only measures; its update is thrown away with the rest.
            trial = replace(course, rounds=rounds + 1, diverged_factor=math.inf)
            return Anew(trial, base.state, rule)

        return start

    async def _run(
        self,
        trial: Trial,
        candidates: tuple[Candidate, ...],
        starts: list[Callable[[Anew, int], Anew]],
        base: Anew,
        tell: Tell,
    ) -> Score:
        title = candidates[trial.candidate].title()
        anew = starts[trial.candidate](base, trial.rounds)
        lines: asyncio.Queue[str] = asyncio.Queue(TOLD)

        def seen(score: Score) -> None:
            with contextlib.suppress(asyncio.QueueFull):
                lines.put_nowait(f"  {title}: {_said(score)}")

        async def pass_on() -> None:
            while True:
                await tell(await lines.get())

        passing = asyncio.create_task(pass_on())
        await tell(f"{title}: {trial.rounds} rounds")
        try:
            async with asyncio.timeout(TRIES * (trial.rounds + 1) * anew.course.deadline):
                return await self._tier.try_out(title, anew, seen)
        except TimeoutError:
            return Score(reason="its rounds took too long")
        finally:
            passing.cancel()
            await asyncio.wait((passing,))

    async def _lead_back(self, base: Anew) -> None:
        """Put the run back; where this process ends, the next one does it."""
        with contextlib.suppress(LocalError, RuntimeError, TimeoutError):
            async with asyncio.timeout(TRIES * base.course.deadline):
                await self._tier.lead_back(base, "tune")
            drop_base(self._config.state)


def _read(request: Mapping[str, Any]) -> Request:
    try:
        return Request.model_validate(request)
    except ValidationError as error:
        place, what = first_wrong(error)
        raise OperatorError(f"{place or 'tune'}: {what}") from None


def _row(placed: Placed, candidates: tuple[Candidate, ...]) -> dict[str, Any]:
    candidate, score = candidates[placed.trial.candidate], placed.score
    return {
        "name": candidate.title(),
        "rounds": placed.trial.rounds,
        "accuracy": score.accuracy,
        "loss": score.loss if score.loss is not None and math.isfinite(score.loss) else None,
        "reason": "" if score.usable else score.reason or "it has no finite loss",
        "settings": candidate.model_dump(mode="json", exclude={"name"}),
    }


def _said(score: Score) -> str:
    if not score.usable:
        return f"failed: {score.reason}" if score.reason else "no figures"
    accuracy = "" if score.accuracy is None else f"accuracy {score.accuracy:.4f}  "
    return accuracy + ("" if score.loss is None else f"loss {score.loss:.4g}")
