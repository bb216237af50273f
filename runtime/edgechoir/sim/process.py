"""One simulated process of a member: an endpoint on the virtual network, with simulated training.

Only its `Journal` outlives a crash, as only the disk does.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from edgechoir import wire
from edgechoir.identity.envelope import Signer, Verifier
from edgechoir.identity.gate import Gate
from edgechoir.learning.fixed_point import Figures
from edgechoir.learning.state import State
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.aggregator import Aggregator, Limits
from edgechoir.rounds.endpoint import Endpoint, ModelArrived, Outcome, Outgoing
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import (
    Begin,
    Contribution,
    Event,
    ExpandMask,
    Gone,
    MaskReady,
    Membership,
    ModelHeld,
    Order,
    Record,
    RoundDone,
    RoundFailed,
    Tick,
    Work,
)
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.participant import Participant
from edgechoir.rounds.schedule import Answered, Course, Did, Finished, Publish, Result, Schedule
from edgechoir.rounds.schedule import start as start_schedule
from edgechoir.rounds.schedule import step as step_schedule
from edgechoir.secagg.masking import expand_mask
from edgechoir.secagg.pads import SignedSeed
from edgechoir.types import Floats, Ring

if TYPE_CHECKING:
    from edgechoir.sim.world import Post, World

LIMITS = Limits(min_members=2, join_wait=1.0, keying=5.0)
PAUSE_S = 1.0
DEADLINE_S = 5.0


@dataclass(slots=True)
class Journal:
    """What a member's disk holds."""

    last_round: int = 0
    rounds: list[int] = field(default_factory=list)
    weights: Floats | None = None
    version: int = 0

    def image(self) -> Journal:
        """A copy, as a backup of the disk would have it."""
        return replace(self, rounds=list(self.rounds))


class Process:
    """A running member; a restart makes a new one."""

    def __init__(self, world: World, post: Post, generation: int) -> None:
        self.world = world
        self.post = post
        self.alive = True
        self.frozen = False
        self.alarmed: float | None = None
        self.planned: float | None = None
        self.offset = 0.0
        """How far its clock is from the true time, in seconds."""
        self.seeds: dict[int, tuple[SignedSeed, ...]] = {}
        self.vectors: dict[int, Ring] = {}
        self.held: tuple[int, bytes] | None = None
        name = f"{post.address.member}#{generation}"
        self.chance = world.chance(f"work {name}")
        self.entropy = world.entropy(name)
        self.instance = self.entropy(8)
        verifier = Verifier(world.root, world.federation, 1 << 20)
        up = down = None
        if post.parent is not None:
            me = participant.Self(
                world.federation,
                post.address,
                post.parent.address,
                post.key,
                verifier,
                world.policy,
            )
            up = Participant(me, last_round=post.journal.last_round)
        if post.children:
            limits = replace(LIMITS, expected=post.expected)
            us = aggregator.Self(world.federation, post.address, verifier, limits, world.keystream)
            down = Aggregator(us)
        self.endpoint = Endpoint(
            Joint(up, down),
            Signer(post.key, post.certificate, self.instance),
            verifier,
            Gate(100),
            self.entropy,
        )
        self.schedule: Schedule | None = None
        self.model_envelope: bytes | None = None

    def begin(self) -> None:
        """What a process does first."""
        if self.post.parent is None:
            journal = self.post.journal
            weights = journal.weights
            if weights is None:
                weights = np.zeros(self.world.dimension, np.float32)
            course = Course(
                rounds=1_000_000,
                deadline=DEADLINE_S,
                pause=PAUSE_S,
                max_samples=50,
                bits=self.world.bits,
            )
            self.schedule = Schedule(
                course, State(weights), version=journal.version, round=journal.last_round
            )
            self.did(start_schedule(self.schedule))
        if not self.post.children:
            self.happen(Begin(1, self.post.journal.last_round))

    def receive(self, data: bytes, retained: bool) -> None:
        if not self.alive:
            return
        if self.frozen:  # the network holds it until the process runs again
            self.world.network.after(1.0, lambda: self.receive(data, retained))
            return
        self.carry_out(self.endpoint.receive(data, self.now, retained=retained))

    def happen(self, event: Event) -> None:
        if not self.alive:
            return
        if self.frozen:
            self.world.network.after(1.0, lambda: self.happen(event))
            return
        self.carry_out(self.endpoint.handle(event, self.now))

    @property
    def now(self) -> float:
        """What this process's clock says."""
        return self.world.network.now + self.offset

    def carry_out(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            if self.alive and self.world.dies(self, outcome):
                self.world.crash(self.post)
            if not self.alive:
                return
            self.do(outcome)
        self.set_alarm()

    def do(self, outcome: Outcome) -> None:
        self.world.note(self, outcome)
        match outcome:
            case Outgoing():
                self.world.send(self, outcome)
            case ModelArrived(model, envelope):
                self.hold(model, envelope)
            case Record(_, round_, _):
                self.spend(round_)
            case Work(plan) if not self.post.children:
                delay = self.chance.uniform(0.05, 0.5)
                self.world.network.after(delay, partial(self.train, plan))
            case ExpandMask():
                self.expand(outcome)
            case RoundDone():
                self.world.done(self, outcome)
                self.plan(outcome)
            case RoundFailed() | Membership():
                self.plan(outcome)
            case _:
                pass

    def spend(self, round_: int) -> None:
        """Write down that pads are spent."""
        self.world.ledger.check(
            round_ > self.post.journal.last_round, f"{self.post} reuses round {round_}"
        )
        self.world.ledger.mask(str(self.post), self.seeds[round_], self.vectors[round_])
        self.post.images.append(self.post.journal.image())
        self.post.journal.last_round = round_
        self.post.journal.rounds.append(round_)

    def expand(self, wanted: ExpandMask) -> None:
        """Make the mask ahead of time, or leave it to the upload."""
        self.seeds[wanted.round] = wanted.seeds
        if self.chance.random() < 0.5:
            return
        mask = expand_mask(wanted.seeds, wanted.length, f"u{wanted.bits // 8}", wanted.keystream)
        ready = MaskReady(wanted.round, mask)
        self.world.network.after(self.chance.uniform(0, 0.4), partial(self.happen, ready))

    def set_alarm(self) -> None:
        wake = self.endpoint.joint.wake
        if wake is not None and wake != self.alarmed:
            # A timer runs on the monotonic clock: setting the other one does not move it.
            self.alarmed = wake
            delay = max(wake - self.now, 0.0) + 1e-3
            self.world.network.after(delay, lambda: self.alarm(wake))

    def alarm(self, wake: float) -> None:
        if self.alarmed == wake:
            self.alarmed = None
        if self.alive and self.endpoint.joint.wake == wake:
            self.happen(Tick())

    def hold(self, model: wire.Model, envelope: bytes) -> None:
        if self.held is not None and model.version <= self.held[0]:
            return
        self.held = (model.version, model.digest)
        self.model_envelope = envelope
        if self.post.children:
            self.world.send(self, Outgoing("model", "", envelope))
        if self.endpoint.joint.up is not None:
            self.happen(ModelHeld(model.version, model.digest))

    def train(self, plan: wire.Plan) -> None:
        """Simulated: a repeatable delta in the place of a trained one."""
        numbers = np.random.default_rng([plan.round, self.chance.getrandbits(32)])
        delta = numbers.normal(0, 0.3, plan.dimension).astype(np.float32)
        encoding = encoding_of(plan)
        noise = numbers.integers(0, 2**32, plan.dimension, np.uint32)
        n = self.chance.randint(1, 50)
        vector = encoding.encode(delta, n, Figures(n, self.chance.randint(0, n), 0.5 * n), noise)
        self.world.contribute(self, plan.round, vector)
        self.happen(Contribution(plan.round, vector))

    def plan(self, event: RoundDone | RoundFailed | Membership | Tick) -> None:
        """(cloud) Move the schedule."""
        if self.schedule is None or not self.alive:
            return
        self.schedule, did = step_schedule(self.schedule, event, self.now)
        for one in did:
            self.did(one)
        wake = self.schedule.wake
        if wake is not None and wake != self.planned:
            self.planned = wake
            delay = max(wake - self.now, 0.0) + 1e-3
            self.world.network.after(delay, lambda: self.plan_due(wake))

    def plan_due(self, wake: float) -> None:
        if self.planned == wake:
            self.planned = None
        self.plan(Tick())

    def did(self, one: Did) -> None:
        match one:
            case Order():
                self.post.journal.last_round = one.round
                self.happen(one)
            case Publish(model, state):
                self.post.journal.weights = state.weights
                self.post.journal.version = model.version
                self.hold(model, self.endpoint.sign(model))
            case Result():
                self.world.result(one)
            case Answered() | Finished():
                pass

    def peer_back(self, post: Post, instance: bytes) -> None:
        """A peer that was called lost is back on line, the same process."""
        self.endpoint.reclaim(post.address, instance)

    def peer_gone(self, post: Post, instance: bytes) -> None:
        """The broker's last will of a peer."""
        self.endpoint.release(post.address, instance)
        if self.post.children and post in self.post.children:
            self.happen(Gone(str(post.address.member), instance, "was lost"))

    def parent_back(self) -> None:
        """The parent's status shows another process: its memory of this one is gone."""
        up = self.endpoint.joint.up
        if up is not None and up.phase is not participant.Phase.IDLE:
            self.happen(Begin(up.devices, up.last_round))
