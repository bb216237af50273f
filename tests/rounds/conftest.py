"""A stage: real endpoints with certificates of one CA, a clock by hand, and letters between them.

Nothing here stands in for the code under test. What a host would do with MQTT, a clock and a
trainer is done by `run`, `advance` and `train`; every letter can be held back or exchanged.
"""

import functools
import hashlib
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from edgechoir import wire
from edgechoir.identity.authority import Authority, create_authority, issue
from edgechoir.identity.certificate import Certified
from edgechoir.identity.envelope import Envelope, Signer, Verifier
from edgechoir.identity.gate import Gate
from edgechoir.identity.keys import new_key
from edgechoir.identity.policy import Policy
from edgechoir.identity.request import make_request
from edgechoir.learning.fixed_point import Figures
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.aggregator import Aggregator, Limits
from edgechoir.rounds.endpoint import Endpoint, Outcome, Outgoing
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import (
    Begin,
    Contribution,
    Event,
    Gone,
    ModelHeld,
    NoContribution,
    Order,
    Refused,
    RoundDone,
    RoundFailed,
    Tick,
    Withdraw,
    Work,
)
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.participant import Participant
from edgechoir.sim.chance import entropy_of
from edgechoir.types import Address, Entropy, MemberId, Ring

NOW: Final = 1_800_000_000.0
FEDERATION: Final = "alps"
MODEL: Final = hashlib.sha256(b"the first model").digest()
LIMIT_BYTES: Final = 1 << 20
LENIENT: Final = Policy(min_devices=2)
"""Two devices make a sum here, as in the smallest tier; `test_participant` tries other policies."""
Kind = TypeVar("Kind", bound=Outcome)


@functools.cache
def authority_of(name: str) -> Authority:
    return create_authority(FEDERATION, entropy_of(0, name), NOW, 3650)


@dataclass(frozen=True, slots=True)
class Identity:
    """What enrolment gives a member."""

    address: Address
    key: EllipticCurvePrivateKey
    certificate: Certified


@functools.cache
def identity_of(tier: str, name: str, ca: str = "fleet") -> Identity:
    entropy = entropy_of(0, f"{ca} {tier} {name}")
    key = new_key(entropy)
    request = make_request(key, FEDERATION, tier, name)
    certificate = issue(authority_of(ca), request, tier, NOW, 365, entropy)
    return Identity(Address(tier, MemberId(name)), key, certificate)


@dataclass(slots=True)
class Voice:
    """A member's running process."""

    identity: Identity
    parent: str | None
    instance: bytes
    entropy: Entropy
    endpoint: Endpoint

    @property
    def up(self) -> Participant:
        up = self.endpoint.joint.up
        assert up is not None
        return up

    @property
    def down(self) -> Aggregator:
        down = self.endpoint.joint.down
        assert down is not None
        return down


@dataclass(frozen=True, slots=True)
class Letter:
    """Bytes on their way."""

    sender: str
    to: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Delivered:
    """A letter, and the state of whoever got it as it was before."""

    letter: Letter
    before: Joint
    now: float


@dataclass(slots=True)
class Stage:
    """`carry` sees every letter and says what arrives in its place, for tests that interfere."""

    now: float = NOW
    voices: dict[str, Voice] = field(default_factory=dict)
    identities: dict[str, Identity] = field(default_factory=dict)
    """Of everybody who has ever been on the stage."""
    queue: deque[Letter] = field(default_factory=deque)
    delivered: list[Delivered] = field(default_factory=list)
    outcomes: list[tuple[str, Outcome]] = field(default_factory=list)
    idle: set[str] = field(default_factory=set)
    """Devices that are given work and do none."""
    stopped: set[str] = field(default_factory=set)
    """Members whose process stands still: no clock wakes them."""
    vectors: dict[tuple[str, int], Ring] = field(default_factory=dict)
    carry: Callable[[Letter], list[Letter]] = lambda letter: [letter]
    _restarts: "itertools.count[int]" = field(default_factory=itertools.count)

    # ---- who is there

    def device(self, name: str, parent: str, **kwargs: Any) -> Voice:
        return self.add("device", name, parent, **kwargs)

    def add(
        self,
        tier: str,
        name: str,
        parent: str | None = None,
        *,
        limits: Limits | None = None,
        policy: Policy | None = None,
        last_round: int = 0,
    ) -> Voice:
        """A new process of this member; an aggregator if it has `limits`."""
        identity = self.identities[name] = identity_of(tier, name)
        entropy = entropy_of(next(self._restarts), name)
        verifier = self.verifier()
        up = down = None
        if parent is not None:
            above = self.voices[parent].identity.address
            me = participant.Self(
                FEDERATION, identity.address, above, identity.key, verifier, policy or LENIENT
            )
            up = Participant(me, last_round=last_round)
        if limits is not None:
            down = Aggregator(aggregator.Self(FEDERATION, identity.address, verifier, limits))
        instance = entropy(8)
        signer = Signer(identity.key, identity.certificate, instance)
        endpoint = Endpoint(Joint(up, down), signer, verifier, Gate(100), entropy)
        voice = self.voices[name] = Voice(identity, parent, instance, entropy, endpoint)
        if up is not None:
            self.happen(name, ModelHeld(0, MODEL))
        return voice

    def verifier(self) -> Verifier:
        return Verifier(authority_of("fleet").root, FEDERATION, LIMIT_BYTES)

    def begin(self) -> None:
        """Every device asks for a place."""
        for name, voice in self.voices.items():
            if voice.endpoint.joint.down is None:
                self.happen(name, Begin(1))
        self.run()

    def lose(self, name: str, reason: str = "was lost") -> None:
        """The last will of a process reaches its parent."""
        voice = self.voices.pop(name)
        assert voice.parent is not None
        self.voices[voice.parent].endpoint.release(voice.identity.address, voice.instance)
        self.happen(voice.parent, Gone(name, voice.instance, reason))
        self.run()

    # ---- what happens

    def happen(self, name: str, event: Event) -> list[Outcome]:
        return self.did(name, self.voices[name].endpoint.handle(event, self.now))

    def receive(self, name: str, data: bytes, *, retained: bool = False) -> list[Outcome]:
        endpoint = self.voices[name].endpoint
        return self.did(name, endpoint.receive(data, self.now, retained=retained))

    def did(self, name: str, outcomes: list[Outcome]) -> list[Outcome]:
        """Take the part of the host."""
        for outcome in outcomes:
            self.outcomes.append((name, outcome))
            match outcome:
                case Outgoing():
                    self.post(name, outcome)
                case Work(plan) if self.voices[name].endpoint.joint.down is None:
                    if name not in self.idle:
                        self.train(name, plan)
                case _:
                    pass
        return outcomes

    def post(self, name: str, out: Outgoing) -> None:
        voice = self.voices[name]
        if out.channel == "up":
            assert voice.parent is not None
            readers = [voice.parent]
        elif out.channel == "down":
            readers = [out.member]
        else:
            readers = [n for n, v in self.voices.items() if v.parent == name]
        self.queue.extend(Letter(name, reader, out.data) for reader in readers)

    def train(self, name: str, plan: wire.Plan) -> None:
        """A repeatable vector in the place of a trained one."""
        if (name, plan.round) not in self.vectors:
            self.vectors[name, plan.round] = vector_of(name, plan)
        self.happen(name, Contribution(plan.round, self.vectors[name, plan.round]))

    def run(self) -> None:
        """Deliver letters until there are none."""
        for _ in range(10_000):
            if not self.queue:
                return
            for letter in self.carry(self.queue.popleft()):
                if letter.to in self.voices:
                    before = self.voices[letter.to].endpoint.joint
                    self.delivered.append(Delivered(letter, before, self.now))
                    self.receive(letter.to, letter.data)
        raise AssertionError("letters without end")

    def advance(self, seconds: float) -> None:
        """Move the clock; whoever asked to be woken is."""
        until = self.now + seconds
        for _ in range(1000):
            due = [
                (voice.endpoint.joint.wake, name)
                for name, voice in self.voices.items()
                if name not in self.stopped
                and voice.endpoint.joint.wake is not None
                and voice.endpoint.joint.wake <= until
            ]
            if not due:
                self.now = until
                return
            wake, name = min(due)
            self.now = max(self.now, wake)
            self.happen(name, Tick())
            self.run()
        raise AssertionError(f"woken without end: {due}")

    def order(self, name: str, round_: int, **changes: Any) -> None:
        """Order a round and run it as far as it goes."""
        self.happen(name, order_of(round_, **changes))
        self.run()

    # ---- what came of it

    def of(self, name: str, kind: type[Kind]) -> list[Kind]:
        return [one for who, one in self.outcomes if who == name and isinstance(one, kind)]

    def sums(self, name: str) -> list[RoundDone]:
        return self.of(name, RoundDone)

    def failures(self, name: str) -> list[tuple[int, str]]:
        return [(one.round, one.reason) for one in self.of(name, RoundFailed)]

    def refusals(self, name: str) -> list[str]:
        return [str(one.error) for one in self.of(name, Refused)]

    def plain_sum(self, done: RoundDone) -> Ring:
        total: Ring = np.zeros_like(done.total)
        for member in done.survivors:
            total += self.vectors[member, done.plan.round]
        return total

    def letters(self, kind: type[wire.Message], **where: str) -> list[Letter]:
        """Delivered letters of a kind; `sender=` and `to=` narrow them down."""
        return [
            one.letter
            for one in self.delivered
            if kind_of(one.letter.data) == kind.KIND
            and all(getattr(one.letter, key) == value for key, value in where.items())
        ]

    def open(self, data: bytes) -> Envelope:
        return self.verifier().open(data, self.now)

    def message(self, data: bytes) -> wire.Message:
        opened = self.open(data)
        return wire.decode(opened.kind, opened.body)

    def sign(self, name: str, message: wire.Message) -> bytes:
        """A further message of this process, as if it had wanted to send it."""
        return self.voices[name].endpoint.sign(message)


def kind_of(data: bytes) -> int:
    """The kind byte of an envelope."""
    return data[3]


def wrap(identity: Identity, kind: int, body: bytes, instance: bytes, sequence: int) -> bytes:
    """An envelope signed by anybody, with any body."""
    return Signer(identity.key, identity.certificate, instance).wrap(kind, body, sequence)


def order_of(round_: int, **changes: Any) -> Order:
    fields: dict[str, Any] = {
        "round": round_,
        "model_version": 0,
        "model_hash": MODEL,
        "task": b'{"kind":"train"}',
        "dimension": 12,
        "devices": 10,
        "clip": 1.0,
        "max_samples": 100,
        "bits": 32,
        "epochs": 1,
        "batch_size": 8,
        "learning_rate": 0.1,
        "seed": 0,
        "deadline": 8.0,
    }
    return Order(**{**fields, **changes})


def vector_of(name: str, plan: wire.Plan) -> Ring:
    numbers = np.random.default_rng([plan.round, *name.encode()])
    delta = numbers.normal(0, 0.3, plan.dimension).astype(np.float32)
    noise = numbers.integers(0, 2**32, plan.dimension, np.uint32)
    encoding = encoding_of(plan)
    n = int(numbers.integers(1, 50))
    return encoding.encode(delta, n, Figures(n, n // 2, 0.5 * n), noise)


Wrap = Callable[[Identity, int, bytes, bytes, int], bytes]
IdentityOf = Callable[..., Identity]
OrderOf = Callable[..., Order]


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def trio(stage: Stage) -> Stage:
    """A cloud with three devices, keyed and ready for round 1."""
    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in ("dev-1", "dev-2", "dev-3"):
        stage.device(name, "cloud")
    stage.begin()
    return stage


@pytest.fixture
def tree(stage: Stage) -> Stage:
    """A cloud, two nodes, two devices beneath each, keyed and ready for round 1."""
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for node in ("node-1", "node-2"):
        stage.add("node", node, "cloud", limits=Limits(expected=2))
        for i in (1, 2):
            stage.device(f"{node.replace('node', 'dev')}{i}", node)
    stage.begin()
    return stage


@pytest.fixture(scope="session")
def identify() -> IdentityOf:
    return identity_of


@pytest.fixture(scope="session")
def order() -> OrderOf:
    return order_of


@pytest.fixture(scope="session")
def seal_up() -> Wrap:
    return wrap


@dataclass(frozen=True, slots=True)
class Scene:
    """A whole run of a small fleet with messages of every kind but models, to go back into."""

    stage: Stage
    moments: list[Delivered]

    def one(self, kind: type[wire.Message]) -> Delivered:
        """The last time a message of this kind arrived and meant something."""
        return [m for m in self.moments if kind_of(m.letter.data) == kind.KIND][-1]

    def process_at(self, moment: Delivered) -> Endpoint:
        """The process that got the letter, as it was before; its gate has seen nobody yet."""
        name = moment.letter.to
        identity = self.stage.identities[name]
        entropy = entropy_of(99, name)
        signer = Signer(identity.key, identity.certificate, entropy(8))
        return Endpoint(moment.before, signer, self.stage.verifier(), Gate(100), entropy)


@pytest.fixture(scope="session")
def scene() -> Scene:
    """A node with three devices beneath a cloud with another node: keys, a round, one that a device
    gives up, one that fails, a departure, and an epoch after it."""
    stage = Stage()
    stage.add("cloud", "cloud", limits=Limits(expected=2))
    for node, count in (("node-1", 3), ("node-2", 2)):
        stage.add("node", node, "cloud", limits=Limits(expected=count))
        for i in range(1, count + 1):
            stage.device(f"{node.replace('node', 'dev')}{i}", node)
    stage.begin()
    stage.order("cloud", 1)
    stage.idle = {"dev-12"}
    stage.order("cloud", 2)
    stage.happen("dev-12", NoContribution(2, "no samples yet"))
    stage.run()
    stage.idle = {"dev-11", "dev-21"}
    stage.order("cloud", 3)
    stage.happen("dev-21", NoContribution(3, "too hot"))
    stage.run()
    stage.idle = set()
    stage.happen("dev-13", Withdraw("battery low"))
    stage.run()
    stage.happen("dev-13", Begin(1))
    stage.run()
    stage.advance(6)
    stage.order("cloud", 4)
    meant = [
        one
        for one in stage.delivered
        if stage.voices[one.letter.to].endpoint.joint is not one.before
    ]
    return Scene(stage, meant)
