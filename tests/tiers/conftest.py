"""A federation on the in-memory broker, under the access rules of a real one.

The processes are those that the commands run; only devices that learn are replaced by `Learner`,
whose updates a test chooses and which needs no torch.
"""

import asyncio
import hashlib
import itertools
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.broker.access import access
from edgechoir.bundle.load import load_bundle
from edgechoir.config.reading import parse
from edgechoir.config.template import template
from edgechoir.config.tiers import CloudConfig, DeviceConfig, NodeConfig
from edgechoir.demo.show import bundle_path
from edgechoir.demo.watch import Seen, follow
from edgechoir.errors import RemoteError
from edgechoir.fleet.authority_dir import init_authority, sign_request
from edgechoir.fleet.enrolment import Member, install_certificate, load_member, make_request
from edgechoir.fleet.policy_file import pin_policy, write_policy
from edgechoir.identity.envelope import Envelope, Signer, Verifier
from edgechoir.identity.policy import Policy
from edgechoir.learning.fixed_point import Figures
from edgechoir.monitor.records import Metrics
from edgechoir.monitor.status import Status
from edgechoir.rounds.endpoint import ModelArrived, Outcome
from edgechoir.rounds.epoch import encoding_of
from edgechoir.rounds.events import Begin, Contribution, ModelHeld, Work
from edgechoir.tiers.aggregator_process import run_aggregator
from edgechoir.tiers.device_process import run_device
from edgechoir.tiers.host import Host
from edgechoir.tiers.models import Held, read_model
from edgechoir.tiers.process import TierConfig, host_of, state_held
from edgechoir.transport.blobs import Assembler, split
from edgechoir.transport.control import is_control
from edgechoir.transport.link import Link, Will
from edgechoir.transport.memory import MemoryBroker, MemoryLink
from edgechoir.transport.topics import topic
from edgechoir.types import Address, Floats, MemberId

FEDERATION: Final = "alps"
WAIT_S: Final = 20.0
Enrol = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def enrol(tmp_path_factory: pytest.TempPathFactory) -> Enrol:
    """(tier, member) -> its identity directory."""
    folder = tmp_path_factory.mktemp("fleet")
    now = time.time()
    init_authority(folder / "ca", FEDERATION, now - 30 * 86_400, 60, os.urandom, None)
    root = (folder / "ca" / "ca.crt").read_bytes()
    lenient = Policy(min_members=2, min_devices=2, cohorts_apart=True)
    policy = write_policy(folder / "ca", lenient, None).read_bytes()

    def enrol(tier: str, member: str) -> Path:
        home = folder / member
        if not home.exists():
            request = make_request(home, FEDERATION, member, tier, os.urandom).read_bytes()
            issued = sign_request(folder / "ca", request, tier, now, 7, os.urandom, None)
            install_certificate(home, issued.pem, root, now)
            pin_policy(home, policy, load_member(home, now).root)
        return home

    return enrol


@pytest.fixture
def federation(tmp_path: Path, enrol: Enrol) -> "Federation":
    return Federation(tmp_path, enrol)


class Learner:
    """A device's part in the rounds. Asked for an update, it gives `delta` over `n` samples.

    With `idle` set it gives nothing until `answer` is called.
    """

    def __init__(self, config: DeviceConfig, delta: float, n: int) -> None:
        self.config = config
        self.delta, self.n = delta, n
        self.figures = Figures()
        self.idle = False
        self.keep_alive: float | None = None
        self.host: Host
        self.held: Held | None = None
        self.asked: list[wire.Plan] = []
        self.versions: list[int] = []
        self.changed = asyncio.Event()

    async def run(self, open_link: "OpenLink") -> None:
        with state_held(self.config.state):
            await self._run(open_link)

    async def _run(self, open_link: "OpenLink") -> None:
        async with host_of(self.config, self.describe, self.handle, open_link) as host:
            self.host = host
            if self.keep_alive is not None:
                host.place = replace(host.place, keep_alive=self.keep_alive)
            async with asyncio.TaskGroup() as group:
                group.create_task(host.run())
                await host.alone.wait()
                host.happen(Begin(1, host.journal.last_round(FEDERATION)))

    def describe(self) -> dict[str, Any]:
        up = self.host.endpoint.joint.up
        assert up is not None
        return {"round": {"number": up.last_round, "phase": up.phase.value, "epoch": up.epoch}}

    def handle(self, outcome: Outcome) -> None:
        match outcome:
            case Work(plan):
                self.asked.append(plan)
                if not self.idle:
                    self.answer()
            case ModelArrived(model):
                self.exchange(model)
            case _:
                pass
        self.changed.set()

    def exchange(self, model: wire.Model) -> None:
        try:
            held = read_model(model, self.held)
        except RemoteError as error:
            self.host.refuse(error)
            return
        if held is not None:
            self.held = held
            self.versions.append(held.version)
            self.host.happen(ModelHeld(held.version, held.digest))

    def answer(self) -> None:
        """Give the update that was asked for last."""
        plan = self.asked[-1]
        encoding = encoding_of(plan)
        delta = np.full(plan.dimension, self.delta, np.float32)
        vector = encoding.encode(delta, self.n, self.figures, np.zeros(plan.dimension, np.uint32))
        self.host.happen(Contribution(plan.round, vector))

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self.changed.clear()
                await self.changed.wait()


OpenLink = Callable[[TierConfig, Member, Will], MemoryLink]


@dataclass(slots=True)
class Running:
    """Processes that run, and what a monitor sees of them."""

    seen: Seen
    group: asyncio.TaskGroup
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)

    def start(self, name: str, process: Coroutine[Any, Any, None]) -> None:
        self.tasks[name] = self.group.create_task(process, name=name)

    async def stop(self, name: str) -> None:
        """As SIGTERM does."""
        task = self.tasks.pop(name)
        task.cancel()
        await asyncio.wait([task], timeout=WAIT_S)
        assert task.cancelled()

    def status(self, name: str) -> Status:
        return self.seen.statuses[name]

    async def until(self, holds: Callable[[Seen], bool], what: str) -> None:
        await self.seen.until(holds, WAIT_S, what)

    @property
    def done(self) -> list[Metrics]:
        """The rounds that gave a sum."""
        return [metrics for metrics in self.seen.rounds if metrics.outcome == "done"]

    async def rounds(self, more: int) -> None:
        """Wait until so many more rounds have given a sum."""
        count = len(self.done) + more
        await self.until(lambda _: len(self.done) >= count, f"{more} more rounds")

    async def dropped(self, name: str, reason: str, count: int = 1) -> None:
        """Wait until a member's status counts so many refusals of one reason."""
        await self.until(
            lambda seen: (
                name in seen.statuses and seen.statuses[name].drops.get(reason, 0) >= count
            ),
            f"{name} counting {count} x {reason}",
        )


class Federation:
    """The broker, the members' files, and whatever a test wants to say in a member's name."""

    def __init__(self, folder: Path, enrol: Enrol) -> None:
        self.folder = folder
        self.bundle = bundle_path()
        self.first: Floats = load_bundle(self.bundle).params
        self.broker = MemoryBroker(self._allowed)
        self.on_write: Callable[[str, str], None] = lambda member, topic: None
        """Is called with (member, topic) before a message is let in."""
        self.refused: set[str] = set()
        """Topics on which the broker takes nothing."""
        self.subscribed: Counter[tuple[str, str]] = Counter()
        """(member, filter) -> how many times."""
        self.numbers = itertools.count()
        self._changed = asyncio.Event()
        self._enrol = enrol
        self._members: dict[str, str] = {}
        self._links: dict[str, str] = {}

    def _allowed(self, link: str, want: Literal["read", "write"], where: str) -> bool:
        member = link.partition("#")[0]
        self._changed.set()
        if want == "write":
            self.on_write(member, where)
            if where in self.refused:
                return False
        else:
            self.subscribed[member, where] += 1
        rules = access(FEDERATION, [Address(t, MemberId(m)) for m, t in self._members.items()])
        asks = want == "read" and ("+" in where or "#" in where)
        return rules.allows(member, "subscribe" if asks else want, where)

    # ---- members

    def identity(self, tier: str, member: str) -> Path:
        self._members[member] = tier
        return self._enrol(tier, member)

    def forget(self, member: str) -> None:
        """The broker's rules have no place for this member any more."""
        del self._members[member]

    def _config(self, tier: str, member: str, **values: object) -> Any:
        text = template(
            tier,
            federation=FEDERATION,
            member=member,
            identity=str(self.identity(tier, member)),
            **values,
        )
        return parse(text, self.folder / member)

    def cloud(
        self,
        children: int,
        rounds: int = 1000,
        deadline: float = 10.0,
        state: str = "state",
        ends: Mapping[str, object] | None = None,
        **values: object,
    ) -> CloudConfig:
        """`ends` are further keys of its rounds, `values` further sections."""
        config = self._config(
            "cloud",
            "cloud",
            state=state,
            rounds={
                "expected_members": children,
                "join_wait_s": 0.5,
                "rounds": rounds,
                "pause_s": 0.05,
                "deadline_s": deadline,
                **(ends or {}),
            },
            **{"model": {"bundle": str(self.bundle)}, **values},
        )
        assert isinstance(config, CloudConfig)
        return config

    def node(self, member: str, children: int, **values: object) -> NodeConfig:
        rounds = {"expected_members": children, "join_wait_s": 0.5}
        above = {"parent": "cloud", "parent_tier": "cloud"}
        config = self._config("node", member, rounds=rounds, **above, **values)
        assert isinstance(config, NodeConfig)
        return config

    def device(self, member: str, parent: str = "cloud", **values: object) -> DeviceConfig:
        config = self._config(
            "device",
            member,
            parent=parent,
            parent_tier="cloud" if parent == "cloud" else "node",
            **{"model": {"bundle": str(self.bundle)}, **values},
        )
        assert isinstance(config, DeviceConfig)
        return config

    def learner(
        self, member: str, parent: str = "cloud", delta: float = 0.01, n: int = 10
    ) -> Learner:
        return Learner(self.device(member, parent), delta, n)

    # ---- processes

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Running]:
        """Processes end with the block; one that fails ends it."""
        self.identity("monitor", "eye")
        seen = Seen(FEDERATION)
        async with self.broker.link("eye") as eye, asyncio.TaskGroup() as group:
            running = Running(seen, group)
            following = group.create_task(follow(eye, seen, lambda metrics: None))
            yield running
            for name in tuple(running.tasks):
                running.tasks[name].cancel()
            if running.tasks:
                await asyncio.wait(running.tasks.values(), timeout=WAIT_S)
            following.cancel()

    def open_link(self, config: TierConfig, member: Member, will: Will) -> MemoryLink:
        name = str(config.member)
        self._links[name] = f"{name}#{next(self.numbers)}"
        return self.broker.link(self._links[name], will)

    async def aggregator(self, config: CloudConfig | NodeConfig) -> None:
        await run_aggregator(config, self.open_link)

    async def run_device(self, config: DeviceConfig) -> None:
        await run_device(config, self.open_link)

    def start(self, running: Running, cloud: CloudConfig, devices: Sequence[DeviceConfig]) -> None:
        """A cloud and the devices beneath it."""
        running.start("cloud", self.aggregator(cloud))
        for config in devices:
            running.start(str(config.member), self.run_device(config))

    def cut(self, member: str) -> None:
        self.broker.cut(self._links[member])

    def mend(self, member: str) -> None:
        self.broker.mend(self._links[member])

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for something that comes with traffic at the broker."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()

    # ---- saying things in a member's name

    def voice(self, tier: str, member: str) -> "Voice":
        home = self.identity(tier, member)
        return Voice(self, load_member(home, time.time()))

    def retained_status(self, tier: str, member: str) -> Status:
        where = topic(FEDERATION, Address(tier, MemberId(member)), "status")
        return Status.from_json(self.broker.retained[str(where)])

    @asynccontextmanager
    async def overheard(
        self, reader: str, pattern: str, *, controls: bool = False
    ) -> AsyncIterator[list[bytes]]:
        """The blobs that `reader` may read under a filter, in the order of their arrival, and, if
        asked for, what is said about them."""
        blobs: list[bytes] = []
        assembler = Assembler(1 << 24)

        async def listen(link: MemoryLink) -> None:
            async for message in link.messages():
                if is_control(message.payload):
                    if controls:
                        blobs.append(message.payload)
                    continue
                blob = assembler.feed(message.topic, message.payload, 0.0)
                if blob is not None:
                    blobs.append(blob)

        async with self.broker.link(f"{reader}#{next(self.numbers)}") as link:
            await link.subscribe(pattern)
            listening = asyncio.create_task(listen(link))
            try:
                yield blobs
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    @asynccontextmanager
    async def statuses(self, tier: str, member: str) -> AsyncIterator[list[Status]]:
        """Every status that a member publishes from now on."""
        said: list[Status] = []

        async def listen(link: MemoryLink) -> None:
            async for message in link.messages():
                status = Status.from_json(message.payload)
                said.append(status)

        async with self.broker.link(f"eye#{next(self.numbers)}") as link:
            await link.subscribe(str(topic(FEDERATION, Address(tier, MemberId(member)), "status")))
            listening = asyncio.create_task(listen(link))
            try:
                yield said
            finally:
                listening.cancel()
                await asyncio.wait([listening])

    def model(self, version: int, weights: Floats | None = None, **changes: Any) -> wire.Model:
        """A model message; `changes` make it a wrong one."""
        params = (self.first if weights is None else weights).astype("<f4").tobytes()
        fields: dict[str, Any] = {
            "version": version,
            "round": version,
            "digest": hashlib.sha256(params).digest(),
            "params": params,
            "aux": (),
            "devices": 2,
            "samples": 20,
            "final": 0,
        }
        return wire.Model(**{**fields, **changes})


class Voice:
    """Signs with a member's key and publishes under any member's name, as one who has both."""

    def __init__(self, federation: Federation, member: Member) -> None:
        self.member = member
        self.instance = os.urandom(8)
        self._federation = federation
        self._signer = Signer(member.key, member.certificate, self.instance)
        self._sequence = itertools.count()

    def sign(self, message: wire.Message) -> bytes:
        return self._signer.wrap(message.KIND, wire.encode(message), next(self._sequence))

    async def say(self, channel: str, rest: str, data: bytes, *, retain: bool = False) -> None:
        """Publish a blob on this member's own topic: `rest` is the reader, "" for all."""
        async with self._link() as link:
            for index, chunk in enumerate(split(data)):
                where = topic(FEDERATION, self.member.address, channel, rest or str(index))
                await link.publish(str(where), chunk, retain=retain)

    async def publish_status(self, status: Status, *, retain: bool = True) -> None:
        where = str(topic(FEDERATION, self.member.address, "status"))
        async with self._link() as link:
            await link.publish(where, status.to_json(), retain=retain)

    def open(self, data: bytes) -> Envelope:
        return Verifier(self.member.root, FEDERATION, 1 << 24).open(data, time.time())

    def _link(self) -> Link:
        number = next(self._federation.numbers)
        return self._federation.broker.link(f"{self.member.address.member}#{number}")
