"""What a process checks before it speaks to anyone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgechoir.errors import OperatorError
from edgechoir.fleet.enrolment import load_member
from edgechoir.identity.policy import Policy
from edgechoir.monitor.status import MemberState, Status
from edgechoir.tiers.place import Place
from edgechoir.tiers.process import (
    check_identity,
    check_policy,
    parent_of,
    state_held,
    tightened,
    will_of,
)
from edgechoir.types import Address, MemberId

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation


def test_a_state_directory_is_for_one_process_alone(tmp_path: Path) -> None:
    state = tmp_path / "deep" / "state"
    with state_held(state):
        assert state.stat().st_mode & 0o777 == 0o700
        with pytest.raises(OperatorError, match=f"another process uses {state}"), state_held(state):
            pytest.fail("two processes in one directory")
    with state_held(state):
        pass


def test_a_killed_process_frees_its_state_directory(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from edgechoir.tiers.process import state_held\n"
        "with state_held(pathlib.Path(sys.argv[1])):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OperatorError), state_held(tmp_path):
            pytest.fail("two processes in one directory")
        holder.kill()
        holder.wait(10)
    with state_held(tmp_path):
        pass


def test_anothers_identity_is_refused_with_both_names(federation: Federation) -> None:
    config = federation.device("dev-1")
    other = load_member(federation.identity("device", "dev-2"), time.time())
    with pytest.raises(OperatorError, match=r"alps/device/dev-2, .* for alps/device/dev-1"):
        check_identity(config, other)
    check_identity(config, load_member(federation.identity("device", "dev-1"), time.time()))


def test_a_robust_run_that_the_policy_forbids_is_refused_at_the_start(
    federation: Federation,
) -> None:
    robust = federation.cloud(3, robust={"estimate": "krum"})
    member = load_member(federation.identity("cloud", "cloud"), time.time())
    assert member.policy.cohorts_apart
    check_policy(robust, member)
    strict = replace(member, policy=replace(member.policy, cohorts_apart=False))
    check_policy(federation.cloud(3), strict)
    with pytest.raises(OperatorError, match="does not allow it: sign one"):
        check_policy(robust, strict)


def test_the_parent_is_of_the_tier_that_the_configuration_says(federation: Federation) -> None:
    assert parent_of(federation.device("dev-1", "node-1")) == Address("node", MemberId("node-1"))
    assert parent_of(federation.device("dev-2", "cloud")) == Address("cloud", MemberId("cloud"))
    assert parent_of(federation.node("node-1", 2)) == Address("cloud", MemberId("cloud"))
    assert parent_of(federation.cloud(2)) is None


def test_the_last_will_is_a_status_that_says_lost() -> None:
    me = Address("node", MemberId("node-1"))
    place = Place("alps", me, Address("cloud", MemberId("cloud")), os.urandom(8), 20)
    will = will_of(place)
    assert will.retain
    assert will.topic == "edgechoir/v1/alps/node/node-1/status"
    status = Status.from_json(will.payload)
    assert (status.state, status.instance) == (MemberState.LOST, place.instance.hex())


def test_a_configuration_can_ask_for_more_than_the_policy_but_not_for_less(
    federation: Federation,
) -> None:
    policy = Policy(min_members=4, min_devices=6, colluders_one_in=3, max_clip=2.0)
    config = federation.device("dev-1", update={"min_cohort": 3, "max_clip": 50.0})
    assert tightened(policy, config) == policy
    config = federation.device("dev-1", update={"min_cohort": 7, "max_clip": 1.0})
    assert tightened(policy, config) == replace(policy, min_members=7, max_clip=1.0)
