"""The sum that an aggregator lays bare is the plain integer sum of the survivors, bit for bit.

Twelve devices and a cloud, each a real endpoint with a certificate of its own, pass signed and
sealed messages to one another; the vectors are updates that were trained on the digits. Only what
carries the bytes is missing. In the second round three devices fall silent before they upload.
"""

import asyncio
import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from bench.figures import Figure
from edgechoir import wire
from edgechoir.bundle.load import load_bundle
from edgechoir.demo.layout import BATCH, DEVICES, EPOCHS, LEARNING_RATE
from edgechoir.demo.show import bundle_path
from edgechoir.demo.split import digits, shared_out
from edgechoir.identity.authority import Authority, create_authority, issue
from edgechoir.identity.envelope import Signer, Verifier
from edgechoir.identity.gate import Gate
from edgechoir.identity.keys import new_key
from edgechoir.identity.policy import Policy
from edgechoir.identity.request import make_request
from edgechoir.learning.fixed_point import Figures
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.aggregator import Aggregator, Limits
from edgechoir.rounds.endpoint import Endpoint, Outcome, Outgoing
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import Begin, Contribution, ModelHeld, Order, RoundDone, Tick, Work
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.participant import Participant
from edgechoir.rounds.schedule import digest
from edgechoir.secagg.pads import uniform
from edgechoir.training.trainer import Trainer
from edgechoir.types import Address, FitPlan, Floats, MemberId, Ring, Update

FEDERATION: Final = "bench"
SILENT: Final = 3
DEADLINE_S: Final = 30.0
MOST_STEPS: Final = 1000


def measure() -> list[Figure]:
    updates, weights = asyncio.run(_updates())
    star = Star(updates, digest(weights))
    figures = []
    for round_, silent in ((1, 0), (2, SILENT)):
        done = star.round(round_, len(weights), silent)
        plain = np.zeros_like(done.total)
        for member in done.survivors:
            plain += star.vectors[member, round_]
        wrong = int(np.bitwise_count(plain ^ done.total).sum())
        who = f"{len(done.survivors)} of {len(done.plan.cohort)} members"
        figures.append(Figure(f"wrong bits in the sum of {who}", wrong, f"of {plain.nbytes * 8:,}"))
    return figures


async def _updates() -> tuple[list[Update], Floats]:
    """What each of the demo's devices learns in one round."""
    bundle = load_bundle(bundle_path())
    parts, _ = shared_out(digits(), DEVICES, 0)
    plan = FitPlan(EPOCHS, BATCH, LEARNING_RATE, seed=1)
    async with Trainer(bundle.path) as trainer:
        found = [await trainer.fit(bundle.params, part.x, part.y, plan) for part in parts]
    return found, bundle.params


@dataclass(slots=True)
class Star:
    """A cloud and its devices, and the letters between them."""

    updates: list[Update]
    model: bytes
    now: float = field(default_factory=time.time)
    members: dict[str, Endpoint] = field(default_factory=dict)
    vectors: dict[tuple[str, int], Ring] = field(default_factory=dict)
    silent: frozenset[str] = frozenset()
    letters: deque[tuple[str, bytes]] = field(default_factory=deque)
    done: list[RoundDone] = field(default_factory=list)

    def __post_init__(self) -> None:
        authority = create_authority(FEDERATION, os.urandom, self.now, 1)
        cloud = Address("cloud", MemberId("cloud"))
        verifier = Verifier(authority.root, FEDERATION, 1 << 24)
        us = aggregator.Self(FEDERATION, cloud, verifier, Limits(expected=len(self.updates)))
        self._add(authority, cloud, verifier, Aggregator(us))
        for i in range(len(self.updates)):
            self._add(authority, Address("device", MemberId(f"dev-{i + 1:02d}")), verifier, None)
        for name in self.devices:
            self._did(name, self.members[name].handle(ModelHeld(0, self.model), self.now))
            self._did(name, self.members[name].handle(Begin(1), self.now))
        self._deliver()

    @property
    def devices(self) -> list[str]:
        return [name for name in self.members if name != "cloud"]

    def round(self, number: int, dimension: int, silent: int) -> RoundDone:
        """Run a round in which so many devices never upload."""
        self.silent = frozenset(self.devices[:silent])
        order = Order(
            round=number,
            model_version=0,
            model_hash=self.model,
            dimension=dimension,
            devices=len(self.devices),
            clip=1.0,
            max_samples=1000,
            bits=32,
            epochs=EPOCHS,
            batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            seed=0,
            deadline=DEADLINE_S,
        )
        self._did("cloud", self.members["cloud"].handle(order, self.now))
        for _ in range(MOST_STEPS):
            self._deliver()
            if len(self.done) == number:
                return self.done[-1]
            self._wake()
        raise AssertionError(f"round {number} does not end")

    def _add(
        self, authority: Authority, who: Address, verifier: Verifier, down: Aggregator | None
    ) -> None:
        key = new_key(os.urandom)
        request = make_request(key, FEDERATION, who.tier, str(who.member))
        certificate = issue(authority, request, who.tier, self.now, 1, os.urandom)
        up = None
        if down is None:
            above = Address("cloud", MemberId("cloud"))
            up = Participant(
                participant.Self(FEDERATION, who, above, key, verifier, Policy()), last_round=0
            )
        signer = Signer(key, certificate, os.urandom(8))
        joint = Joint(up, down)
        self.members[str(who.member)] = Endpoint(joint, signer, verifier, Gate(64), os.urandom)

    def _wake(self) -> None:
        """Move the clock to the next moment that somebody waits for."""
        due = {n: m.joint.wake for n, m in self.members.items() if m.joint.wake is not None}
        name = min(due, key=lambda n: due[n])
        self.now = max(self.now, due[name])
        self._did(name, self.members[name].handle(Tick(), self.now))

    def _deliver(self) -> None:
        while self.letters:
            name, data = self.letters.popleft()
            self._did(name, self.members[name].receive(data, self.now))

    def _did(self, name: str, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case Outgoing(channel, member, data):
                    readers = {"up": ["cloud"], "down": [member]}.get(channel, self.devices)
                    self.letters.extend((reader, data) for reader in readers)
                case Work(plan) if name not in self.silent:
                    self._work(name, plan)
                case RoundDone():
                    self.done.append(outcome)
                case _:
                    pass

    def _work(self, name: str, plan: wire.Plan) -> None:
        update = self.updates[self.devices.index(name)]
        noise = uniform(os.urandom(32), plan.dimension)
        figures = Figures(update.n, update.n, float(update.n))
        vector = encoding_of(plan).encode(update.delta, update.n, figures, noise)
        self.vectors[name, plan.round] = vector
        self._did(name, self.members[name].handle(Contribution(plan.round, vector), self.now))
