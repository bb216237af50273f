"""The round journal: what a member must not forget, on the disk before anything is published.

Design section 3: the same pad is never put on two vectors. A round is marked as used, with the
bytes of its upload, before the first publish; after a crash a member sends those bytes or sits out.
Rounds go up: the highest mark is kept for good, the bytes of the last `keep` rounds.

The file is ours alone while open. When it is broken nothing is made in its place: a member that
forgot its rounds could spend a pad twice, and only the operator can take it out of its epoch.
"""

import sqlite3
import threading
from pathlib import Path
from typing import Final

from edgechoir.errors import LocalError, OperatorError
from edgechoir.store.database import BrokenDatabaseError, open_database

MAX_NOTE: Final = 1 << 20
MAX_NOTES: Final = 64

_MIGRATIONS: Final = (
    """CREATE TABLE used (
        federation TEXT, epoch INTEGER, round INTEGER, attempt INTEGER, upload BLOB NOT NULL,
        PRIMARY KEY (federation, epoch, round, attempt)) WITHOUT ROWID;
    CREATE TABLE highest (
        federation TEXT PRIMARY KEY, epoch INTEGER, round INTEGER, attempt INTEGER);
    CREATE TABLE notes (
        federation TEXT, name TEXT, value BLOB NOT NULL, PRIMARY KEY (federation, name))""",
)


class RoundJournal:
    """Every call that writes returns when the disk has it (synchronous=FULL)."""

    def __init__(self, path: Path, keep: int = 4) -> None:
        """Raises OperatorError: in use by another process, or broken."""
        if keep < 1:
            raise LocalError(f"a journal keeps at least one upload, got {keep}")
        try:
            self._database = open_database(path, _MIGRATIONS, synchronous="FULL", exclusive=True)
        except BrokenDatabaseError as error:
            raise OperatorError(
                f"{error}. This is the journal of used rounds; going on without it could put one "
                "pad on two updates. Stop this member, wait until its aggregator lists it as lost, "
                f"then move {path} away and start it again: it joins with a fresh key"
            ) from error
        self._keep = keep
        self._lock = threading.Lock()

    def last_round(self, federation: str) -> int:
        """The highest round ever marked as used, 0 when there is none."""
        return self._highest(federation)[1]

    def last_epoch(self, federation: str) -> int:
        """The epoch of the last round marked as used, 0 when there is none."""
        return self._highest(federation)[0]

    def mark_round_used(
        self, federation: str, epoch: int, round: int, attempt: int, upload: bytes
    ) -> None:
        """Record that this round's pads are spent on `upload`. Doing so again is harmless.

        Raises LocalError: the round is marked with other bytes, or a later one is.
        """
        place = (epoch, round, attempt)
        with self._lock:
            stored = self._upload(federation, place)
            if stored == upload:
                return
            highest = self._highest(federation)
            if stored is not None:
                raise LocalError(f"round {place} is marked with another upload: send that one")
            if place <= highest or round < highest[1]:
                raise LocalError(f"round {place} comes after {highest} was marked as used")
            self._begin()
            with self._database:
                self._database.execute(
                    "INSERT INTO used VALUES (?, ?, ?, ?, ?)", (federation, *place, upload)
                )
                self._database.execute(
                    "INSERT OR REPLACE INTO highest VALUES (?, ?, ?, ?)", (federation, *place)
                )
                self._database.execute(
                    "DELETE FROM used WHERE federation = ?1 AND (epoch, round, attempt) <= ("
                    "SELECT epoch, round, attempt FROM used WHERE federation = ?1 "
                    "ORDER BY epoch DESC, round DESC, attempt DESC LIMIT 1 OFFSET ?2)",
                    (federation, self._keep),
                )

    def stored_upload(self, federation: str, epoch: int, round: int, attempt: int) -> bytes | None:
        """The bytes with which a round was marked; None when it was not, or is long past."""
        return self._upload(federation, (epoch, round, attempt))

    def note(self, federation: str, name: str, value: bytes) -> None:
        """Keep a small value under a name, in place of the one before."""
        if len(value) > MAX_NOTE:
            raise LocalError(f"note {name!r} of {len(value)} bytes, at most {MAX_NOTE}")
        with self._lock:
            self._begin()
            with self._database:
                self._database.execute(
                    "INSERT OR REPLACE INTO notes VALUES (?, ?, ?)", (federation, name, value)
                )
                (count,) = self._database.execute("SELECT count(*) FROM notes").fetchone()
                if count > MAX_NOTES:
                    raise LocalError(f"note {name!r} would be one more than {MAX_NOTES}")

    def noted(self, federation: str, name: str) -> bytes | None:
        """The value kept under a name."""
        row = self._database.execute(
            "SELECT value FROM notes WHERE federation = ? AND name = ?", (federation, name)
        ).fetchone()
        return None if row is None else bytes(row[0])

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _begin(self) -> None:
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise OperatorError(f"cannot write the round journal: {error}") from error

    def _highest(self, federation: str) -> tuple[int, int, int]:
        row = self._database.execute(
            "SELECT epoch, round, attempt FROM highest WHERE federation = ?", (federation,)
        ).fetchone()
        return (0, 0, -1) if row is None else (row[0], row[1], row[2])

    def _upload(self, federation: str, place: tuple[int, int, int]) -> bytes | None:
        row = self._database.execute(
            "SELECT upload FROM used "
            "WHERE federation = ? AND epoch = ? AND round = ? AND attempt = ?",
            (federation, *place),
        ).fetchone()
        return None if row is None else bytes(row[0])
