"""The personal layers of a device's model, kept from one start to the next.

One row: what is kept is the latest, and nothing but this device has it. It lies in the clear, as
the model does.
"""

import hashlib
import logging
import sqlite3
import threading
from pathlib import Path
from typing import Final

import numpy as np

from edgechoir.errors import OperatorError
from edgechoir.store.database import open_or_replace
from edgechoir.types import Floats

log: Final = logging.getLogger(__name__)

_MIGRATIONS: Final = (
    """CREATE TABLE layers (
        one INTEGER PRIMARY KEY CHECK (one = 1), layout BLOB NOT NULL, sha256 BLOB NOT NULL,
        params BLOB NOT NULL, changed REAL NOT NULL)""",
)


class PersonalLayers:
    """A vector [p] and the layout it belongs to."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = open_or_replace(path, _MIGRATIONS)

    def put(self, layout: bytes, params: Floats, changed: float) -> None:
        """Keep params [p] in place of what was there. Raises OperatorError (a full disk)."""
        blob = np.ascontiguousarray(params, "<f4").tobytes()
        try:
            with self._lock:
                self._database.execute(
                    "INSERT OR REPLACE INTO layers VALUES (1, ?, ?, ?, ?)",
                    (layout, hashlib.sha256(blob).digest(), blob, changed),
                )
        except sqlite3.Error as error:
            raise OperatorError(
                f"the personal layers cannot be kept: {error}; check the disk"
            ) from error

    def get(self, layout: bytes) -> Floats | None:
        """What is kept for this layout; None if nothing is, or not whole."""
        with self._lock:
            row = self._database.execute("SELECT layout, sha256, params FROM layers").fetchone()
        if row is None:
            return None
        if row[0] != layout:
            log.warning("the personal layers kept are of another model; they are not used")
            return None
        if hashlib.sha256(row[2]).digest() != row[1]:
            log.error("the personal layers kept do not have their hash; they are not used")
            return None
        return np.frombuffer(row[2], "<f4")

    def close(self) -> None:
        with self._lock:
            self._database.close()
