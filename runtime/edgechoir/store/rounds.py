"""The root's rounds, one document each, and what the run was set to: `edgechoir report` reads it.

Beside models.db, which keeps how each version did, this keeps what each round cost and why it
failed. Both tables are bounded; the oldest rows go first.
"""

import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError
from edgechoir.store.database import open_or_replace

NAME: Final = "rounds.db"
ROUNDS: Final = 20_000
SETTINGS: Final = 100
_MIGRATIONS: Final = (
    """CREATE TABLE rounds (id INTEGER PRIMARY KEY AUTOINCREMENT, document BLOB NOT NULL);
    CREATE TABLE settings (id INTEGER PRIMARY KEY AUTOINCREMENT, document BLOB NOT NULL)""",
)


class RoundHistory:
    """Documents of rounds in the order they came, and of settings in the order they changed."""

    def __init__(self, path: Path, *, rounds: int = ROUNDS, settings: int = SETTINGS) -> None:
        self._bounds = {"rounds": rounds, "settings": settings}
        self._lock = threading.Lock()
        self._database = open_or_replace(path, _MIGRATIONS)

    def add(self, document: bytes) -> None:
        """Keep what came of a round. Raises OperatorError (a full disk)."""
        self._put("rounds", document)

    def set_to(self, document: bytes) -> None:
        """Keep what the run is set to from now on; the same again changes nothing."""
        last = self._read("SELECT document FROM settings ORDER BY id DESC LIMIT 1")
        if last != [document]:
            self._put("settings", document)

    def rounds(self) -> list[bytes]:
        """All rounds kept, the oldest first."""
        return self._read("SELECT document FROM rounds ORDER BY id")

    def settings(self) -> list[bytes]:
        """All settings kept, the oldest first."""
        return self._read("SELECT document FROM settings ORDER BY id")

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _put(self, table: str, document: bytes) -> None:
        try:
            with self._lock:
                self._database.execute("BEGIN IMMEDIATE")
                with self._database:
                    # The table's name is one of two of our own.
                    self._database.execute(
                        f"INSERT INTO {table} (document) VALUES (?)",  # noqa: S608
                        (document,),
                    )
                    self._database.execute(
                        f"DELETE FROM {table} WHERE id <= "  # noqa: S608
                        f"(SELECT max(id) FROM {table}) - ?",
                        (self._bounds[table],),
                    )
        except sqlite3.Error as error:
            raise OperatorError(
                f"the history of the rounds cannot be kept: {error}; check the disk"
            ) from error

    def _read(self, query: str) -> list[bytes]:
        with self._lock:
            rows: Iterable[tuple[bytes]] = self._database.execute(query).fetchall()
        return [document for (document,) in rows]
