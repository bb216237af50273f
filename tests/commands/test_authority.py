"""From an empty directory to an enrolled member and a broker's folder, by commands alone."""

import json
import stat
import time
from pathlib import Path
from typing import Any

from edgechoir.broker.roster import read_roster
from edgechoir.fleet.broker_files import BrokerFiles
from edgechoir.fleet.enrolment import load_member
from edgechoir.identity.policy import Policy
from edgechoir.types import Address, MemberId


def test_a_member_far_from_the_ca_is_enrolled_in_three_steps(run: Any, site: Any) -> None:
    home = site.root / "dev-1"
    who = ("--federation", "alps", "--tier", "device", "--member", "dev-1")
    said = run.good("enrol", home, *who)
    request = home / "request.csr"
    assert said.startswith(f"{request} written. On the CA's machine: edgechoir ca sign DIR ")

    carried = site.root / "carried.csr"
    carried.write_bytes(request.read_bytes())
    said = run.good("ca", "sign", site.ca, carried, "--tier", "device", "--no-passphrase")
    assert said.startswith("device/dev-1 enrolled, certificate ")
    certificate = site.root / "carried.crt"

    given = ("--certificate", certificate, "--ca-certificate", site.ca / "ca.crt")
    assert run.good("enrol", home, *given) == f"device/dev-1 is enrolled in {home}\n"
    member = load_member(home, time.time())
    assert member.address == Address("device", MemberId("dev-1"))
    assert stat.S_IMODE((home / "member.key").stat().st_mode) == 0o600


def test_a_request_is_signed_for_the_tier_it_asks_for_only(run: Any, site: Any) -> None:
    home = site.root / "dev-1"
    run.good("enrol", home, "--federation", "alps", "--tier", "device", "--member", "dev-1")
    ended = run("ca", "sign", site.ca, home / "request.csr", "--tier", "cloud", "--no-passphrase")
    assert ended.status == 1
    assert "expected one for tier cloud" in ended.complaint


def test_the_brokers_folder_knows_who_comes_and_who_goes(run: Any, site: Any) -> None:
    site.member("device", "dev-1", "node-1")
    site.member("device", "dev-2", "node-1")
    files = BrokerFiles(site.ca / "broker")
    before = {str(member) for member in read_roster(files).members}
    said = run.good("ca", "revoke", site.ca, "dev-2", "--no-passphrase")
    assert said.startswith("device/dev-2 is revoked")
    after = read_roster(files)
    assert before - {str(member) for member in after.members} == {"device/dev-2"}
    assert len(after.revoked) == 1


def test_the_list_is_for_people_and_for_programs(run: Any, site: Any) -> None:
    site.member("device", "dev-1", "node-1")
    site.member("monitor", "eye")
    run.good("ca", "revoke", site.ca, "dev-1", "--no-passphrase")
    lines = run.good("ca", "list", site.ca).splitlines()
    assert [line.partition(",")[0] for line in lines] == [
        "broker/broker enrolled",
        "device/dev-1 revoked",
        "monitor/eye enrolled",
        "3 members",
    ]
    members = json.loads(run.good("ca", "list", site.ca, "--json"))
    assert [(m["tier"], m["member"], m["revoked"] is None) for m in members] == [
        ("broker", "broker", True),
        ("device", "dev-1", False),
        ("monitor", "eye", True),
    ]


def test_a_key_with_a_passphrase_opens_with_it_only(run: Any, tmp_path: Path) -> None:
    ca, right, wrong = tmp_path / "ca", tmp_path / "right", tmp_path / "wrong"
    right.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    run.good("ca", "init", ca, "--federation", "alps", "--passphrase-file", right)
    assert b"ENCRYPTED" in (ca / "ca.key").read_bytes()
    host = ("--host", "broker.lan")
    ended = run("ca", "broker", ca, *host, "--passphrase-file", wrong)
    assert (ended.status, "wrong passphrase" in ended.complaint) == (1, True)
    ended = run("ca", "broker", ca, *host, "--no-passphrase")
    assert (ended.status, "give its passphrase" in ended.complaint) == (1, True)
    run.good("ca", "broker", ca, *host, "--passphrase-file", right)
    assert (ca / "broker" / "server.crt").exists()


def test_a_ca_is_made_once(run: Any, site: Any) -> None:
    ended = run("ca", "init", site.ca, "--federation", "alps", "--no-passphrase")
    assert ended.status == 1
    assert "is not overwritten" in ended.complaint


def test_a_replaced_device_needs_leave_to_take_the_id(run: Any, site: Any) -> None:
    site.member("device", "dev-1", "node-1")
    spare = site.root / "spare"
    run.good("enrol", spare, "--federation", "alps", "--tier", "device", "--member", "dev-1")
    words = ("ca", "sign", site.ca, spare / "request.csr", "--tier", "device", "--no-passphrase")
    ended = run(*words)
    assert (ended.status, "is enrolled with another key" in ended.complaint) == (1, True)
    run.good(*words, "--renew")
    assert len(read_roster(BrokerFiles(site.ca / "broker")).revoked) == 1


def test_a_policy_is_pinned_as_a_member_is_enrolled(run: Any, site: Any) -> None:
    said = run.good("ca", "policy", site.ca, "--min-members", "3", "--no-passphrase")
    assert said.startswith(f"{site.ca / 'policy'} signed: ")
    near = site.member("device", "dev-1", "node-1").parent / "identity"
    assert load_member(near, time.time()).policy == Policy(min_members=3)

    far = site.root / "far"
    run.good("enrol", far, "--federation", "alps", "--tier", "device", "--member", "dev-2")
    words = ("--tier", "device", "--no-passphrase")
    run.good("ca", "sign", site.ca, far / "request.csr", *words)
    given = ("--certificate", far / "request.crt", "--ca-certificate", site.ca / "ca.crt")
    run.good("enrol", far, *given, "--policy", site.ca / "policy")
    assert load_member(far, time.time()).policy == Policy(min_members=3)


def test_a_policy_that_protects_nobody_is_not_signed(run: Any, site: Any) -> None:
    ended = run("ca", "policy", site.ca, "--min-members", "1", "--no-passphrase")
    assert ended.status == 1
    assert "allowed: 2 to 32" in ended.complaint


def test_a_policy_of_another_fleet_is_not_pinned(run: Any, site: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run.good("ca", "init", other, "--federation", "alps", "--no-passphrase")
    run.good("ca", "policy", other, "--no-passphrase")
    home = site.member("device", "dev-1", "node-1").parent / "identity"
    words = ("--certificate", home / "member.crt", "--ca-certificate", site.ca / "ca.crt")
    ended = run("enrol", home, *words, "--policy", other / "policy")
    assert ended.status == 1
    assert "the policy cannot be pinned" in ended.complaint
    assert load_member(home, time.time()).policy == Policy(min_devices=5)
