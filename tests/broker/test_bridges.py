"""Two brokers and a bridge: what crosses, what does not, and what a broken bridge costs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgechoir.broker.access import access
from edgechoir.broker.acl_file import read_acl
from edgechoir.broker.bridges import Bridge, Upper, read_bridges, session_secret
from edgechoir.broker.check_acl import check_acl
from edgechoir.broker.check_conf import check_conf
from edgechoir.broker.conf_file import read_conf
from edgechoir.broker.mosquitto import mosquitto_files
from edgechoir.broker.roster import read_roster
from edgechoir.broker.run import running_broker
from edgechoir.errors import OperatorError
from edgechoir.fleet.enrolment import MemberPaths
from edgechoir.types import Address, MemberId

if TYPE_CHECKING:
    from tests.broker.conftest import Client, Fleet, NewClient

    from edgechoir.broker.settings import BrokerSettings

ROOT = "edgechoir/v1/alps"
NODE = Address("node", MemberId("node-1"))
DEV_1, DEV_2 = (Address("device", MemberId(name)) for name in ("dev-1", "dev-2"))
SITE = Address("bridge", MemberId("site-a"))
FILE = '[site-a]\nchildren = { "node/node-1" = ["device/dev-1"] }\n'


def test_a_bridge_carries_what_its_members_and_their_parents_say_and_no_more() -> None:
    bridge = Bridge(SITE.member, {NODE: (DEV_1,)}, shown=(DEV_2,))
    assert set(bridge.up("alps")) == {
        f"{ROOT}/device/dev-1/status",
        f"{ROOT}/device/dev-2/status",
        f"{ROOT}/device/dev-1/up/node-1",
    }
    assert set(bridge.down("alps")) == {
        f"{ROOT}/node/node-1/status",
        f"{ROOT}/node/node-1/plan/#",
        f"{ROOT}/node/node-1/roster/#",
        f"{ROOT}/node/node-1/model/#",
        f"{ROOT}/node/node-1/revoked/#",
        f"{ROOT}/node/node-1/down/dev-1",
    }
    answers = set(replace(bridge, predictions=True).up("alps")) - set(bridge.up("alps"))
    assert answers == {f"{ROOT}/device/{name}/predictions" for name in ("dev-1", "dev-2")}


def test_the_broker_above_lets_a_bridge_speak_for_its_members_only() -> None:
    rules = access(
        "alps", [NODE, DEV_1, DEV_2, SITE], {SITE.member: Bridge(SITE.member, {NODE: (DEV_1,)})}
    )
    for topic, may in {
        "device/dev-1/status": True,
        "device/dev-1/up/node-1": True,
        "device/dev-1/up/cloud-1": False,
        "device/dev-1/predictions": False,
        "device/dev-2/status": False,
        "node/node-1/down/dev-1": False,
        "bridge/site-a/status": False,
    }.items():
        assert rules.allows("site-a", "write", f"{ROOT}/{topic}") is may, topic
    for topic, may in {
        "node/node-1/down/dev-1": True,
        "node/node-1/down/dev-2": False,
        "node/node-1/model/3": True,
        "node/node-2/model/3": False,
        "device/dev-2/status": False,
        "device/dev-1/up/node-1": False,
    }.items():
        assert rules.allows("site-a", "read", f"{ROOT}/{topic}") is may, topic
    assert not access("alps", [NODE, SITE]).grants.get(SITE.member)


def test_bridges_toml_is_read_and_who_is_not_in_the_fleet_is_left_out(tmp_path: Path) -> None:
    assert read_bridges(tmp_path, [NODE]) == {}
    (tmp_path / "bridges.toml").write_text(
        '[site-a]\nchildren = { "node/node-1" = ["device/dev-1", "device/gone"] }\n'
        'shown = ["device/dev-2"]\npredictions = true\n[site-b]\n'
    )
    assert read_bridges(tmp_path, [NODE, DEV_1, DEV_2, SITE]) == {
        SITE.member: Bridge(SITE.member, {NODE: (DEV_1,)}, (DEV_2,), True)
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[site-a", "is not TOML"),
        ("[site-a]\nchild = {}\n", "site-a.child: Extra inputs"),
        ('[site-a]\nshown = ["dev-1"]\n', "'dev-1', expected TIER/MEMBER"),
        ('[site-a]\nshown = ["monitor/eye-1"]\n', "expected TIER/MEMBER"),
        ('["A B"]\n', "String should match"),
    ],
)
def test_a_broken_bridges_toml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bridges.toml").write_text(text)
    with pytest.raises(OperatorError, match=message):
        read_bridges(tmp_path, [NODE, DEV_1, SITE])


def test_a_broken_bridges_toml_holds_up_no_revocation(fleet: Fleet) -> None:
    fleet.enrol("bridge", "site-a")
    files = fleet.settings.files
    (files.directory / "bridges.toml").write_text(FILE)
    assert "site-a" in read_roster(files).access.grants
    (files.directory / "bridges.toml").write_text("[site-a")
    fleet.revoke("dev-1")
    grants = read_roster(files).access.grants
    assert "dev-1" not in grants
    assert "site-a" not in grants


def test_rules_of_a_bridge_that_are_too_wide_are_found(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text(
        f"user site-a\ntopic write {ROOT}/device/dev-1/status\ntopic write {ROOT}/device/+/status\n"
        f"topic readwrite {ROOT}/#\ntopic read {ROOT}/+/+/plan/#\n"
    )
    found = check_acl(read_acl(acl), str(acl), bridges=["site-a"])
    assert [c.where for c in found] == [f"{acl}:3", f"{acl}:4", f"{acl}:5"]


@dataclass
class Chain:
    """A broker above and one below; the second is bridged to the first."""

    fleet: Fleet
    upper: BrokerSettings
    lower: BrokerSettings
    client: NewClient

    @contextlib.asynccontextmanager
    async def both(self) -> AsyncIterator[None]:
        async with running_broker(self.upper), running_broker(self.lower):
            yield

    def above(self, member: str, will: tuple[str, bytes] | None = None) -> Client:
        return self.client(self.fleet, member, self.upper.port, will)

    def below(self, member: str, will: tuple[str, bytes] | None = None) -> Client:
        return self.client(self.fleet, member, self.lower.port, will)


@pytest.fixture
def chain(fleet: Fleet, port: int, new_client: NewClient) -> Chain:
    identity = fleet.enrol("bridge", "site-a")
    (fleet.settings.files.directory / "bridges.toml").write_text(FILE)
    upper = replace(fleet.settings, kind="mosquitto", persistent=True)
    lower = replace(
        upper,
        state=fleet.root / "lower",
        port=port,
        upper=Upper(SITE.member, "localhost", upper.port, identity),
    )
    return Chain(fleet, upper, lower, new_client)


def run(chain: Chain, body: Callable[[], None]) -> None:
    async def main() -> None:
        async with chain.both():
            await asyncio.to_thread(body)

    asyncio.run(main())


def test_what_is_generated_for_a_bridge_has_nothing_wrong(chain: Chain, tmp_path: Path) -> None:
    federation = read_roster(chain.lower.files).federation
    files = mosquitto_files(chain.lower, federation, place=str(tmp_path), user=None)
    conf = tmp_path / "mosquitto.conf"
    conf.write_text(files["mosquitto.conf"])
    assert [c for c in check_conf(read_conf(conf)) if c.weight == "wrong"] == []
    for old, new, seen in (
        ("bridge_insecure false", "bridge_insecure true", "bridge_insecure"),
        ("bridge_cafile", "# ", "without TLS"),
        ("bridge_certfile", "# ", "certificate of its own"),
        ("bridge_max_packet_size 132096", "bridge_max_packet_size 1000", "bridge_max_packet_size"),
        (f"topic {ROOT}/device/dev-1/status out", "topic # both", "topic # both"),
    ):
        conf.write_text(files["mosquitto.conf"].replace(old, new))
        found = [c for c in check_conf(read_conf(conf)) if c.weight == "wrong"]
        assert any(seen in c.seen for c in found), (seen, found)


def test_a_bridge_that_nobody_is_behind_is_refused(chain: Chain) -> None:
    (chain.lower.files.directory / "bridges.toml").write_text("")
    federation = read_roster(chain.lower.files).federation
    with pytest.raises(OperatorError, match=r"site-a is not in .*bridges\.toml"):
        mosquitto_files(chain.lower, federation, place="/x", user=None)


def test_the_session_of_a_bridge_follows_from_its_key(chain: Chain) -> None:
    assert chain.lower.upper is not None
    first = session_secret(chain.lower.upper.identity)
    assert (
        first
        == session_secret(chain.lower.upper.identity)
        != session_secret(chain.fleet.enrol("bridge", "site-b"))
    )
    with pytest.raises(OperatorError, match=r"member\.key is missing"):
        session_secret(MemberPaths(chain.fleet.root / "nobody"))


@pytest.mark.e2e
def test_messages_cross_to_whom_they_concern_and_retained_ones_stay_so(chain: Chain) -> None:
    def body() -> None:
        node, device = chain.above("node-1"), chain.below("dev-1")
        node.publish(f"{ROOT}/node/node-1/model/0", b"model", retain=True)
        assert device.subscribe(f"{ROOT}/node/node-1/model/+") == "subscribed"
        assert device.receive().payload == b"model"
        assert node.subscribe(f"{ROOT}/+/+/up/node-1") == "subscribed"
        device.publish(f"{ROOT}/device/dev-1/up/node-1", bytes(131_072))
        assert node.receive().payload == bytes(131_072)
        device.publish(f"{ROOT}/device/dev-1/status", b"online", retain=True)
        eye = chain.above("eye-1")
        eye.subscribe(f"{ROOT}/+/+/status")
        assert eye.receive().payload == b"online"
        late = chain.above("node-1")
        late.subscribe(f"{ROOT}/device/dev-1/status")
        status = late.receive()
        assert (status.payload, status.retain) == (b"online", True)
        late = chain.below("dev-1")
        late.subscribe(f"{ROOT}/node/node-1/model/+")
        assert late.receive().retain

    run(chain, body)


@pytest.mark.e2e
def test_nothing_else_crosses(chain: Chain) -> None:
    def body() -> None:
        node, device, other = chain.above("node-1"), chain.below("dev-1"), chain.below("dev-2")
        device.subscribe(f"{ROOT}/node/node-1/plan/+")
        other.subscribe(f"{ROOT}/+/+/down/dev-2")
        node.subscribe(f"{ROOT}/+/+/up/node-1")
        node.subscribe(f"{ROOT}/+/+/status")
        node.publish(f"{ROOT}/node/node-1/down/dev-2", b"not of this site")
        other.publish(f"{ROOT}/device/dev-2/up/node-1", b"not behind the bridge")
        other.publish(f"{ROOT}/device/dev-2/status", b"not behind the bridge")
        device.publish(f"{ROOT}/device/dev-1/up/node-1", b"last")
        node.publish(f"{ROOT}/node/node-1/plan/0", b"last")
        assert node.receive().payload == b"last"
        assert device.receive().payload == b"last"
        assert other.messages.empty()

    run(chain, body)


@pytest.mark.e2e
def test_the_last_will_of_a_member_at_the_site_is_heard_above(chain: Chain) -> None:
    topic = f"{ROOT}/device/dev-1/status"

    def body() -> None:
        node = chain.above("node-1")
        node.subscribe(topic)
        device = chain.below("dev-1", will=(topic, b"lost"))
        device.publish(topic, b"online", retain=True)
        assert node.receive().payload == b"online"
        device.cut()
        assert node.receive().payload == b"lost"

    run(chain, body)


@pytest.mark.e2e
def test_what_is_said_while_the_broker_above_is_away_waits_also_over_a_restart(
    chain: Chain,
) -> None:
    topic = f"{ROOT}/device/dev-1/up/node-1"
    said = [b"%d" % i for i in range(50)]

    def speak() -> None:
        device = chain.below("dev-1")
        for payload in said:
            device.publish(topic, payload)

    def listen() -> Client:
        node = chain.above("node-1")
        assert node.subscribe(topic) == "subscribed"
        return node

    async def main() -> None:
        async with running_broker(chain.lower):
            await asyncio.to_thread(speak)
        async with running_broker(chain.upper):
            node = await asyncio.to_thread(listen)
            async with running_broker(chain.lower):
                heard = await asyncio.to_thread(lambda: [node.receive().payload for _ in said])
        assert heard == said

    asyncio.run(main())
