"""What waits on the disk for the broker to come back: bounded in bytes and age, oldest out first.

A record is accepted when `add` returns: from then on `kill -9` loses nothing of it (a power cut may
lose the last batches, never the file: synchronous=NORMAL). `add` takes a batch and commits once,
which spares SD cards; `commits` and `bytes_written` say what it cost. The oldest go out first, and
are dropped first; what is dropped, for want of room or for its age, is counted.

Only what is still true tomorrow belongs here: documents for people. Not messages of a round: an
update is of no use after its turn, and the keys and pads that it belongs to are in memory alone,
so after a restart a stored one must not be sent.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edgechoir.errors import LocalError, OperatorError
from edgechoir.store.database import open_or_replace

RECORD_COST: Final = 64
"""Bytes that SQLite spends on a record beside its topic and payload, about."""

_MIGRATIONS: Final = (
    """CREATE TABLE records (
        id INTEGER PRIMARY KEY AUTOINCREMENT, expires REAL NOT NULL, size INTEGER NOT NULL,
        topic TEXT NOT NULL, payload BLOB NOT NULL);
    CREATE INDEX by_end ON records (expires)""",
)


@dataclass(frozen=True, slots=True)
class Record:
    """A message that waits. `expires` in unix seconds; `id` is given by the outbox."""

    topic: str
    payload: bytes
    expires: float
    id: int = 0

    @property
    def size(self) -> int:
        """Bytes that it counts for."""
        return len(self.topic.encode()) + len(self.payload) + RECORD_COST


class Outbox:
    """See the module. Calls block for as long as the disk does; any thread, one at a time."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Raises OperatorError when the file cannot be had; a broken one is put aside."""
        self._database = open_or_replace(path, _MIGRATIONS)
        self._lock = threading.Lock()
        self._max_bytes = max_bytes
        self.dropped = self.expired = self.commits = self.bytes_written = 0
        count, size = self._database.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM records"
        ).fetchone()
        self._count, self._bytes = int(count), int(size)

    def __len__(self) -> int:
        return self._count

    @property
    def bytes(self) -> int:
        """What the records count for, at most `max_bytes`."""
        return self._bytes

    def add(self, records: Sequence[Record], now: float) -> None:
        """Accept a batch, for which the oldest make room, those of the batch itself if they must.

        Raises OperatorError (a full disk): nothing of the batch is accepted.
        """
        if any(record.size > self._max_bytes for record in records):
            raise LocalError(f"a record is larger than the outbox of {self._max_bytes} bytes")
        with self._writing():
            self._expire(now)
            self._database.executemany(
                "INSERT INTO records (expires, size, topic, payload) VALUES (?, ?, ?, ?)",
                [(r.expires, r.size, r.topic, r.payload) for r in records],
            )
            written = sum(record.size for record in records)
            self._count += len(records)
            self._bytes += written
            self._make_room()
        self.bytes_written += written

    def first(self, limit: int, now: float) -> list[Record]:
        """Up to `limit` records that have not expired, the oldest first."""
        rows = self._database.execute(
            "SELECT topic, payload, expires, id FROM records WHERE expires > ? ORDER BY id LIMIT ?",
            (now, limit),
        ).fetchall()
        return [Record(*row) for row in rows]

    def remove(self, ids: Sequence[int], now: float) -> None:
        """Forget records that were delivered, and those that have expired. Raises OperatorError."""
        with self._writing():
            for number in ids:
                self._delete("id = ?", number)
            self._expire(now)

    def shift(self, seconds: float) -> None:
        """The clock was set by so much: all ends move with it. Raises OperatorError."""
        with self._writing():
            self._database.execute("UPDATE records SET expires = expires + ?", (seconds,))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One commit, or nothing at all."""
        with self._lock:
            before = (self._count, self._bytes, self.dropped, self.expired)
            try:
                self._database.execute("BEGIN IMMEDIATE")
                with self._database:
                    yield
            except sqlite3.OperationalError as error:
                self._count, self._bytes, self.dropped, self.expired = before
                raise OperatorError(f"cannot write the outbox: {error}") from error
            self.commits += 1

    def _expire(self, now: float) -> None:
        self.expired += self._delete("expires <= ?", now)

    def _make_room(self) -> None:
        while self._bytes > self._max_bytes:
            number = self._database.execute("SELECT min(id) FROM records").fetchone()
            self.dropped += self._delete("id = ?", number[0])

    def _delete(self, which: Literal["id = ?", "expires <= ?"], value: float) -> int:
        sizes = f"SELECT count(*), coalesce(sum(size), 0) FROM records WHERE {which}"  # noqa: S608
        count, size = self._database.execute(sizes, (value,)).fetchone()
        if count:
            self._database.execute(f"DELETE FROM records WHERE {which}", (value,))  # noqa: S608
        self._count -= count
        self._bytes -= size
        return int(count)
