"""A tree of simulated processes, the faults that befall it, and what must hold in every step."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from edgechoir.errors import EdgechoirError
from edgechoir.identity.authority import create_authority, issue
from edgechoir.identity.certificate import Certified
from edgechoir.identity.keys import new_key
from edgechoir.identity.policy import Policy
from edgechoir.identity.request import make_request
from edgechoir.rounds.endpoint import Outcome, Outgoing
from edgechoir.rounds.events import Record, Refused, RoundDone, RoundFailed
from edgechoir.rounds.schedule import Result
from edgechoir.sim.chance import chance_of, entropy_of
from edgechoir.sim.faults import faults_of
from edgechoir.sim.network import Network
from edgechoir.sim.process import Journal, Process
from edgechoir.types import Address, Entropy, MemberId, Ring

FAULTY_S = 40.0
LIMIT_S = 600.0
WILL_S = 3.0


class ViolationError(EdgechoirError):
    """Something that must always hold did not."""


@dataclass(slots=True, eq=False)
class Post:
    """A place in the tree, whichever process fills it."""

    address: Address
    parent: Post | None
    key: EllipticCurvePrivateKey
    certificate: Certified
    children: list[Post] = field(default_factory=list)
    journal: Journal = field(default_factory=Journal)
    process: Process | None = None
    generations: int = 0
    retained: dict[str, bytes] = field(default_factory=dict)

    lost: bytes | None = None
    """The process that the retained status of this member calls lost."""

    def __str__(self) -> str:
        return str(self.address)

    def near(self) -> list[Post]:
        """Those who watch this member's status."""
        return [*self.children, *([self.parent] if self.parent else [])]


class World:
    """One seed's run. `trace` is the same for the same seed, everywhere."""

    def __init__(self, seed: int, rounds: int = 8, dimension: int = 24) -> None:
        self.seed = seed
        self.rounds = rounds
        self.dimension = dimension
        self.federation = "simulated"
        self.policy = Policy(min_members=2, min_devices=2)
        self.bits = self.chance("ring").choice([16, 32])
        self.finished = False
        self.results: list[Result] = []
        self.trace: list[str] = []
        self.contributed: dict[tuple[str, int], dict[str, Ring]] = {}
        self.faults = faults_of(seed, FAULTY_S)
        self.network = Network(self.faults, self.chance("network"))
        self.authority = create_authority(
            self.federation, self.entropy("authority"), self.network.now - 1e5, 3650
        )
        self.root = self.authority.root
        self.posts: list[Post] = []
        shape = self.chance("shape")
        cloud = self._post("cloud", "cloud", None)
        for e in range(shape.randint(2, 3)):
            edge = self._post("edge-cloud", f"edge-{e}", cloud)
            for n in range(shape.randint(2, 3)):
                node = self._post("node", f"node-{e}{n}", edge)
                for d in range(shape.randint(2, 5)):
                    self._post("device", f"dev-{e}{n}{d}", node)

    def chance(self, name: str) -> random.Random:
        return chance_of(self.seed, name)

    def entropy(self, name: str) -> Entropy:
        return entropy_of(self.seed, name)

    def run(self) -> None:
        """Run to the end. Raises ViolationError."""
        for post in self.posts:
            start = self.chance(f"start {post}").uniform(0, 2)
            self.network.after(start, partial(self.boot, post))
        self._plan_faults()
        self.network.run(LIMIT_S, lambda: self.finished)
        done = sum(result.total is not None for result in self.results)
        self.check(self.finished, f"only {done} of {self.rounds} rounds in {LIMIT_S:g} s: it hangs")

    def boot(self, post: Post) -> None:
        if post.process is not None and post.process.alive:
            return
        post.generations += 1
        post.process = Process(self, post, post.generations)
        self.say(f"{post} starts ({post.generations})")
        # A tier that starts clears what an earlier process of it left with the broker.
        post.retained = {k: v for k, v in post.retained.items() if k == "model"}
        post.lost = None
        for peer in post.near():
            if peer.lost is not None:
                post.process.peer_gone(peer, peer.lost)
        post.process.begin()
        for child in post.children:
            if child.process is not None and post.generations > 1:
                self.network.after(0.5, child.process.parent_back)
        if post.parent is not None:
            for channel, data in post.parent.retained.items():
                self._deliver(post, data, retained=channel != "model")

    def crash(self, post: Post) -> None:
        """Kill a process; the broker sends its will, and something starts it again."""
        process = post.process
        if process is None or not process.alive:
            return
        self.say(f"{post} crashes")
        process.alive = False
        self.network.after(WILL_S, partial(self._will, post, process.instance))
        self.network.after(WILL_S + 2.0, lambda: self.boot(post))

    def _will(self, post: Post, instance: bytes) -> None:
        """The broker sets the status that a process left for this case, for all to read."""
        post.lost = instance
        for peer in post.near():
            if peer.process is not None:
                peer.process.peer_gone(post, instance)

    def freeze(self, post: Post, seconds: float) -> None:
        """Stop a process without its connection noticing, for a while."""
        process = post.process
        if process is None or not process.alive or process.frozen:
            return
        self.say(f"{post} freezes for {seconds:.1f} s")
        process.frozen = True

        def thaw() -> None:
            process.frozen = False
            if process.alive:
                process.carry_out([])

        self.network.after(seconds, thaw)

    def _plan_faults(self) -> None:
        chance = self.chance("faults over time")
        for post in self.posts:
            for second in range(int(self.faults.until)):
                if chance.random() < self.faults.crashes:
                    self.network.after(second, partial(self.crash, post))
                elif chance.random() < self.faults.freezes:
                    seconds = chance.uniform(1, 12)
                    self.network.after(second, partial(self.freeze, post, seconds))

    def send(self, sender: Process, out: Outgoing) -> None:
        """Carry what a process sends to whoever reads that channel."""
        post = sender.post
        if out.channel == "up":
            if post.parent is not None:
                self._carry(post.parent, out.data)
        elif out.channel == "down":
            for child in post.children:
                if child.address.member == out.member:
                    self._carry(child, out.data)
        else:
            post.retained[out.channel] = out.data
            for child in post.children:
                deliver = partial(self._deliver, child, out.data, retained=False)
                self.network.carry(deliver, retained=True)

    def _carry(self, to: Post, data: bytes) -> None:
        self.network.carry(lambda: self._deliver(to, data, retained=False))

    def _deliver(self, to: Post, data: bytes, retained: bool) -> None:
        if to.process is not None:
            to.process.receive(data, retained)

    # ---- what must hold

    def note(self, process: Process, outcome: Outcome) -> None:
        """Write the trace; nothing in it depends on ciphertexts, whose randomness is not ours."""
        match outcome:
            case Outgoing(channel, member):
                self.say(f"{process.post} -> {channel} {member}")
            case Refused(error):
                self.say(f"{process.post} refuses: {error.reason}: {error}")
            case RoundDone(plan, survivors):
                counts = f"{len(survivors)} of {len(plan.cohort)}"
                self.say(f"{process.post} round {plan.round} done by {counts}")
            case RoundFailed(round_, reason):
                self.say(f"{process.post} round {round_} failed: {reason}")
                self.check(bool(reason), f"{process.post} failed round {round_} without a reason")
            case Record(_, round_, _):
                self.say(f"{process.post} records round {round_}")
            case _:
                self.say(f"{process.post} {type(outcome).__name__}")

    def contribute(self, post: Post, round_: int, vector: Ring) -> None:
        """Remember in clear what a member put into a round."""
        if post.parent is not None:
            known = self.contributed.setdefault((str(post.parent), round_), {})
            known[str(post.address.member)] = vector

    def check_sum(self, process: Process, done: RoundDone) -> None:
        """The unmasked sum is the plain sum of the cohort, bit for bit."""
        plain = np.zeros_like(done.total)
        parts = self.contributed.get((str(process.post), done.plan.round), {})
        for member in done.survivors:
            self.check(member in parts, f"{process.post} counts {member}, who gave nothing")
            plain += parts[member]
        self.check(
            bool(np.array_equal(plain, done.total)),
            f"{process.post}: the sum of round {done.plan.round} is not the plain sum",
        )
        self.check(len(done.survivors) > 1, f"{process.post} has unmasked a single member")
        self.contribute(process.post, done.plan.round, done.total)

    def check(self, holds: bool, what: str) -> None:
        if not holds:
            raise ViolationError(f"seed {self.seed} at {self.network.elapsed:.3f} s: {what}")

    def say(self, line: str) -> None:
        self.trace.append(f"{self.network.elapsed:10.4f} {line}")

    def fingerprint(self) -> str:
        """Names the trace."""
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def _post(self, tier: str, name: str, parent: Post | None) -> Post:
        address = Address(tier, MemberId(name))
        entropy = self.entropy(f"key {name}")
        key = new_key(entropy)
        request = make_request(key, self.federation, tier, name)
        certificate = issue(self.authority, request, tier, self.network.now - 10, 365, entropy)
        post = Post(address, parent, key, certificate)
        if parent is not None:
            parent.children.append(post)
        self.posts.append(post)
        return post
