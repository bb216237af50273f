"""A cohort of real participants without a network: each message is handed over by the caller.

For tests that need every message in their hands: which member gets it, when, and what in its place.
"""

import functools
from dataclasses import dataclass, field

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from edgechoir import wire
from edgechoir.identity.authority import Authority, create_authority, issue
from edgechoir.identity.certificate import Certified
from edgechoir.identity.envelope import Signer, Verifier
from edgechoir.identity.gate import Gate
from edgechoir.identity.keys import new_key
from edgechoir.identity.policy import Policy
from edgechoir.identity.request import make_request
from edgechoir.learning.fixed_point import Figures
from edgechoir.rounds.endpoint import Endpoint, Outcome, Outgoing
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import (
    Begin,
    Contribution,
    Event,
    ExpandMask,
    ModelHeld,
    Record,
    Refused,
    Work,
)
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.participant import Participant
from edgechoir.rounds.participant import Self as Member
from edgechoir.secagg.pads import SignedSeed
from edgechoir.sim.chance import chance_of, entropy_of
from edgechoir.types import Address, MemberId, Ring

FEDERATION = "simulated"
NOW = 1_800_000_000.0
MODEL = bytes(range(32))
PARENT = Address("node", MemberId("node"))


@dataclass(frozen=True, slots=True)
class Identity:
    """What enrolment gives a member."""

    address: Address
    key: EllipticCurvePrivateKey
    certificate: Certified


@functools.cache
def authority_of(ca: str) -> Authority:
    return create_authority(FEDERATION, entropy_of(0, f"authority {ca}"), NOW - 1e6, 3650)


@functools.cache
def identity_of(tier: str, name: str, ca: str = "fleet") -> Identity:
    entropy = entropy_of(0, f"{ca} {tier} {name}")
    key = new_key(entropy)
    request = make_request(key, FEDERATION, tier, name)
    certificate = issue(authority_of(ca), request, tier, NOW - 1e5, 365, entropy)
    return Identity(Address(tier, MemberId(name)), key, certificate)


def verifier_of(ca: str = "fleet") -> Verifier:
    return Verifier(authority_of(ca).root, FEDERATION, 1 << 22)


@dataclass(slots=True)
class Singer:
    """A member's process and what a host would keep for it.

    `sung` holds in clear what it put into each round, `masks` the seeds each upload was masked
    with; a `silent` one is given work and does none.
    """

    identity: Identity
    endpoint: Endpoint
    silent: bool = False
    vectors: dict[int, Ring] = field(default_factory=dict)
    records: list[int] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    seeds: dict[int, tuple[SignedSeed, ...]] = field(default_factory=dict)
    waiting: list[wire.Plan] = field(default_factory=list)

    @property
    def up(self) -> Participant:
        up = self.endpoint.joint.up
        if up is None:
            raise TypeError("a singer has an upper end")
        return up


class Choir:
    """`n` devices beneath one parent that is not part of it. `now` is moved by the caller."""

    def __init__(
        self,
        n: int,
        *,
        seed: int = 0,
        policy: Policy | None = None,
        verifier: Verifier | None = None,
        ca: str = "fleet",
    ) -> None:
        self.seed = seed
        self.now = NOW
        self.policy = policy or Policy(min_members=2, min_devices=2)
        self.verifier = verifier or verifier_of()
        self.ca = ca
        self.singers: dict[str, Singer] = {}
        self.processes = 0
        for i in range(n):
            self.add(f"dev-{i:02}")

    def add(self, name: str) -> Singer:
        """A new process of this member; nothing of one before it is left."""
        identity = identity_of("device", name, self.ca)
        entropy = entropy_of(self.seed, f"{name} {self.processes}")
        self.processes += 1
        me = Member(FEDERATION, identity.address, PARENT, identity.key, self.verifier, self.policy)
        signer = Signer(identity.key, identity.certificate, entropy(8))
        endpoint = Endpoint(Joint(Participant(me)), signer, self.verifier, Gate(8), entropy)
        self.singers[name] = Singer(identity, endpoint)
        self.happen(name, ModelHeld(1, MODEL))
        return self.singers[name]

    def begin(self, name: str) -> list[bytes]:
        return self.happen(name, Begin(1))

    def tell(self, name: str, data: bytes) -> list[bytes]:
        """Hand a message to a member; what it sends up in consequence."""
        singer = self.singers[name]
        return self._carry_out(singer, singer.endpoint.receive(data, self.now))

    def happen(self, name: str, event: Event) -> list[bytes]:
        singer = self.singers[name]
        return self._carry_out(singer, singer.endpoint.handle(event, self.now))

    def sing(self, name: str) -> list[bytes]:
        """Do the work that a silent member has been given."""
        singer = self.singers[name]
        plans, singer.waiting = singer.waiting, []
        return [data for plan in plans for data in self._work(singer, plan)]

    def _carry_out(self, singer: Singer, outcomes: list[Outcome]) -> list[bytes]:
        sent: list[bytes] = []
        for outcome in outcomes:
            match outcome:
                case Outgoing(_, _, data):
                    sent.append(data)
                case Work(plan):
                    singer.waiting.append(plan)
                case ExpandMask(round_, seeds):
                    singer.seeds[round_] = seeds
                case Record(_, round_, _):
                    singer.records.append(round_)
                case Refused(error):
                    singer.refused.append(str(error))
                case _:
                    pass
        if not singer.silent and singer.waiting:
            sent += self.sing(str(singer.identity.address.member))
        return sent

    def _work(self, singer: Singer, plan: wire.Plan) -> list[bytes]:
        name = str(singer.identity.address.member)
        vector = singer.vectors.setdefault(plan.round, self.vector_of(name, plan))
        return self.happen(name, Contribution(plan.round, vector))

    def vector_of(self, name: str, plan: wire.Plan) -> Ring:
        """A repeatable vector in the place of a trained one."""
        numbers = np.random.default_rng([self.seed, plan.round, *name.encode()])
        delta = numbers.normal(0, 0.3, plan.dimension).astype(np.float32)
        noise = numbers.integers(0, 2**32, plan.dimension, np.uint32)
        n = chance_of(self.seed, f"samples {name}").randint(1, plan.max_samples)
        return encoding_of(plan).encode(delta, n, Figures(n, n // 2, 0.5 * n), noise)
