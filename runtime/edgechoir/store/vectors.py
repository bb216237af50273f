"""Vectors that stay on a device from one start to the next, by name: a control variate, say.

Each name has one vector, the latest; a damaged one is as if it had never been there.
"""

import hashlib
import logging
import sqlite3
import threading
from pathlib import Path
from typing import Final

import numpy as np

from edgechoir.errors import LocalError, OperatorError
from edgechoir.store.database import open_or_replace
from edgechoir.types import Floats

log: Final = logging.getLogger(__name__)

MOST: Final = 8
"""Names in one store."""
_MIGRATIONS: Final = (
    """CREATE TABLE vectors (
        name TEXT PRIMARY KEY, round INTEGER NOT NULL, sha256 BLOB NOT NULL, data BLOB NOT NULL)""",
)


class KeptVectors:
    """Float32 vectors, each with the round it is of."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = open_or_replace(path, _MIGRATIONS)

    def put(self, name: str, vector: Floats, round_: int) -> None:
        """Keep a vector in the place of the one of this name. Raises OperatorError (a full disk),
        or LocalError for one name too many."""
        data = np.ascontiguousarray(vector, "<f4").tobytes()
        try:
            with self._lock:
                (others,) = self._database.execute(
                    "SELECT count(*) FROM vectors WHERE name IS NOT ?", (name,)
                ).fetchone()
                if others >= MOST:
                    raise LocalError(f"{others} vectors are kept, {name!r} would be one too many")
                self._database.execute(
                    "INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)",
                    (name, round_, hashlib.sha256(data).digest(), data),
                )
        except sqlite3.Error as error:
            raise OperatorError(f"{name} cannot be kept: {error}; check the disk") from error

    def get(self, name: str) -> tuple[Floats, int] | None:
        """The vector, read-only, and its round; None where there is none, or not whole."""
        with self._lock:
            row = self._database.execute(
                "SELECT round, sha256, data FROM vectors WHERE name = ?", (name,)
            ).fetchone()
        if row is None:
            return None
        round_, digest, data = row
        if hashlib.sha256(data).digest() != digest:
            log.error("%s does not have its hash; it is dropped", name)
            self.drop(name)
            return None
        return np.frombuffer(data, "<f4"), round_

    def names(self) -> tuple[str, ...]:
        """Of what is kept, in order."""
        with self._lock:
            rows = self._database.execute("SELECT name FROM vectors ORDER BY name").fetchall()
        return tuple(str(name) for (name,) in rows)

    def drop(self, name: str) -> None:
        """Keep it no longer."""
        with self._lock:
            self._database.execute("DELETE FROM vectors WHERE name = ?", (name,))

    def close(self) -> None:
        with self._lock:
            self._database.close()
