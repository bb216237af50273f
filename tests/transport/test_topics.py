import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import LocalError, Malformed
from edgechoir.transport.topics import (
    BULK_CHANNELS,
    JSON_CHANNELS,
    MAX_LENGTH,
    PAIR_CHANNELS,
    TIERS,
    Topic,
    channel_filter,
    down_filter,
    matches,
    monitor_filters,
    parse,
    topic,
    up_filter,
)
from edgechoir.types import Address, MemberId

names = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True)
indices = st.integers(0, 999_999_999).map(str)
ends = st.one_of(
    st.tuples(st.sampled_from(JSON_CHANNELS), st.just("")),
    st.tuples(st.sampled_from(BULK_CHANNELS), st.one_of(st.just(""), indices)),
    st.tuples(st.sampled_from(PAIR_CHANNELS), names),
    st.tuples(st.just("shadow"), st.sampled_from(["desired", "reported"])),
)
topics = st.builds(
    lambda federation, tier, member, end: Topic(federation, tier, MemberId(member), *end),
    names,
    st.sampled_from(sorted(TIERS)),
    names,
    ends,
)


@given(topics)
def test_a_built_topic_is_read_back_and_fits_every_broker(built: Topic) -> None:
    text = str(built)
    assert parse(text) == built
    assert len(text.split("/")) <= 7
    assert len(text.encode()) <= MAX_LENGTH


@given(st.one_of(st.text(), st.from_regex(r"edgechoir/v1/[^/]*/[^/]*/[^/]*/[^/]*(/[^/]*)?")))
def test_a_hostile_topic_is_malformed_or_read_exactly(text: str) -> None:
    try:
        read = parse(text)
    except Malformed:
        return
    assert str(read) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "edgechoir/v1/f/device/a",
        "edgechoir/v2/f/device/a/status",
        "edgechoir/v1/f/robot/a/status",
        "edgechoir/v1/f/device/a/status/x",
        "edgechoir/v1/f/device/a/status/",
        "edgechoir/v1/f/device/a/up",
        "edgechoir/v1/f/device/a/up/b/c",
        "edgechoir/v1/f/device/+/status",
        "edgechoir/v1/f/device/a/#",
        "edgechoir/v1/f/device/a/model/01",
        "edgechoir/v1/f/device/a/model/-1",
        "edgechoir/v1/f/device/a/shadow/other",
        "edgechoir/v1/f/device/a\n/status",
        "edgechoir/v1/F/device/a/status",
    ],
)
def test_what_is_not_of_the_scheme_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        parse(text)


def test_building_a_wrong_topic_is_our_own_fault() -> None:
    with pytest.raises(LocalError, match="channel 'gossip'"):
        topic("f", Address("device", MemberId("a")), "gossip")


def test_chunks_of_one_model_share_a_stream_and_pairs_do_not() -> None:
    assert parse("edgechoir/v1/f/node/n/model/3").stream == "edgechoir/v1/f/node/n/model"
    assert parse("edgechoir/v1/f/node/n/down/a").stream == "edgechoir/v1/f/node/n/down/a"
    assert parse("edgechoir/v1/f/node/n/down/a").sender == Address("node", MemberId("n"))


@given(topics)
def test_filters_cover_their_own_channel_and_no_other_member(built: Topic) -> None:
    text = str(built)
    other = MemberId("a-other" if built.member != "a-other" else "b-other")
    assert matches(channel_filter(built.federation, built.channel), text)
    assert matches(channel_filter(built.federation, built.channel, built.sender), text)
    assert not matches(
        channel_filter(built.federation, built.channel, Address(built.tier, other)), text
    )
    assert matches(up_filter(built.federation, built.rest), text) == (built.channel == "up")
    assert matches(down_filter(built.federation, built.rest), text) == (built.channel == "down")
    assert any(matches(f, text) for f in monitor_filters()) == (built.channel in JSON_CHANNELS)


@pytest.mark.parametrize(
    ("pattern", "text", "covers"),
    [
        ("a/b", "a/b", True),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("#", "a/b", True),
        ("+/b", "a/b", True),
        ("a/b/c", "a/b", False),
        ("a/+", "a", False),
    ],
)
def test_filters_match_as_the_standard_says(pattern: str, text: str, covers: bool) -> None:
    assert matches(pattern, text) is covers
