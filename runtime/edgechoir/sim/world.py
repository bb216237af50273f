"""A tree of simulated processes, and the faults that befall it.

What must hold is in `ledger`. A run is over when, after the last fault, `rounds` rounds have given
a sum; one that does not get there hangs, and that is a violation too.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from dataclasses import dataclass, field
from functools import partial

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from edgechoir.errors import EdgechoirError
from edgechoir.identity.authority import create_authority, issue
from edgechoir.identity.certificate import Certified
from edgechoir.identity.keys import new_key
from edgechoir.identity.policy import Policy
from edgechoir.identity.request import make_request
from edgechoir.rounds.endpoint import Outcome, Outgoing
from edgechoir.rounds.events import Begin, Record, Refused, RoundDone, RoundFailed, Withdraw
from edgechoir.rounds.participant import Phase
from edgechoir.rounds.schedule import Result
from edgechoir.secagg.pads import Keystream
from edgechoir.sim.chance import chance_of, entropy_of
from edgechoir.sim.faults import Faults, faults_of
from edgechoir.sim.ledger import Ledger, ViolationError, read_message
from edgechoir.sim.network import Network
from edgechoir.sim.process import Journal, Process
from edgechoir.types import Address, Entropy, MemberId, Ring

FAULTY_S = 40.0
LIMIT_S = 400.0
WILL_S = 3.0
START_S = 2.0
STATUS_S = 5.0
DAY_S = 86_400.0
OVERHEARD = 64
"""Messages that whoever sends garbage remembers, to break and replay them."""

Shape = tuple[tuple[int, int], ...]
"""For each tier below the cloud the least and most children of one above it."""
SHAPES: tuple[Shape, ...] = (
    ((3, 7),),
    ((2, 3), (2, 4)),
    ((2, 2), (2, 2), (2, 2)),
)
TIERS = {1: ("device",), 2: ("node", "device"), 3: ("edge-cloud", "node", "device")}
LETTERS = {"edge-cloud": "edge", "node": "node", "device": "dev"}


@dataclass(slots=True, eq=False)
class Post:
    """A place in the tree, whichever process fills it."""

    address: Address
    parent: Post | None
    key: EllipticCurvePrivateKey
    certificate: Certified
    children: list[Post] = field(default_factory=list)
    expected: int = 32
    journal: Journal = field(default_factory=Journal)
    images: list[Journal] = field(default_factory=list)
    """What its disk has been, for a restore from a backup."""
    process: Process | None = None
    generations: int = 0
    retained: dict[str, bytes] = field(default_factory=dict)
    lost: bytes | None = None
    """The process that the retained status of this member calls lost."""
    cut: bool = False
    """Whether the link to its parent is down."""

    def __str__(self) -> str:
        return str(self.address)

    def near(self) -> list[Post]:
        """Those who watch this member's status."""
        return [*self.children, *([self.parent] if self.parent else [])]


class World:
    """One seed's run. `trace` is the same for the same seed, everywhere."""

    def __init__(
        self,
        seed: int,
        *,
        rounds: int = 3,
        dimension: int = 16,
        shape: Shape | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.seed = seed
        self.rounds = rounds
        self.dimension = dimension
        self.federation = "simulated"
        self.policy = Policy(min_members=2, min_devices=2)
        self.bits = self.chance("ring").choice([16, 32])
        self.keystream = self.chance("keystream").choice(list(Keystream))
        self.results: list[Result] = []
        self.trace: list[str] = []
        self.done_after = 0
        """Rounds done since the last fault."""
        self.faults = faults or faults_of(seed, FAULTY_S)
        self.network = Network(self.faults, self.chance("network"))
        self.ledger = Ledger(lambda: f"seed {self.seed} at {self.network.elapsed:.3f} s")
        self.overheard: deque[bytes] = deque(maxlen=OVERHEARD)
        self.dying = self.chance("dying")
        self.authority = create_authority(
            self.federation, self.entropy("authority"), self.network.now - 10 * DAY_S, 3650
        )
        self.root = self.authority.root
        self.posts: list[Post] = []
        chosen = shape or self.chance("shape").choice(SHAPES)
        self._plant(self._post("cloud", "cloud", None), chosen, TIERS[len(chosen)], "")

    def _plant(self, above: Post, shape: Shape, tiers: tuple[str, ...], path: str) -> None:
        if not shape:
            return
        chance = self.chance(f"children of {above}")
        count = chance.randint(*shape[0])
        above.expected = chance.choice([count, 32])
        for i in range(count):
            name = f"{LETTERS[tiers[0]]}-{path}{i}"
            self._plant(self._post(tiers[0], name, above), shape[1:], tiers[1:], f"{path}{i}")

    def chance(self, name: str) -> random.Random:
        return chance_of(self.seed, name)

    def entropy(self, name: str) -> Entropy:
        return entropy_of(self.seed, name)

    @property
    def finished(self) -> bool:
        return self.done_after >= self.rounds

    def run(self) -> None:
        """Run to the end. Raises ViolationError."""
        for post in self.posts:
            start = self.chance(f"start {post}").uniform(0, START_S)
            self.network.after(start, partial(self.boot, post))
            self.network.after(start + STATUS_S, partial(self._show_status, post))
        self._plan_faults()
        try:
            self.network.run(LIMIT_S, lambda: self.finished)
        except ViolationError:
            raise
        except EdgechoirError as error:
            self.ledger.check(False, f"{type(error).__name__} out of a step: {error}")
        done = f"{self.done_after} of {self.rounds} rounds in {LIMIT_S:g} s"
        self.ledger.check(self.finished, f"only {done} after the faults: it hangs")

    def result(self, result: Result) -> None:
        """What the root makes of a round."""
        self.results.append(result)
        if result.total is not None and self.network.elapsed >= self.faults.until:
            self.done_after += 1

    # ---- life and death

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
        for peer in post.near():  # the status of each shows the others that it is on line
            if peer.process is not None and peer.process.alive:
                post.process.peer_back(peer, peer.process.instance)
                peer.process.peer_back(post, post.process.instance)
        post.process.begin()
        for child in post.children:
            if child.process is not None and post.generations > 1:
                self.network.after(0.5, child.process.parent_back)
        self._subscribe(post)

    def _show_status(self, post: Post) -> None:
        """Who is on line says so again and again."""
        process = post.process
        if process is not None and process.alive and not process.frozen:
            for peer in post.near():
                link = post if peer is post.parent else peer
                if peer.process is not None and peer.process.alive and not link.cut:
                    peer.process.peer_back(post, process.instance)
        self.network.after(STATUS_S, partial(self._show_status, post))

    def _subscribe(self, post: Post) -> None:
        """Give a reader what the broker keeps of its parent."""
        if post.parent is not None and not post.cut:
            for channel, data in list(post.parent.retained.items()):
                self._deliver(post, data, retained=channel != "model")

    def dies(self, process: Process, outcome: Outcome) -> bool:
        """Whether a process ends here, in the middle of a step, before this is done."""
        return self.network.faulty and self.dying.random() < self.faults.dying

    def crash(self, post: Post) -> None:
        """Kill a process; the broker sends its will, and something starts it again."""
        process = post.process
        if process is None or not process.alive:
            return
        self.say(f"{post} crashes")
        process.alive = False
        chance = self.chance(f"disk {post} {post.generations}")
        # Not the root's: with its models forgotten a run would only begin again.
        if post.parent is not None and post.images and chance.random() < self.faults.rollbacks:
            self.say(f"{post} is restored from an older image")
            post.journal = chance.choice(post.images).image()
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

    def cut(self, post: Post, seconds: float) -> None:
        """Cut a subtree off for a while; a long cut is noticed above."""
        process = post.process
        if post.cut or process is None:
            return
        self.say(f"{post} is cut off for {seconds:.1f} s")
        post.cut = True
        noticed = seconds > WILL_S
        if noticed:
            self.network.after(WILL_S, partial(self._lose_touch, post, process))
        self.network.after(seconds, partial(self._mend, post, process))

    def _lose_touch(self, post: Post, process: Process) -> None:
        above = post.parent.process if post.parent is not None else None
        if above is not None and process.alive:
            above.peer_gone(post, process.instance)

    def _mend(self, post: Post, process: Process) -> None:
        self.say(f"{post} is back")
        post.cut = False
        above = post.parent.process if post.parent is not None else None
        if above is not None and process.alive:
            above.peer_back(post, process.instance)
        self._subscribe(post)

    def depart(self, post: Post, seconds: float) -> None:
        """Let a device leave of its own will, and come back."""
        process = post.process
        if process is None or not process.alive or process.frozen:
            return
        self.say(f"{post} leaves for {seconds:.1f} s")
        process.happen(Withdraw("not idle"))

        def come_back() -> None:
            up = process.endpoint.joint.up
            if process.alive and up is not None and up.phase is Phase.IDLE:
                process.happen(Begin(1))

        self.network.after(seconds, come_back)

    def set_clock(self, post: Post, seconds: float) -> None:
        """Set a process's clock forward or back."""
        if post.process is not None and post.process.alive:
            self.say(f"{post} sets its clock by {seconds / 3600:+.2f} h")
            post.process.offset += seconds

    def litter(self, post: Post, chance: random.Random) -> None:
        """Send a member what no honest process would: noise, a broken message, an old one."""
        data = bytes(chance.getrandbits(8) for _ in range(chance.randint(0, 200)))
        if self.overheard and chance.random() < 0.7:
            data = chance.choice(list(self.overheard))
            if chance.random() < 0.5:
                # Another byte for certain: what ciphertexts hold must not decide what happens.
                at, flip = chance.randrange(len(data)), chance.randint(1, 255)
                data = data[:at] + bytes([data[at] ^ flip]) + data[at + 1 :]
            elif chance.random() < 0.2:
                data = data[: chance.randrange(len(data))]
        self._deliver(post, data, retained=chance.random() < 0.3)

    def _plan_faults(self) -> None:
        faults, network = self.faults, self.network
        for post in self.posts:
            chance = self.chance(f"faults over time {post}")
            leaf = not post.children and post.parent is not None
            for second in range(int(faults.since), int(faults.until)):
                at, kinds = second + chance.random(), faults
                if chance.random() < kinds.crashes:
                    network.after(at, partial(self.crash, post))
                elif chance.random() < kinds.freezes:
                    network.after(at, partial(self.freeze, post, chance.uniform(1, 12)))
                elif post.parent is not None and chance.random() < kinds.cuts:
                    network.after(at, partial(self.cut, post, chance.uniform(0.5, 10)))
                elif leaf and chance.random() < kinds.departures:
                    network.after(at, partial(self.depart, post, chance.uniform(1, 10)))
                if chance.random() < kinds.clock_jumps:
                    network.after(at, partial(self.set_clock, post, chance.uniform(-5, 5) * 3600))
                if chance.random() < kinds.garbage:
                    litter = self.chance(f"litter {post} {second}")
                    network.after(at, partial(self.litter, post, litter))

    # ---- messages

    def send(self, sender: Process, out: Outgoing) -> None:
        """Carry what a process sends to whoever reads that channel."""
        post = sender.post
        self.overheard.append(out.data)
        if out.channel == "up":
            if post.parent is not None:
                self.ledger.speak(str(post), read_message(out.data))
                if not post.cut:
                    self._carry(post.parent, out.data)
        elif out.channel == "down":
            for child in post.children:
                if child.address.member == out.member and not child.cut:
                    self._carry(child, out.data)
        else:
            post.retained[out.channel] = out.data
            for child in post.children:
                if not child.cut:
                    deliver = partial(self._deliver, child, out.data, retained=False)
                    self.network.carry(deliver, retained=True)

    def _carry(self, to: Post, data: bytes) -> None:
        self.network.carry(lambda: self._deliver(to, data, retained=False))

    def _deliver(self, to: Post, data: bytes, retained: bool) -> None:
        if to.process is not None:
            to.process.receive(data, retained)

    # ---- what is seen

    def note(self, process: Process, outcome: Outcome) -> None:
        """Write the trace; nothing in it depends on ciphertexts, whose randomness is not ours."""
        match outcome:
            case Outgoing(channel, member):
                self.say(f"{process.post} -> {channel} {member}")
            case Refused(error):
                self.say(f"{process.post} refuses: {error.reason}")
            case RoundDone(plan, survivors):
                counts = f"{len(survivors)} of {len(plan.cohort)}"
                self.say(f"{process.post} round {plan.round} done by {counts}")
            case RoundFailed(round_, reason):
                self.say(f"{process.post} round {round_} failed: {reason}")
                self.ledger.failed(str(process.post), outcome)
            case Record(_, round_, _):
                self.say(f"{process.post} records round {round_}")
            case _:
                self.say(f"{process.post} {type(outcome).__name__}")

    def contribute(self, process: Process, round_: int, vector: Ring) -> None:
        """Remember in clear what a member puts into a round."""
        process.vectors[round_] = vector
        post = process.post
        if post.parent is not None:
            member = str(post.address.member)
            self.ledger.contribute(str(post.parent), member, round_, vector)

    def done(self, process: Process, done: RoundDone) -> None:
        """A sum has been laid bare."""
        down = process.endpoint.joint.down
        floor = max(2, done.plan.min_survivors)
        self.ledger.done(str(process.post), done, floor)
        self.ledger.check(down is not None, f"{process.post} has a sum of nobody")
        self.contribute(process, done.plan.round, done.total)

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
        began = self.network.now - 9 * DAY_S
        certificate = issue(self.authority, request, tier, began, 365, entropy)
        post = Post(address, parent, key, certificate)
        if parent is not None:
            parent.children.append(post)
        self.posts.append(post)
        return post
