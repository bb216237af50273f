"""A cloud and its devices in one process: real endpoints and certificates, letters by hand.

Nothing is timed here. It takes a round as far as the moment that a benchmark asks for.
"""

import os
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edgechoir import wire
from edgechoir.identity.authority import Authority, create_authority, issue
from edgechoir.identity.envelope import Signer, Verifier
from edgechoir.identity.gate import Gate
from edgechoir.identity.keys import new_key
from edgechoir.identity.policy import Policy
from edgechoir.identity.request import make_request
from edgechoir.learning.fixed_point import Figures
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.aggregator import Aggregator, Limits
from edgechoir.rounds.cohort import Turn, open_answer
from edgechoir.rounds.endpoint import Endpoint, Outcome, Outgoing
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import (
    Begin,
    Contribution,
    ExpandMask,
    ModelHeld,
    NoContribution,
    Order,
    RoundDone,
    Work,
)
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.participant import Participant
from edgechoir.secagg.sealing import KemKey
from edgechoir.types import Address, MemberId, Ring

FEDERATION: Final = "bench"
CLOUD: Final = Address("cloud", MemberId("cloud"))
MODEL: Final = bytes(32)
LIMIT_BYTES: Final = 1 << 28


@dataclass(slots=True)
class Cohort:
    """`size` devices keyed to one cloud, with the first round begun.

    `masks` holds what each was asked to expand; no device has made its contribution yet.
    """

    size: int
    dimension: int
    bits: int
    now: float = field(default_factory=time.time)
    members: dict[str, Endpoint] = field(default_factory=dict)
    letters: deque[tuple[str, bytes]] = field(default_factory=deque)
    plans: dict[str, wire.Plan] = field(default_factory=dict)
    masks: dict[str, ExpandMask] = field(default_factory=dict)
    verifier: Verifier = field(init=False)
    done: RoundDone | None = None
    before: tuple[Turn, KemKey, bytes] | None = None
    """The turn as it was before the latest answer, and that answer."""

    def __post_init__(self) -> None:
        authority = create_authority(FEDERATION, os.urandom, self.now, 1)
        self.verifier = Verifier(authority.root, FEDERATION, LIMIT_BYTES)
        us = aggregator.Self(FEDERATION, CLOUD, self.verifier, Limits(expected=self.size))
        self._add(authority, CLOUD, Aggregator(us))
        for i in range(self.size):
            self._add(authority, Address("device", MemberId(f"dev-{i:02d}")), None)
        for name in self.devices:
            self._did(name, self.members[name].handle(ModelHeld(0, MODEL), self.now))
            self._did(name, self.members[name].handle(Begin(1), self.now))
        self.deliver()
        order = Order(
            round=1,
            model_version=0,
            model_hash=MODEL,
            task=b'{"kind":"train"}',
            dimension=self.dimension,
            devices=self.size,
            clip=1.0,
            max_samples=100,
            bits=self.bits,
            epochs=1,
            batch_size=32,
            learning_rate=0.1,
            seed=0,
            deadline=600.0,
        )
        self._did("cloud", self.members["cloud"].handle(order, self.now))
        self.deliver()

    @property
    def devices(self) -> list[str]:
        return [name for name in self.members if name != "cloud"]

    @property
    def plan(self) -> wire.Plan:
        return self.plans[self.devices[0]]

    def contribute(self, name: str, vector: Ring) -> bytes:
        """A device's upload, as the envelope that it would send."""
        (letter,) = [
            outcome.data
            for outcome in self.members[name].handle(Contribution(1, vector), self.now)
            if isinstance(outcome, Outgoing)
        ]
        return letter

    def finish(self, vector: Ring, missing: int) -> Turn:
        """The round with `missing` devices that give up; the turn that is ready to be opened."""
        for name in self.devices[:missing]:
            gone = NoContribution(1, "not measured")
            self._did(name, self.members[name].handle(gone, self.now))
        for name in self.devices[missing:]:
            self.letters.append(("cloud", self.contribute(name, vector)))
            self.deliver()
        if self.done is None or self.before is None:
            raise AssertionError("the round does not end")
        turn, kem, data = self.before
        opened = self.verifier.open(data, self.now)
        answer = wire.decode(opened.kind, opened.body)
        if not isinstance(answer, wire.Answer):
            raise AssertionError("the last letter is no answer")
        return open_answer(turn, kem, answer, str(opened.sender.member))

    def _add(self, authority: Authority, who: Address, down: Aggregator | None) -> None:
        key = new_key(os.urandom)
        request = make_request(key, FEDERATION, who.tier, str(who.member))
        certificate = issue(authority, request, who.tier, self.now, 1, os.urandom)
        up = None
        if down is None:
            me = participant.Self(FEDERATION, who, CLOUD, key, self.verifier, Policy())
            up = Participant(me)
        signer = Signer(key, certificate, os.urandom(8))
        endpoint = Endpoint(Joint(up, down), signer, self.verifier, Gate(64), os.urandom)
        self.members[str(who.member)] = endpoint

    def deliver(self) -> None:
        while self.letters:
            name, data = self.letters.popleft()
            down = self.members[name].joint.down
            if down is not None and down.turn is not None and down.kem is not None:
                self.before = (down.turn, down.kem, data)
            self._did(name, self.members[name].receive(data, self.now))
            if self.done is not None:
                return

    def _did(self, name: str, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case Outgoing(channel, member, data):
                    readers = {"up": ["cloud"], "down": [member]}.get(channel, self.devices)
                    self.letters.extend((reader, data) for reader in readers)
                case Work(plan):
                    self.plans[name] = plan
                case ExpandMask():
                    self.masks[name] = outcome
                case RoundDone():
                    self.done = outcome
                case _:
                    pass


def nothing_new(plan: wire.Plan) -> Ring:
    """The vector of a device whose weights have not changed."""
    zeros, noise = np.zeros(plan.dimension, np.float32), np.zeros(plan.dimension, np.uint32)
    return encoding_of(plan).encode(zeros, 1, Figures(), noise)
