"""Brokers of other makes: their rules say what ours say, and their limits are kept."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.broker.aws_iot import POLICY_BYTES, beyond_limits, compact
from edgechoir.broker.aws_iot import member_policy as aws_policy
from edgechoir.broker.aws_iot import monitor_policy as aws_monitor_policy
from edgechoir.broker.generate import MAKES, generate
from edgechoir.broker.nats import subject
from edgechoir.broker.rabbitmq import any_of, definitions
from edgechoir.broker.reference import FEDERATION, SETTINGS
from edgechoir.errors import OperatorError
from edgechoir.transport.blobs import LIMIT
from edgechoir.transport.topics import (
    BULK_CHANNELS,
    JSON_CHANNELS,
    PAIR_CHANNELS,
    TIERS,
    Topic,
    channel_filter,
    down_filter,
    matches,
    up_filter,
)
from edgechoir.types import NAME, Address, MemberId

if TYPE_CHECKING:
    from tests.broker.conftest import Connect, Fleet

RULES = FEDERATION.access
names = st.from_regex(NAME, fullmatch=True)
USERS = sorted(RULES.grants)
LEVELS = "edgechoir v1 alps device node cloud bridge dev-1 dev-2 node-1 eye-1 + #"
LEVELS += " status metrics predictions plan model roster revoked up down 0"
levels = st.sampled_from(LEVELS.split())
near = st.lists(levels, max_size=5).map(lambda rest: "/".join(["edgechoir/v1/alps", *rest]))


@st.composite
def topics(draw: st.DrawFn) -> Topic:
    """Any topic that any topology may produce."""
    channel = draw(st.sampled_from([*JSON_CHANNELS, *BULK_CHANNELS, *PAIR_CHANNELS]))
    rest = ""
    if channel in PAIR_CHANNELS:
        rest = draw(names)
    elif channel in BULK_CHANNELS:
        rest = str(draw(st.integers(0, 999_999_999)))
    tier = draw(st.sampled_from(sorted(TIERS)))
    return Topic(draw(names), tier, MemberId(draw(names)), channel, rest)


@pytest.mark.parametrize("make", MAKES)
def test_every_make_says_in_its_files_how_far_it_was_tested(make: str) -> None:
    if make == "bridge":
        with pytest.raises(OperatorError, match="a bridge needs"):
            generate(make, SETTINGS, FEDERATION, SETTINGS.state)
        return
    text = "".join(generate(make, SETTINGS, FEDERATION, SETTINGS.state).values())
    assert bool(re.search(r"Tested with \w+ [0-9.]+", text)) != ("Not tested: " in text)


@given(user=st.sampled_from(USERS), topic=near)
def test_rabbitmq_lets_publish_what_ours_lets(user: str, topic: str) -> None:
    if "+" in topic or "#" in topic:
        return
    grant = RULES.grants[MemberId(user)]
    allowed = re.search(any_of("alps", grant.write), topic.replace("/", ".")) is not None
    assert allowed == RULES.allows(user, "write", topic)


@given(user=st.sampled_from(USERS), pattern=near)
def test_rabbitmq_lets_subscribe_to_no_more_than_ours(user: str, pattern: str) -> None:
    if "#" in pattern.split("/")[:-1]:
        return
    key = pattern.replace("/", ".").replace("+", "*")
    grant = RULES.grants[MemberId(user)]
    if re.search(any_of("alps", grant.read), key):
        assert RULES.allows(user, "subscribe", pattern)


def test_rabbitmq_lets_subscribe_to_all_that_the_transport_asks_for() -> None:
    rule = any_of("alps", RULES.grants[MemberId("dev-1")].read)
    node = Address("node", MemberId("node-1"))
    asked = [up_filter("alps", "dev-1"), down_filter("alps", "dev-1")]
    for channel in BULK_CHANNELS:
        asked.append(channel_filter("alps", channel, node).replace("#", "+"))
        asked.append(channel_filter("alps", channel, node).replace("#", "0"))
    asked.append(channel_filter("alps", "status", node))
    for pattern in asked:
        assert re.search(rule, pattern.replace("/", ".").replace("+", "*")), pattern
    eye = any_of("alps", RULES.grants[MemberId("eye-1")].read)
    assert re.search(eye, "edgechoir.v1.*.*.*.status")


def test_a_user_of_rabbitmq_has_no_password_and_queues_of_its_own_name() -> None:
    said = json.loads(json.dumps(definitions(SETTINGS, FEDERATION)))
    assert [user["name"] for user in said["users"]] == USERS
    assert {user["password_hash"] for user in said["users"]} == {""}
    (mine,) = (p for p in said["permissions"] if p["user"] == "dev-1")
    for queue, may in {
        "mqtt-subscription-dev-1.0aqos1": True,
        "mqtt-subscription-dev-10.0aqos1": False,
        "mqtt-subscription-dev-2.0aqos1": False,
        "amq.topic": False,
    }.items():
        assert bool(re.search(mine["configure"], queue)) == may
    assert re.search(mine["write"], "amq.topic")


def test_emqx_hivemq_and_nats_name_each_member_with_its_own_topics() -> None:
    emqx = generate("emqx", SETTINGS, FEDERATION, SETTINGS.state)["acl.conf"]
    hivemq = generate("hivemq", SETTINGS, FEDERATION, SETTINGS.state)
    roles = ElementTree.fromstring(hivemq["credentials.xml"]).iter("role")
    assert ElementTree.fromstring(hivemq["config.xml"]).tag == "hivemq"
    said = {role.findtext("id"): [t.text for t in role.iter("topic")] for role in roles}
    nats = generate("nats", SETTINGS, FEDERATION, SETTINGS.state)["nats.conf"]
    for user, grant in RULES.grants.items():
        assert said[user] == [*grant.write, *grant.read]
        assert f'{{allow, {{username, "{user}"}}, subscribe, ["{grant.read[0]}"' in emqx
        assert f'"CN={user},OU=' in nats
        assert all(f'"{subject(topic)}"' in nats for topic in (*grant.write, *grant.read))
    assert emqx.endswith("{deny, all}.\n")
    assert emqx.count("publish") == len([g for g in RULES.grants.values() if g.write])


@given(topic=topics())
def test_no_topic_that_a_topology_may_produce_is_beyond_the_limits_of_aws(topic: Topic) -> None:
    assert beyond_limits(str(topic), LIMIT) == ""


def test_what_aws_refuses_is_named() -> None:
    assert "257 bytes" in beyond_limits("x" * 257, 1)
    assert "8 slashes" in beyond_limits("a/b/c/d/e/f/g/h/i", 1)
    assert "131073 bytes" in beyond_limits("a", 131_073)


@given(name=names)
def test_the_policies_for_aws_fit_whatever_the_federation_is_called(name: str) -> None:
    assert len(compact(aws_policy(name))) <= POLICY_BYTES
    assert len(compact(aws_monitor_policy(name))) <= POLICY_BYTES


@given(topic=topics())
def test_the_policy_for_aws_lets_a_member_write_its_own_topics_and_no_others(topic: Topic) -> None:
    statements = aws_policy(topic.federation)["Statement"]
    assert isinstance(statements, list)
    (publish,) = (s for s in statements if "iot:Publish" in s["Action"])
    (resource,) = publish["Resource"]
    for thing, tier, may in (
        (topic.member, topic.tier, True),
        (f"{topic.member}x", topic.tier, False),
        (topic.member, "other", False),
    ):
        filled = resource.replace("${iot:Connection.Thing.ThingName}", thing)
        filled = filled.replace("${iot:Connection.Thing.Attributes[tier]}", tier)
        pattern = filled.removeprefix("arn:aws:iot:*:*:topic/").removesuffix("*") + "#"
        assert matches(pattern, str(topic)) is may


@pytest.mark.e2e
def test_a_full_chunk_on_the_longest_topic_passes_a_broker_with_the_limits_of_aws(
    fleet: Fleet,
) -> None:
    """mosquitto counts topic and properties too: 256 bytes and a few for them, and no more."""
    longest = f"{'d' * 32}"
    fleet.enrol("device", longest)
    topic = f"edgechoir/v1/alps/device/{longest}/up/node-1"
    chunk = os.urandom(LIMIT)

    def body(connect: Connect) -> None:
        node, device = connect("node-1"), connect(longest)
        assert node.connect() == device.connect() == "connected"
        node.subscribe("edgechoir/v1/+/+/+/up/node-1")
        device.publish(topic, chunk)
        assert node.receive().payload == chunk

    fleet.serve("mosquitto", body, max_packet=131_072 + 256 + 16)
