import logging
import sqlite3
from pathlib import Path

import pytest

from edgechoir.errors import OperatorError
from edgechoir.store.database import BrokenDatabaseError, open_database, open_or_replace

FIRST = "CREATE TABLE a (n INTEGER); CREATE INDEX i ON a (n)"
SECOND = "ALTER TABLE a ADD COLUMN m INTEGER DEFAULT 7"


def spoil(path: Path) -> None:
    """Overwrite the middle of the file."""
    data = bytearray(path.read_bytes())
    data[100 : len(data) // 2] = b"\xa5" * (len(data) // 2 - 100)
    path.write_bytes(data)


def test_migrations_run_once_each_and_keep_the_data(tmp_path: Path) -> None:
    path = tmp_path / "d"
    database = open_database(path, [FIRST])
    database.execute("INSERT INTO a VALUES (1)")
    database.close()
    for _ in range(2):
        database = open_database(path, [FIRST, SECOND])
        assert database.execute("SELECT * FROM a").fetchall() == [(1, 7)]
        database.close()


def test_a_file_of_a_newer_program_is_left_alone(tmp_path: Path) -> None:
    open_database(tmp_path / "d", [FIRST, SECOND]).close()
    with pytest.raises(OperatorError, match="schema 2, this program knows 1"):
        open_database(tmp_path / "d", [FIRST])


def test_a_migration_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    path = tmp_path / "d"
    with pytest.raises(OperatorError, match="cannot use"):
        open_database(path, [FIRST, "CREATE TABLE b (n); CREATE TABLE b (n)"])
    database = sqlite3.connect(path)
    assert database.execute("PRAGMA user_version").fetchone() == (0,)
    assert database.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    database.close()


@pytest.mark.parametrize("how", ["spoilt", "text"])
def test_a_broken_file_is_moved_aside_with_a_line(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "d"
    database = open_database(path, [FIRST])
    database.executemany("INSERT INTO a VALUES (?)", [(n,) for n in range(5000)])
    database.close()
    if how == "spoilt":
        spoil(path)
    else:
        path.write_text("This is no database. " * 100)
    broken = path.read_bytes()
    with caplog.at_level(logging.ERROR):
        database = open_or_replace(path, [FIRST])
    assert database.execute("SELECT count(*) FROM a").fetchone() == (0,)
    database.close()
    assert (tmp_path / "d.broken").read_bytes() == broken
    assert "kept as" in caplog.text


def test_an_exclusive_file_is_refused_to_a_second_holder(tmp_path: Path) -> None:
    first = open_database(tmp_path / "d", [FIRST], exclusive=True)
    with pytest.raises(OperatorError, match="in use by another process") as refusal:
        open_database(tmp_path / "d", [FIRST], exclusive=True)
    assert not isinstance(refusal.value, BrokenDatabaseError)
    first.close()
    open_database(tmp_path / "d", [FIRST], exclusive=True).close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="check the folder"):
        open_database(tmp_path / "none" / "d", [FIRST])
