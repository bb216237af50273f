"""A policy is pinned once the CA's signature holds, and read again only while it does."""

import os
from pathlib import Path

import pytest

from edgechoir.errors import OperatorError
from edgechoir.fleet.authority_dir import init_authority, open_authority
from edgechoir.fleet.policy_file import NAME, pin_policy, pinned_policy, write_policy
from edgechoir.identity.certificate import Root
from edgechoir.identity.policy import Policy

NOW = 1_800_000_000.0
STRICT = Policy(min_members=4, min_devices=20, colluders_one_in=3, max_clip=1.5)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    init_authority(tmp_path / "ca", "alps", NOW, 365, os.urandom, None)
    return tmp_path / "ca"


@pytest.fixture
def root(ca: Path) -> Root:
    return open_authority(ca, None).root


@pytest.fixture
def member(tmp_path: Path) -> Path:
    (tmp_path / "member").mkdir()
    return tmp_path / "member"


def test_what_the_ca_signs_is_what_a_member_pins(ca: Path, root: Root, member: Path) -> None:
    path = write_policy(ca, STRICT, None)
    assert path == ca / NAME
    assert path.stat().st_mode & 0o777 == 0o644
    assert pin_policy(member, path.read_bytes(), root) == STRICT
    assert pinned_policy(member, root) == STRICT
    assert (member / NAME).read_bytes() == path.read_bytes()


def test_without_a_file_the_built_in_policy_holds(root: Root, member: Path) -> None:
    assert pinned_policy(member, root) == Policy()


def test_a_newer_policy_takes_the_place_of_the_older(ca: Path, root: Root, member: Path) -> None:
    for policy in (STRICT, Policy(min_members=2)):
        pin_policy(member, write_policy(ca, policy, None).read_bytes(), root)
        assert pinned_policy(member, root) == policy
    assert [file.name for file in member.iterdir()] == [NAME], "nothing half written is left"


def test_a_policy_of_another_ca_is_not_pinned(tmp_path: Path, root: Root, member: Path) -> None:
    init_authority(tmp_path / "other", "alps", NOW, 365, os.urandom, None)
    text = write_policy(tmp_path / "other", STRICT, None).read_bytes()
    with pytest.raises(OperatorError, match="the policy cannot be pinned: the signature does not"):
        pin_policy(member, text, root)
    assert not (member / NAME).exists()


def test_a_refused_policy_leaves_the_pinned_one(ca: Path, root: Root, member: Path) -> None:
    text = write_policy(ca, STRICT, None).read_bytes()
    pin_policy(member, text, root)
    for bad in (b"", b"{}\n", text.replace(b'"min_members": 4', b'"min_members": 2')):
        with pytest.raises(OperatorError, match="cannot be pinned"):
            pin_policy(member, bad, root)
    assert pinned_policy(member, root) == STRICT


def test_a_pinned_file_that_was_changed_is_not_obeyed(ca: Path, root: Root, member: Path) -> None:
    """Nor is the built-in policy taken in its place, which may be weaker."""
    text = write_policy(ca, STRICT, None).read_bytes()
    for bad in (b"", text[:-3], text.replace(b'"min_devices": 20', b'"min_devices": 2 ')):
        (member / NAME).write_bytes(bad)
        with pytest.raises(OperatorError, match="get the policy file from the CA's directory"):
            pinned_policy(member, root)


def test_a_file_that_cannot_be_read_is_named(root: Root, member: Path) -> None:
    (member / NAME).mkdir()
    with pytest.raises(OperatorError, match=f"{member / NAME}: Is a directory"):
        pinned_policy(member, root)


def test_only_the_cas_key_can_sign(ca: Path, tmp_path: Path) -> None:
    init_authority(tmp_path / "locked", "alps", NOW, 365, os.urandom, b"choir")
    with pytest.raises(OperatorError, match="give its passphrase"):
        write_policy(tmp_path / "locked", STRICT, None)
    assert not (tmp_path / "locked" / NAME).exists()
    write_policy(tmp_path / "locked", STRICT, b"choir")
    with pytest.raises(OperatorError, match="edgechoir ca init"):
        write_policy(tmp_path / "nowhere", STRICT, None)
