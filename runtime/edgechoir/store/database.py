"""Open an SQLite file so that it survives power cuts, moves on with the schema, and says when not.

Write-ahead log: readers do not wait for a writer. synchronous=NORMAL may lose the last commits at a
power cut, never the file; FULL is for what must be on the disk when `commit` returns.
"""

import logging
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from edgechoir.errors import OperatorError

log: Final = logging.getLogger(__name__)

BUSY: Final = 5.0
"""Seconds to wait for another process that has the file."""
_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_SIDES: Final = ("-wal", "-shm")


class BrokenDatabaseError(OperatorError):
    """The file is not, or no longer, a sound SQLite database."""


def open_database(
    path: Path,
    migrations: Sequence[str],
    *,
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL",
    exclusive: bool = False,
) -> sqlite3.Connection:
    """Open or make the file, check it, and run the migrations that it has not seen.

    `migrations[n]` takes the schema from version n to n + 1. `exclusive` keeps every other process
    out until closed. Raises BrokenDatabaseError, or OperatorError when the file cannot be had.
    """
    try:
        connection = sqlite3.connect(
            path, timeout=0.5 if exclusive else BUSY, isolation_level=None, check_same_thread=False
        )
    except sqlite3.OperationalError as error:
        raise OperatorError(
            f"cannot open {path}: {error}; check the folder and its rights"
        ) from None
    try:
        if exclusive:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute("PRAGMA journal_size_limit = 4194304")
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise BrokenDatabaseError(f"{path} is damaged: {found}")
        _migrate(connection, path, migrations)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _translate(error, path) from error
    except BaseException:
        connection.close()
        raise
    return connection


def open_or_replace(path: Path, migrations: Sequence[str]) -> sqlite3.Connection:
    """`open_database`; a broken file is moved to `<name>.broken` (one is kept) and made anew."""
    try:
        return open_database(path, migrations)
    except BrokenDatabaseError as error:
        aside = path.with_name(f"{path.name}.broken")
        os.replace(path, aside)
        for side in _SIDES:
            path.with_name(path.name + side).unlink(missing_ok=True)
        log.error("%s; it is kept as %s and a fresh one is begun", error, aside)
        return open_database(path, migrations)


def _migrate(connection: sqlite3.Connection, path: Path, migrations: Sequence[str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    with connection:  # commits, or rolls back
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > len(migrations):
            raise OperatorError(
                f"{path} has schema {version}, this program knows {len(migrations)}: "
                "use the newer program, or move the file away"
            )
        for number, statements in enumerate(migrations[version:], version + 1):
            for statement in statements.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def _translate(error: sqlite3.DatabaseError, path: Path) -> OperatorError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BROKEN:
        return BrokenDatabaseError(f"{path} is damaged: {error}")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OperatorError(
            f"{path} is in use by another process: is this member running already?"
        )
    return OperatorError(f"cannot use {path}: {error}")
