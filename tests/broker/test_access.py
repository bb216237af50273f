"""The rules, by example and for every topic that hypothesis can think of."""

from itertools import product

from hypothesis import assume, given
from hypothesis import strategies as st

from edgechoir.broker.access import access, covers, render_acl
from edgechoir.broker.bridges import HANDED_OUT
from edgechoir.transport import topics
from edgechoir.types import Address, MemberId

MEMBERS = [
    Address(tier, MemberId(member))
    for tier, member in (
        ("device", "dev-1"),
        ("device", "dev-10"),
        ("node", "node-1"),
        ("cloud", "cloud-1"),
        ("monitor", "eye-1"),
        ("broker", "broker"),
    )
]
RULES = access("alps", MEMBERS)

WORDS = """
    edgechoir v1 alps jura device node monitor dev-1 dev-10 node-1 eye-1 broker
    status metrics plan up down model 0 + # $SYS
"""
levels = st.sampled_from(sorted(WORDS.split())) | st.text(max_size=3)
free = st.lists(levels, min_size=1, max_size=8).map("/".join)
ours = st.lists(levels, max_size=5).map(lambda rest: "/".join(["edgechoir/v1/alps", *rest]))
text = free | ours


def matches(topic_filter: str, topic: str) -> bool:
    return topics.matches(topic_filter, topic)


@given(user=st.sampled_from([a.member for a in MEMBERS]) | st.text(max_size=5), topic=text)
def test_a_member_writes_only_below_its_own_topic(user: str, topic: str) -> None:
    if RULES.allows(user, "write", topic):
        own = next(a for a in MEMBERS if a.member == user)
        assert f"{topic}/".startswith(f"edgechoir/v1/alps/{own}/")
        assert "+" not in topic
        assert "#" not in topic


@given(topic=text)
def test_monitors_brokers_and_strangers_write_nothing(topic: str) -> None:
    for user in ("eye-1", "broker", "stranger", ""):
        assert not RULES.allows(user, "write", topic)


@given(topic=text)
def test_brokers_and_strangers_read_nothing(topic: str) -> None:
    for user in ("broker", "stranger", ""):
        assert not RULES.allows(user, "read", topic)
        assert not RULES.allows(user, "subscribe", topic)


@given(user=st.sampled_from([a.member for a in MEMBERS]), topic_filter=text, topic=ours)
def test_a_subscription_that_is_granted_gives_nothing_that_may_not_be_read(
    user: str, topic_filter: str, topic: str
) -> None:
    assume("+" not in topic and "#" not in topic)
    if RULES.allows(user, "subscribe", topic_filter) and matches(topic_filter, topic):
        assert RULES.allows(user, "read", topic)


@given(allowed=text, topic=text)
def test_covering_a_plain_topic_is_matching_it(allowed: str, topic: str) -> None:
    assume("+" not in topic and "#" not in topic)
    assume("#" not in allowed.split("/")[:-1])
    assert covers(allowed, topic) == matches(allowed, topic)


def test_a_filter_that_is_covered_matches_nothing_else() -> None:
    """All filters of up to three levels against all topics of up to four."""
    plain = ["/".join(p) for n in (1, 2, 3) for p in product("a+", repeat=n)]
    filters = ["#", *plain, *(f"{head}/#" for head in plain)]
    every_topic = ["/".join(p) for n in (1, 2, 3, 4) for p in product("ab", repeat=n)]
    matched = {f: {topic for topic in every_topic if matches(f, topic)} for f in filters}
    for allowed, asked in product(filters, repeat=2):
        if covers(allowed, asked):
            assert matched[asked] <= matched[allowed], (allowed, asked)


def test_what_a_member_reads() -> None:
    root = "edgechoir/v1/alps"
    for topic, may in {
        f"{root}/node/node-1/down/dev-1": True,
        f"{root}/node/node-1/down/dev-10": False,
        f"{root}/device/dev-10/up/dev-1": True,
        f"{root}/device/dev-10/up/node-1": False,
        f"{root}/node/node-1/plan": True,
        f"{root}/node/node-1/roster/3": True,
        f"{root}/cloud/cloud-1/model/17": True,
        f"{root}/device/dev-10/status": True,
        f"{root}/device/dev-10/metrics": False,
        f"{root}/device/dev-10/predictions": False,
        "edgechoir/v1/jura/node/node-1/plan": False,
        "$SYS/broker/clients/total": False,
    }.items():
        assert RULES.allows("dev-1", "read", topic) == may, topic


def test_what_parents_hand_out_is_what_travels_in_chunks() -> None:
    assert HANDED_OUT == topics.BULK_CHANNELS


def test_what_a_monitor_reads() -> None:
    root = "edgechoir/v1/alps/device/dev-1"
    assert all(RULES.allows("eye-1", "read", f"{root}/{c}") for c in topics.JSON_CHANNELS)
    for channel in ("plan", "roster", "model/0", "up/node-1", "down/dev-10"):
        assert not RULES.allows("eye-1", "read", f"{root}/{channel}"), channel


def test_the_subscriptions_that_the_transport_makes_are_granted() -> None:
    node = Address("node", MemberId("node-1"))
    wanted = [topics.up_filter("alps", "dev-1"), topics.down_filter("alps", "dev-1")]
    for channel in ("status", *topics.BULK_CHANNELS):
        wanted.append(topics.channel_filter("alps", channel))
        wanted.append(topics.channel_filter("alps", channel, node))
    for topic_filter in wanted:
        assert RULES.allows("dev-1", "subscribe", topic_filter), topic_filter
    for topic_filter in (*topics.monitor_filters(), *topics.monitor_filters("alps")):
        assert RULES.allows("eye-1", "subscribe", topic_filter), topic_filter


def test_the_acl_file_has_a_section_for_each_member_and_no_wider_rule() -> None:
    lines = render_acl(RULES).splitlines()
    assert [line for line in lines if line.startswith("user ")] == [
        "user cloud-1",
        "user dev-1",
        "user dev-10",
        "user eye-1",
        "user node-1",
    ]
    first_user = next(i for i, line in enumerate(lines) if line.startswith("user "))
    assert not any(line.startswith("topic") for line in lines[:first_user])
    monitor = lines[lines.index("user eye-1") : lines.index("user node-1")]
    assert not any("write" in line for line in monitor)
