"""The federation's policy on the command line: signed with all it says, pinned as it was given."""

import time
from pathlib import Path
from typing import Any

import pytest

from edgechoir.errors import OperatorError
from edgechoir.fleet.authority_dir import open_authority
from edgechoir.fleet.enrolment import load_member
from edgechoir.identity.policy import Policy, read_policy

WHO = ("--federation", "alps", "--tier", "device", "--member", "dev-1")


@pytest.fixture
def ca(tmp_path: Path, run: Any) -> Path:
    run.good("ca", "init", tmp_path / "ca", "--federation", "alps", "--no-passphrase")
    return tmp_path / "ca"


def test_every_option_is_in_what_is_signed(run: Any, ca: Path) -> None:
    values = ("--min-members", "5", "--min-devices", "50", "--colluders-one-in", "0")
    run.good(
        "ca", "policy", ca, *values, "--max-clip", "0.25", "--cohorts-apart", "--no-passphrase"
    )
    signed = read_policy((ca / "policy").read_bytes(), open_authority(ca, None).root)
    assert signed.policy == Policy(5, 50, 0, 0.25, True)


def test_without_options_the_built_in_policy_is_signed(run: Any, ca: Path) -> None:
    run.good("ca", "policy", ca, "--no-passphrase")
    root = open_authority(ca, None).root
    assert read_policy((ca / "policy").read_bytes(), root).policy == Policy()


def test_a_member_enrolled_before_there_is_a_policy_has_the_built_in_one(
    run: Any, ca: Path, tmp_path: Path
) -> None:
    home = tmp_path / "dev-1"
    run.good("enrol", home, *WHO, "--ca", ca, "--no-passphrase")
    assert not (home / "policy").exists()
    assert load_member(home, time.time()).policy == Policy()


def test_a_policy_named_is_pinned_before_the_one_beside_the_ca(
    run: Any, ca: Path, tmp_path: Path
) -> None:
    run.good("ca", "policy", ca, "--min-members", "7", "--no-passphrase")
    stricter = tmp_path / "stricter"
    stricter.write_bytes((ca / "policy").read_bytes())
    run.good("ca", "policy", ca, "--min-members", "3", "--no-passphrase")
    home = tmp_path / "dev-1"
    run.good("enrol", home, *WHO, "--ca", ca, "--no-passphrase", "--policy", stricter)
    assert load_member(home, time.time()).policy == Policy(min_members=7)


def test_a_pinned_policy_that_was_changed_stops_the_member(
    run: Any, ca: Path, tmp_path: Path
) -> None:
    """Whoever can write to a device's disk, but has not the CA's key."""
    run.good("ca", "policy", ca, "--min-members", "7", "--no-passphrase")
    home = tmp_path / "dev-1"
    run.good("enrol", home, *WHO, "--ca", ca, "--no-passphrase")
    text = (home / "policy").read_bytes()
    (home / "policy").write_bytes(text.replace(b'"min_members": 7', b'"min_members": 2'))
    with pytest.raises(OperatorError, match="get the policy file from the CA's directory again"):
        load_member(home, time.time())


def test_a_policy_file_that_is_not_there_is_asked_for(run: Any, ca: Path, tmp_path: Path) -> None:
    home = tmp_path / "dev-1"
    run.good("enrol", home, *WHO, "--ca", ca, "--no-passphrase")
    given = ("--certificate", home / "member.crt", "--ca-certificate", ca / "ca.crt")
    ended = run("enrol", home, *given, "--policy", tmp_path / "nowhere")
    assert ended.status == 1
    assert "get it from the CA" in ended.complaint
