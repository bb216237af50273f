"""Labelled samples for training, kept within a bound, the oldest dropped first.

`add` only remembers; rows reach the disk in batches, which spares SD cards. A crash loses what was
added since the last `flush`: at most `batch_rows` rows or `batch_seconds`, by the caller's clock.
Which rows are held out for evaluation follows from the row's id alone, so a row never changes
sides, whatever comes or goes around it.
"""

import math
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edgechoir.errors import BadSample, OperatorError
from edgechoir.store.database import open_or_replace
from edgechoir.types import Floats

Labels = npt.NDArray[np.int64] | npt.NDArray[np.float32]
"""y: class numbers [n], or vectors [n, targets]."""

HOLD_OUT: Final = 5
"""One row in so many is held out."""
ROW_COST: Final = 48
"""Bytes that SQLite spends on a row beside its values, about."""
MAX_KEY: Final = 128

_MIGRATIONS: Final = (
    """CREATE TABLE shape (one INTEGER PRIMARY KEY CHECK (one = 1), x TEXT, targets INTEGER);
    CREATE TABLE samples (
        id INTEGER PRIMARY KEY, time REAL NOT NULL, key TEXT, x BLOB NOT NULL, y BLOB NOT NULL);
    CREATE UNIQUE INDEX by_key ON samples (key) WHERE key IS NOT NULL""",
)


class SampleStore:
    """Samples x of one `shape`, labelled with a class number (`targets` 0) or `targets` floats."""

    def __init__(
        self,
        path: Path,
        shape: Sequence[int],
        targets: int = 0,
        *,
        max_rows: int = 10_000,
        max_bytes: int = 64_000_000,
        batch_rows: int = 512,
        batch_seconds: float = 5.0,
    ) -> None:
        """Raises OperatorError: the file holds other shapes, or the bound holds no row."""
        self._shape = tuple(shape)
        self._targets = targets
        self._row_bytes = 4 * math.prod(self._shape) + (4 * targets or 8)
        self.capacity = min(max_rows, max_bytes // (self._row_bytes + ROW_COST))
        if self.capacity < 1:
            raise OperatorError(
                f"a store of {max_bytes} bytes has no room for a sample of {self._row_bytes}: "
                "raise the bound"
            )
        self._batch_rows = min(batch_rows, self.capacity)
        self._batch_seconds = batch_seconds
        self._pending: list[tuple[float, str | None, bytes, bytes]] = []
        self._flushed: float | None = None
        self._lock = threading.Lock()
        self._pending_lock = threading.Lock()  # held for an instant, so that `add` never waits
        self._database = open_or_replace(path, _MIGRATIONS)
        self.dropped = 0
        self.duplicates = 0
        try:
            self._check_shape(path)
            count = self._database.execute("SELECT count(*) FROM samples").fetchone()
            self._rows = int(count[0])
        except BaseException:
            self._database.close()
            raise

    def __len__(self) -> int:
        """Rows stored or to be flushed; a repeated key may still count among the latter."""
        return min(self._rows + len(self._pending), self.capacity)

    def add(self, x: Floats, y: int | Floats, now: float, key: str | None = None) -> bool:
        """Remember a sample; True when a `flush` is due. Never touches the disk, unless flushing
        was neglected for four batches. A `key` seen before is counted and not stored again.

        Raises BadSample: wrong shape, not finite, or a label of the wrong kind.
        """
        row = (now, self._checked_key(key), self._packed_x(x), self._packed_y(y))
        if self._flushed is None:
            self._flushed = now
        with self._pending_lock:
            self._pending.append(row)
        if len(self._pending) >= 4 * self._batch_rows:
            self.flush(now)
        waited = now - self._flushed
        return len(self._pending) >= self._batch_rows or not 0 <= waited < self._batch_seconds

    def flush(self, now: float) -> None:
        """Write what was added, and drop the oldest rows beyond the bound.

        Raises OperatorError (a full disk): the batch is counted as dropped.
        """
        with self._lock:
            self._flushed = now
            self._write()

    def training_arrays(self) -> tuple[Floats, Labels]:
        """x [n, *shape] and y [n] or [n, targets] of the rows to learn from, oldest first."""
        return self._arrays(held_out=False)

    def hold_out_arrays(self) -> tuple[Floats, Labels]:
        """The same for the rows to evaluate on: about one in HOLD_OUT."""
        return self._arrays(held_out=True)

    def close(self) -> None:
        """Write what was added and close the file."""
        with self._lock:
            self._write()
            self._database.close()

    def _write(self) -> None:
        with self._pending_lock:
            batch, self._pending = self._pending, []
        if not batch:
            return
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            with database:
                stored = database.executemany(
                    "INSERT INTO samples (time, key, x, y) VALUES (?, ?, ?, ?) "
                    "ON CONFLICT DO NOTHING",
                    batch,
                ).rowcount
                gone = database.execute(
                    "DELETE FROM samples WHERE id <= (SELECT max(id) FROM samples) - ?",
                    (self.capacity,),
                ).rowcount
        except sqlite3.DatabaseError as error:
            self.dropped += len(batch)
            raise OperatorError(f"cannot write {len(batch)} samples: {error}") from error
        self.duplicates += len(batch) - stored
        self.dropped += gone
        self._rows += stored - gone

    def _arrays(self, *, held_out: bool) -> tuple[Floats, Labels]:
        with self._lock:
            self._write()
            ids = np.array(
                self._database.execute("SELECT id FROM samples ORDER BY id").fetchall(), np.uint64
            ).reshape(-1)
            wanted = is_held_out(ids) == held_out
            n = int(wanted.sum())
            x = np.empty((n, math.prod(self._shape)), np.float32)
            y = np.empty((n, max(1, self._targets)), np.float32 if self._targets else np.int64)
            rows = self._database.execute("SELECT x, y FROM samples ORDER BY id")
            filled = 0
            for want, (x_bytes, y_bytes) in zip(wanted, rows, strict=True):
                if want:
                    x[filled] = np.frombuffer(x_bytes, "<f4")
                    y[filled] = np.frombuffer(y_bytes, "<f4" if self._targets else "<i8")
                    filled += 1
        return x.reshape(n, *self._shape), y if self._targets else y.reshape(n)

    def _check_shape(self, path: Path) -> None:
        text = ",".join(map(str, self._shape))
        row = self._database.execute("SELECT x, targets FROM shape").fetchone()
        if row is None:
            self._database.execute("INSERT INTO shape VALUES (1, ?, ?)", (text, self._targets))
        elif row != (text, self._targets):
            raise OperatorError(
                f"{path} holds samples of shape [{row[0]}] with {row[1]} targets, this device "
                f"gives [{text}] with {self._targets}: move the file away to begin anew"
            )

    def _packed_x(self, x: Floats) -> bytes:
        values = np.ascontiguousarray(x, "<f4")
        if values.shape != self._shape:
            raise BadSample(f"sample of shape {values.shape}, expected {self._shape}")
        if not np.isfinite(values).all():
            raise BadSample("sample with a value that is not a finite number")
        return values.tobytes()

    def _packed_y(self, y: int | Floats) -> bytes:
        if self._targets == 0:
            if not isinstance(y, int | np.integer) or not 0 <= y < 2**31:
                raise BadSample(f"label {y!r}, expected a class number")
            return int(y).to_bytes(8, "little")
        values = np.ascontiguousarray(y, "<f4")
        if values.shape != (self._targets,) or not np.isfinite(values).all():
            raise BadSample(f"label {y!r}, expected {self._targets} finite numbers")
        return values.tobytes()

    @staticmethod
    def _checked_key(key: str | None) -> str | None:
        if key is not None and len(key) > MAX_KEY:
            raise BadSample(f"key of {len(key)} characters, at most {MAX_KEY}")
        return key


def is_held_out(ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Which rows [n] are held out: the finaliser of splitmix64 (Steele et al. 2014), modulo 5."""
    mixed = ids.copy()
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    held_out: npt.NDArray[np.bool_] = mixed % np.uint64(HOLD_OUT) == 0
    return held_out
