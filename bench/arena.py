"""A whole federation in one process, to learn on real data: only MQTT and the clock are missing.

Every member has its certificate and its endpoint: plans, masks, shares, sealed uploads and signed
models are those of a real federation, and what a device does for a round is what a real device
does, with the trainer in this process. Letters are carried by hand, as fast as they are read.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import numpy as np

from edgechoir import wire
from edgechoir.bundle.load import Bundle
from edgechoir.bundle.manifest import Targets
from edgechoir.errors import RemoteError, TrainingError
from edgechoir.identity.authority import Authority, create_authority, issue
from edgechoir.identity.envelope import Signer, Verifier
from edgechoir.identity.gate import Gate
from edgechoir.identity.keys import new_key
from edgechoir.identity.policy import Policy
from edgechoir.identity.request import make_request
from edgechoir.learning.rules.rule import Rule
from edgechoir.learning.rules.trees import Trees
from edgechoir.learning.state import State
from edgechoir.learning.statistics.inquiry import Asked, Model, Reply
from edgechoir.learning.task import TRAIN, read_task
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.aggregator import Aggregator, Limits
from edgechoir.rounds.endpoint import Endpoint, ModelArrived, Outcome, Outgoing
from edgechoir.rounds.events import (
    Begin,
    Contribution,
    Membership,
    ModelHeld,
    NoContribution,
    Order,
    RoundDone,
    RoundFailed,
    Tick,
    Work,
)
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.participant import Participant, honest_survivors
from edgechoir.rounds.schedule import (
    Answered,
    Ask,
    Course,
    Did,
    Finished,
    Happened,
    Prepared,
    Publish,
    Result,
    Schedule,
    start,
    step,
)
from edgechoir.tiers.aggregator_process import preparation_for, subject_of
from edgechoir.tiers.contribution import contribution, private_terms
from edgechoir.tiers.desk import Examples
from edgechoir.tiers.models import Held, read_model
from edgechoir.tiers.pending import settle
from edgechoir.tiers.pursuit import question, reply_of
from edgechoir.tiers.statistics import preparation_of
from edgechoir.tiers.work import Desk, do, do_privately
from edgechoir.training import fit as fitting
from edgechoir.types import Address, FitPlan, Floats, MemberId, Ring, Update

T = TypeVar("T")
FEDERATION: Final = "arena"
ROOT: Final = "cloud"
LIMIT_BYTES: Final = 1 << 28
STEPS: Final = 200
"""How often the clock is moved on for a round that does not end by itself."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A device's labelled samples, of which every `held_out`th is not trained on (0: none)."""

    x: Floats
    y: Targets
    held_out: int = 0

    def _mask(self) -> np.ndarray:
        rows = np.arange(len(self.x))
        return (rows % self.held_out == 0) if self.held_out else np.zeros(len(rows), bool)

    def training_arrays(self) -> tuple[Floats, Targets]:
        """What it trains on."""
        return self.x[~self._mask()], self.y[~self._mask()]

    def hold_out_arrays(self) -> tuple[Floats, Targets]:
        """What it measures on."""
        return self.x[self._mask()], self.y[self._mask()]


@dataclass(frozen=True, slots=True)
class HereTrainer:
    """Trains in this process, as the worker of a device does in its own."""

    bundle: Bundle

    async def fit(
        self,
        w: Floats,
        x: Floats,
        y: Targets,
        plan: FitPlan,
        *,
        deadline: float | None = None,
        **beside: Floats,
    ) -> Update:
        """See `training.fit.fit`."""
        return fitting.fit(self.bundle, w, x, y, plan, **beside)

    async def predict(self, w: Floats, x: Floats, *, deadline: float | None = None) -> Floats:
        """See `training.fit.predict`."""
        return fitting.predict(self.bundle, w, x)

    async def evaluate(
        self, w: Floats, x: Floats, y: Targets, *, deadline: float | None = None
    ) -> dict[str, float]:
        """See `training.fit.evaluate`."""
        return fitting.evaluate(self.bundle, w, x, y)


class Memory(dict[str, tuple[Floats, int]]):
    """A device's disk, for vectors that stay there."""

    def put(self, name: str, vector: Floats, round_: int) -> None:
        """As `store.vectors.KeptVectors`."""
        self[name] = vector.copy(), round_

    def drop(self, name: str) -> None:
        """As `store.vectors.KeptVectors`."""
        self.pop(name, None)


class Arena:
    """`devices` by their names under `parents` (a name without one is under the cloud); `spoiling`
    says what a device whose program was changed makes of its update."""

    def __init__(
        self,
        bundle: Bundle,
        devices: Mapping[str, Rows],
        course: Course,
        rule: Rule,
        parents: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        *,
        normalise: bool = False,
        examples: Examples | None = None,
        spoiling: Mapping[str, Callable[[Floats], Floats]] | None = None,
    ) -> None:
        self.bundle = bundle
        self._examples = examples
        self.results: list[Result] = []
        self.answers: dict[str, Answered] = {}
        self.now = time.time()
        self.sent = 0
        """Bytes of all letters from devices."""
        self._rows = devices
        self._spoiling = spoiling or {}
        self._trainer = HereTrainer(bundle)
        self._parents = {name: (parents or {}).get(name, ROOT) for name in devices}
        nodes = sorted(set(self._parents.values()) - {ROOT})
        self._parents.update(dict.fromkeys(nodes, ROOT))
        self._children = {
            parent: [name for name, above in self._parents.items() if above == parent]
            for parent in (ROOT, *nodes)
        }
        self._held: dict[str, Held] = {}
        self._kept = {name: Memory() for name in devices}
        self._letters: deque[tuple[str, bytes]] = deque()
        self._jobs: dict[str, Work] = {}
        authority = create_authority(FEDERATION, os.urandom, self.now, 30)
        self._verifier = Verifier(authority.root, FEDERATION, LIMIT_BYTES)
        self._members = {
            name: self._endpoint(authority, name, policy or Policy())
            for name in (ROOT, *nodes, *devices)
        }
        self._rule = rule
        first = State(np.array(bundle.params, np.float32))
        self.schedule = Schedule(course, first, rule, waits=normalise or isinstance(rule, Trees))
        self._did(start(self.schedule))
        for name in devices:
            self._handle(name, Begin(1))
        self._deliver()
        if self.schedule.waits:
            self.prepare()

    # ---- what a bench does with it

    def run(self, rounds: int) -> list[Result]:
        """So many training rounds more; what is known of each."""
        enough = self.schedule.done + rounds
        self._until(lambda: self.schedule.done >= enough or bool(self.schedule.finished))
        return self.results

    def ask(self, one: Ask) -> Answered:
        """A round of another task."""
        self._move(one)
        self._until(lambda: one.name in self.answers)
        return self.answers.pop(one.name)

    def inquire(self, inquiry: Generator[Asked, Reply, T], name: str = "inquiry") -> T:
        """A question of several rounds."""
        number = 0
        try:
            asked = next(inquiry)
            while True:
                number += 1
                answered = self.ask(question(f"{name}/{number}", asked))
                asked = inquiry.send(reply_of(answered, number))
        except StopIteration as done:
            value: T = done.value
            return value

    def prepare(self) -> None:
        """Find what goes with the model from now on: mean and deviation, or bins."""
        self._move(Prepared(self.inquire(preparation_for(self._rule, self.subject)())))

    def seen(self, x: Floats) -> Floats:
        """Raw samples as the model of the global state sees them."""
        return preparation_of(self.bundle.manifest, self.state.aux)(x)

    @property
    def subject(self) -> Model:
        """What is known of the model."""
        return subject_of(self.bundle)

    @property
    def state(self) -> State:
        """The global state."""
        return self.schedule.state

    # ---- carrying letters

    def _until(self, over: Callable[[], bool]) -> None:
        for _ in range(STEPS):
            self._deliver()
            while self._jobs and not over():
                self._work()
                self._deliver()
            if over():
                return
            self.now += 1.0
            for name in self._members:
                self._handle(name, Tick())
            self._move(Tick())
        raise AssertionError(f"no round ends: {self.results[-1:]}")

    def _deliver(self) -> None:
        while self._letters:
            name, data = self._letters.popleft()
            self._outcomes(name, self._members[name].receive(data, self.now))

    def _handle(self, name: str, event: Begin | Tick | ModelHeld) -> None:
        self._outcomes(name, self._members[name].handle(event, self.now))

    def _work(self) -> None:
        name, work = self._jobs.popitem()
        plan = work.plan
        held = self._held[name]
        desk = Desk(
            self.bundle,
            held,
            self._rows[name],
            self._trainer,
            lambda x: fitting.predict(self.bundle, held.weights, self.seen(x)),
            kept=self._kept[name],
            examples=self._examples,
        )
        try:
            work_ = do if private_terms(plan) is None else do_privately
            piece = asyncio.run(work_(desk, plan))
            if name in self._spoiling and read_task(plan.task).kind == TRAIN:
                piece = replace(piece, vector=self._spoiling[name](piece.vector))
            vector = contribution(plan, piece, self._honest(name, plan), os.urandom)
        except (TrainingError, RemoteError) as error:
            no = NoContribution(plan.round, str(error))
            self._outcomes(name, self._members[name].handle(no, self.now))
            return
        self._contribute(name, plan, vector)

    def _contribute(self, name: str, plan: wire.Plan, vector: Ring) -> None:
        """A device's vector, before it is masked."""
        done = Contribution(plan.round, vector)
        self._outcomes(name, self._members[name].handle(done, self.now))

    def _honest(self, name: str, plan: wire.Plan) -> int:
        up = self._members[name].joint.up
        return 0 if up is None else honest_survivors(up, plan)

    def _outcomes(self, name: str, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case Outgoing("up", _, data):
                    self.sent += len(data) if name in self._rows else 0
                    self._letters.append((self._parents[name], data))
                case Outgoing("down", member, data):
                    self._letters.append((member, data))
                case Outgoing(_, _, data):
                    self._letters.extend((child, data) for child in self._children[name])
                case Work() if name in self._rows:
                    self._jobs[name] = outcome
                case ModelArrived(model, envelope):
                    held = read_model(model, self._held.get(name))
                    if held is not None:
                        self._held[name] = held
                        if name in self._kept:
                            up = self._members[name].joint.up
                            assert up is not None
                            settle(self._kept[name], held.round, up.last_round)
                        below = self._children.get(name, ())
                        self._letters.extend((child, envelope) for child in below)
                        self._handle(name, ModelHeld(held.version, held.digest))
                case RoundDone() | RoundFailed() | Membership() if name == ROOT:
                    self._move(outcome)
                case _:
                    pass

    # ---- the root

    def _move(self, event: Happened) -> None:
        self.schedule, did = step(self.schedule, event, self.now)
        for one in did:
            self._did(one)

    def _did(self, one: Did) -> None:
        match one:
            case Order():
                self._outcomes(ROOT, self._members[ROOT].handle(one, self.now))
            case Publish(model):
                envelope = self._members[ROOT].sign(model)
                self._letters.extend((child, envelope) for child in self._children[ROOT])
            case Result():
                self.results.append(one)
            case Answered():
                self.answers[one.name] = one
            case Finished():
                pass

    # ---- members

    def _address(self, name: str) -> Address:
        tier = "cloud" if name == ROOT else "device" if name in self._rows else "node"
        return Address(tier, MemberId(name))

    def _endpoint(self, authority: Authority, name: str, policy: Policy) -> Endpoint:
        who = self._address(name)
        key = new_key(os.urandom)
        request = make_request(key, FEDERATION, who.tier, str(who.member))
        certificate = issue(authority, request, who.tier, self.now, 30, os.urandom)
        up = down = None
        if name != ROOT:
            parent = self._address(self._parents[name])
            us = participant.Self(FEDERATION, who, parent, key, self._verifier, policy)
            up = Participant(us)
        if name not in self._rows:
            limits = Limits(expected=len(self._children[name]))
            down = Aggregator(aggregator.Self(FEDERATION, who, self._verifier, limits))
        signer = Signer(key, certificate, os.urandom(8))
        return Endpoint(Joint(up, down), signer, self._verifier, Gate(256), os.urandom)
