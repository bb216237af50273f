"""Files are written whole, with the right permissions, and read with a clear error."""

import os
from pathlib import Path

import pytest

from edgechoir.errors import OperatorError
from edgechoir.fleet.files import (
    PRIVATE,
    PUBLIC,
    locked,
    make_directory,
    read_file,
    refuse_existing,
    write_atomic,
)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_private_file_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomic(tmp_path / "key", b"secret", PRIVATE)
        make_directory(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert mode(tmp_path / "key") == 0o600
    assert mode(tmp_path / "a" / "b") == 0o700


def test_writing_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old", PUBLIC)
    write_atomic(path, b"new", PUBLIC)
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_failed_write_leaves_the_old_content(tmp_path: Path) -> None:
    target = tmp_path / "folder"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(OperatorError, match="cannot write"):
        write_atomic(target, b"new", PUBLIC)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_a_missing_file_says_how_to_come_by_it(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="is missing: ask the CA"):
        read_file(tmp_path / "ca.crt", "ask the CA")
    with pytest.raises(OperatorError, match="Is a directory"):
        read_file(tmp_path, "")


def test_an_existing_file_is_named(tmp_path: Path) -> None:
    refuse_existing(tmp_path / "a")
    (tmp_path / "a").touch()
    with pytest.raises(OperatorError, match="not overwritten"):
        refuse_existing(tmp_path / "b", tmp_path / "a")


def test_a_second_command_in_the_directory_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(OperatorError, match="another command"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
