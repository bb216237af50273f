"""A configuration of ours has nothing wrong; each thing that can be wrong in one is found."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgechoir.broker.acl_file import overlap, read_acl
from edgechoir.broker.check import check
from edgechoir.broker.generate import generate, write_files
from edgechoir.broker.roster import read_roster
from edgechoir.errors import OperatorError
from edgechoir.transport.topics import matches

if TYPE_CHECKING:
    from tests.broker.conftest import Fleet

    from edgechoir.broker.complaint import Complaint

YEAR_S = 365 * 86_400.0


@pytest.fixture
def conf(fleet: Fleet) -> Path:
    """A generated configuration, with everything that it names."""
    settings = replace(fleet.settings, persistent=True, websockets_port=8884)
    federation = read_roster(settings.files).federation
    folder = fleet.root / "generated"
    write_files(generate("mosquitto", settings, federation, folder), folder)
    return folder / "mosquitto.conf"


def wrong(path: Path, now: float | None = None) -> list[Complaint]:
    found = check(path, time.time() - 86_400 if now is None else now)
    return [complaint for complaint in found if complaint.weight == "wrong"]


def test_what_we_generate_has_nothing_wrong(conf: Path) -> None:
    for path in (conf, conf.parent, conf.parent / "acl"):
        assert wrong(path) == []


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("allow_anonymous false", "allow_anonymous true", "allow_anonymous true"),
        ("tls_version tlsv1.3", "tls_version tlsv1.1", "tls_version tlsv1.1"),
        ("require_certificate true", "", "no require_certificate"),
        ("require_certificate true", "require_certificate false", "require_certificate false"),
        ("use_identity_as_username true", "", "no use_identity_as_username"),
        ("crlfile", "# crlfile", "no crlfile"),
        ("cafile", "capath", "capath"),
        ("certfile", "# certfile", "no certfile"),
        ("acl_file", "# acl_file", "no acl_file"),
        ("max_packet_size 132096", "", "no max_packet_size"),
        ("max_packet_size 132096", "max_packet_size 131072", "max_packet_size 131072"),
        ("max_packet_size 132096", "message_size_limit 100000", "message_size_limit 100000"),
        ("max_queued_messages 2048", "max_queued_messages 0", "max_queued_messages 0"),
        ("max_queued_bytes 67108864", "", "no max_queued_bytes"),
        ("max_inflight_messages 20", "max_inflight_messages 0", "max_inflight_messages 0"),
        ("persistent_client_expiration 1d", "", "no persistent_client_expiration"),
        ("persistence true", "retain_available false", "retain_available false"),
        ("max_connections 1024", "use_username_as_clientid true", "use_username_as_clientid"),
        ("max_connections 1024", "max_qos 0", "max_qos 0"),
        ("protocol websockets", "protocol websockets\ncrlfile /x", "crlfile in a websockets"),
    ],
)
def test_what_is_unsafe_or_does_not_work_is_found(
    conf: Path, old: str, new: str, seen: str
) -> None:
    text = conf.read_text()
    assert f"\n{old}" in text
    conf.write_text(text.replace(f"\n{old}", f"\n{new}"))
    found = wrong(conf)
    assert any(seen in complaint.seen for complaint in found), found
    assert all(c.expected and c.do and c.where for c in found)


@pytest.mark.parametrize(
    ("old", "new", "seen"),
    [
        ("persistence true", "persistence false", "persistence false"),
        ("tls_version tlsv1.3", "tls_version tlsv1.2", "tls_version tlsv1.2"),
        ("set_tcp_nodelay true", "", "no set_tcp_nodelay"),
        ("memory_limit", "# memory_limit", "no memory_limit"),
        ("max_connections 1024", "", "no max_connections"),
        ("max_inflight_messages 20", "max_inflight_messages 1", "max_inflight_messages 1"),
        ("max_queued_messages 2048", "", "no max_queued_messages"),
        ("persistence true", "user root", "user root"),
        ("protocol websockets", "protocol websockets", "a websockets listener"),
        ("acl_file", "plugin /x.so\nacl_file", "plugin /x.so"),
    ],
)
def test_what_is_worth_knowing_is_noted(conf: Path, old: str, new: str, seen: str) -> None:
    text = conf.read_text()
    assert f"\n{old}" in text
    conf.write_text(text.replace(f"\n{old}", f"\n{new}"))
    notes = [c for c in check(conf, time.time()) if c.weight == "note"]
    assert any(seen in complaint.seen for complaint in notes), notes


def test_a_line_says_where_it_stands(conf: Path) -> None:
    lines = conf.read_text().splitlines()
    conf.write_text("\n".join(lines).replace("allow_anonymous false", "allow_anonymous true"))
    places = {c.where for c in wrong(conf)}
    expected = {f"{conf}:{n}" for n, line in enumerate(lines, 1) if line == "allow_anonymous false"}
    assert places == expected


def test_options_before_a_listener_count_for_it_unless_each_has_its_own(tmp_path: Path) -> None:
    conf = tmp_path / "mosquitto.conf"
    for own, found in (("false", True), ("true", False)):
        conf.write_text(
            f"per_listener_settings {own}\nallow_anonymous true\nlistener 1883 127.0.0.1\n"
        )
        assert any("allow_anonymous" in c.seen for c in wrong(conf)) is found


def test_a_file_of_an_included_directory_counts(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.conf").write_text("allow_anonymous true\n")
    conf = tmp_path / "mosquitto.conf"
    conf.write_text(f"listener 1883\ninclude_dir {tmp_path / 'more'}\n")
    assert f"{tmp_path}/more/a.conf:1" in {c.where for c in wrong(conf)}


def test_no_listener_at_all_is_wrong(tmp_path: Path) -> None:
    conf = tmp_path / "mosquitto.conf"
    conf.write_text("persistence true\n")
    assert any("no listener" in c.seen for c in wrong(conf))


def test_files_that_are_open_over_broken_or_absent_are_found(conf: Path, fleet: Fleet) -> None:
    files = fleet.settings.files
    files.key.chmod(0o644)
    assert any("mode 0644" in c.seen for c in wrong(conf))
    files.key.chmod(0o600)
    assert any("ended" in c.seen for c in wrong(conf, time.time() + YEAR_S))
    files.crl.write_text("nothing")
    assert any("not PEM" in c.seen for c in wrong(conf))
    files.crl.unlink()
    assert any("not there" in c.seen for c in wrong(conf))


@pytest.mark.parametrize(
    ("rules", "seen"),
    [
        ("", "no rule"),
        ("topic readwrite #", "before any user"),
        ("topic #", "before any user"),
        ("user dev-1\ntopic readwrite #", "dev-1 may write #"),
        ("user dev-1\ntopic write edgechoir/v1/alps/device/dev-2/#", "dev-1 may write"),
        ("user dev-1\ntopic write edgechoir/v1/alps/device/+/status", "dev-1 may write"),
        ("user dev-1\ntopic edgechoir/v1/alps/#", "dev-1 may write"),
        ("user dev-1\ntopic read edgechoir/v1/alps/+/+/down/dev-2", "dev-1 may read"),
        ("user dev-1\ntopic read edgechoir/v1/alps/+/+/up/+", "dev-1 may read"),
        ("user dev-1\ntopic read #", "dev-1 may read #"),
        ("pattern readwrite edgechoir/v1/alps/#", "%u may write"),
        ("pattern write edgechoir/v1/alps/device/%c/#", "%u may write"),
    ],
)
def test_rules_that_let_one_member_act_as_another_are_found(
    tmp_path: Path, rules: str, seen: str
) -> None:
    acl = tmp_path / "acl"
    acl.write_text(rules + "\n")
    assert any(seen in complaint.seen for complaint in wrong(acl)), wrong(acl)


def test_patterns_that_keep_each_member_to_itself_are_good(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text(
        "pattern write edgechoir/v1/alps/+/%u/#\n"
        "pattern read edgechoir/v1/alps/+/+/down/%u\n"
        "topic deny edgechoir/v1/#\n"
        "topic read $SYS/#\n"
    )
    assert wrong(acl) == []


def test_rules_that_lag_behind_the_registry_are_found(conf: Path, fleet: Fleet) -> None:
    fleet.revoke("dev-1")
    fleet.enrol("device", "dev-7")
    seen = " ".join(c.seen for c in wrong(conf))
    assert "rules for dev-1" in seen
    assert "no rule for dev-7" in seen


def test_a_line_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "acl").write_text("usr dev-1\n")
    with pytest.raises(OperatorError, match="acl:1: 'usr', expected topic, user or pattern"):
        check(tmp_path, 0.0)
    with pytest.raises(OperatorError, match="holds neither"):
        check(tmp_path / "..", 0.0)
    with pytest.raises(OperatorError, match="cannot read"):
        check(tmp_path / "none.conf", 0.0)


def test_every_word_of_a_rule_is_understood(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read a\ntopic b\nuser x\ntopic readwrite c d\npattern deny e\n")
    assert [(r.user, r.access, r.topic) for r in read_acl(acl)] == [
        (None, "read", "a"),
        (None, "readwrite", "b"),
        ("x", "readwrite", "c d"),
        ("%u", "deny", "e"),
    ]


def test_filters_overlap_where_a_topic_matches_both() -> None:
    """All filters of up to three levels, against all topics of up to four."""
    plain = ["/".join(p) for n in (1, 2, 3) for p in product("ab+", repeat=n)]
    filters = ["#", *plain, *(f"{head}/#" for head in plain)]
    topics = ["/".join(p) for n in (1, 2, 3, 4) for p in product("ab", repeat=n)]
    matched = {f: {topic for topic in topics if matches(f, topic)} for f in filters}
    for one, other in product(filters, repeat=2):
        assert overlap(one, other) == bool(matched[one] & matched[other]), (one, other)
