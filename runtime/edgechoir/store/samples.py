"""Labelled samples for training, kept within bounds of number, bytes and age.

`add` only remembers; rows reach the disk in batches, which spares SD cards. A crash loses what was
added since the last `flush`: at most `batch_rows` rows or `batch_seconds`, by the caller's clock.
Which rows are held out for evaluation follows from the row's id alone, so a row never changes
sides, whatever comes or goes around it.

Which rows go when there are too many is the matter of retention.py; with a cipher, rows are on the
disk only as cipher.py seals them.
"""

import hashlib
import logging
import math
import sqlite3
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from edgechoir.errors import BadSample, OperatorError
from edgechoir.store.cipher import OVERHEAD, RowCipher
from edgechoir.store.database import open_or_replace
from edgechoir.store.retention import LOWEST, LOWEST_OF_CLASS, Keep, surplus
from edgechoir.types import Floats

log: Final = logging.getLogger(__name__)

Labels = npt.NDArray[np.int64] | npt.NDArray[np.float32]
"""y: class numbers [n], or vectors [n, targets]."""

HOLD_OUT: Final = 5
"""One row in so many is held out."""
ROW_COST: Final = 72
"""Bytes that SQLite spends on a row beside its values, about."""
MAX_KEY: Final = 128

_MIGRATIONS: Final = (
    """CREATE TABLE shape (one INTEGER PRIMARY KEY CHECK (one = 1), x TEXT, targets INTEGER);
    CREATE TABLE samples (
        id INTEGER PRIMARY KEY, time REAL NOT NULL, key TEXT, x BLOB NOT NULL, y BLOB NOT NULL);
    CREATE UNIQUE INDEX by_key ON samples (key) WHERE key IS NOT NULL""",
    """ALTER TABLE shape ADD COLUMN proof BLOB;
    ALTER TABLE samples ADD COLUMN label INTEGER;
    ALTER TABLE samples ADD COLUMN rank INTEGER NOT NULL DEFAULT 0;
    CREATE INDEX by_label ON samples (label, rank)""",
)
_Row = tuple[float, str | None, bytes, bytes, int | None, int]
"""time, key, x, y, label, rank; sealed, x holds both and y is empty."""


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
        max_age: float | None = None,
        keep: Keep = "recent",
        balanced: bool = False,
        cipher: RowCipher | None = None,
        gaps: bool = False,
        batch_seconds: float = 5.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`max_age` in seconds; with `gaps` a value of a sample may be missing (NaN);
        `clock` says, in unix seconds, how old a row is when it is read.

        Raises OperatorError: the file holds other shapes or was sealed otherwise, the bound holds
        no row, or there are no classes to balance.
        """
        if balanced and targets:
            raise OperatorError("only a classification has classes to balance: leave `balanced`")
        self._shape = tuple(shape)
        self._targets = targets
        self._row_bytes = 4 * math.prod(self._shape) + (4 * targets or 8)
        self._max_age, self._clock = max_age, clock
        self._gaps = gaps
        self._keep, self._balanced, self._cipher = keep, balanced, cipher
        cost = self._row_bytes + ROW_COST + (0 if cipher is None else OVERHEAD)
        self.capacity = min(max_rows, max_bytes // cost)
        if self.capacity < 1:
            raise OperatorError(
                f"a store of {max_bytes} bytes has no room for a sample of {self._row_bytes}: "
                "raise the bound"
            )
        self._batch_rows = min(batch_rows, self.capacity)
        self._batch_seconds = batch_seconds
        self._pending: list[_Row] = []
        self._flushed: float | None = None
        self._lock = threading.Lock()
        self._pending_lock = threading.Lock()  # held for an instant, so that `add` never waits
        self._database = open_or_replace(path, _MIGRATIONS)
        self.dropped = 0
        self.expired = 0
        self.damaged = 0
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
        row = self._row(now, self._checked_key(key), self._packed_x(x), self._packed_y(y))
        if self._flushed is None:
            self._flushed = now
        with self._pending_lock:
            self._pending.append(row)
        if len(self._pending) >= 4 * self._batch_rows:
            self.flush(now)
        waited = now - self._flushed
        return len(self._pending) >= self._batch_rows or not 0 <= waited < self._batch_seconds

    def flush(self, now: float) -> None:
        """Write what was added, and drop the rows beyond the bounds.

        Raises OperatorError (a full disk): the batch is counted as dropped.
        """
        with self._lock:
            self._flushed = now
            self._write(now)

    def training_arrays(self) -> tuple[Floats, Labels]:
        """x [n, *shape] and y [n] or [n, targets] of the rows to learn from, oldest first."""
        return self._arrays(held_out=False)

    def hold_out_arrays(self) -> tuple[Floats, Labels]:
        """The same for the rows to evaluate on: about one in HOLD_OUT."""
        return self._arrays(held_out=True)

    def close(self) -> None:
        """Write what was added and close the file."""
        with self._lock:
            self._write(None)
            self._database.close()

    def _write(self, now: float | None) -> None:
        """Write what waits; `now` as well drops what is too old by then."""
        with self._pending_lock:
            batch, self._pending = self._pending, []
        if not batch and (now is None or self._max_age is None):
            return
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            with database:
                stored = database.executemany(
                    "INSERT INTO samples (time, key, x, y, label, rank) "
                    "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                    batch,
                ).rowcount
                expired = self._expire(now)
                gone = self._give_up(self._rows + stored - expired - self.capacity)
        except sqlite3.DatabaseError as error:
            self.dropped += len(batch)
            raise OperatorError(f"cannot write {len(batch)} samples: {error}") from error
        self.duplicates += len(batch) - stored
        self.dropped += gone
        self.expired += expired
        self._rows += stored - gone - expired

    def _expire(self, now: float | None) -> int:
        if now is None or self._max_age is None:
            return 0
        oldest = now - self._max_age
        return self._database.execute("DELETE FROM samples WHERE time < ?", (oldest,)).rowcount

    def _give_up(self, too_many: int) -> int:
        """Delete so many rows, as the store was told to choose them; how many that was."""
        if too_many <= 0:
            return 0
        if not self._balanced:
            return self._database.execute(LOWEST[self._keep], (too_many,)).rowcount
        counts = self._database.execute("SELECT label, count(*) FROM samples GROUP BY label")
        given = surplus(dict(counts.fetchall()), self.capacity)
        self._database.executemany(LOWEST_OF_CLASS[self._keep], list(given.items()))
        return sum(given.values())

    def _arrays(self, *, held_out: bool) -> tuple[Floats, Labels]:
        with self._lock:
            self._write(self._clock())
            ids = np.array(
                self._database.execute("SELECT id FROM samples ORDER BY id").fetchall(), np.uint64
            ).reshape(-1)
            wanted = is_held_out(ids) == held_out
            n = int(wanted.sum())
            x = np.empty((n, math.prod(self._shape)), np.float32)
            y = np.empty((n, max(1, self._targets)), np.float32 if self._targets else np.int64)
            filled = 0
            for want, row in zip(wanted, self._opened(), strict=True):
                if want and row is not None:
                    x[filled] = np.frombuffer(row[0], "<f4")
                    y[filled] = np.frombuffer(row[1], "<f4" if self._targets else "<i8")
                    filled += 1
            self.damaged += n - filled
            if filled < n:
                log.error("%d stored samples cannot be deciphered; they are left out", n - filled)
        x, y = x[:filled].reshape(filled, *self._shape), y[:filled]
        return x, y if self._targets else y.reshape(filled)

    def _opened(self) -> Iterator[tuple[bytes, bytes] | None]:
        """x and y of every row by its id; None for one that cannot be deciphered."""
        rows = self._database.execute("SELECT time, x, y, label FROM samples ORDER BY id")
        for when, x, y, label in rows:
            if self._cipher is None:
                yield x, y
                continue
            plain = self._cipher.unseal(x, _about(when, label))
            cut = 4 * math.prod(self._shape)
            yield None if plain is None else (plain[:cut], plain[cut:])

    def _row(self, now: float, key: str | None, x: bytes, y: bytes) -> _Row:
        label = None if self._targets else int.from_bytes(y, "little")
        named = x + y + struct.pack(">d", now) if key is None else key.encode()
        if self._cipher is None:
            return now, key, x, y, label, _number(hashlib.blake2b(named, digest_size=8).digest())
        blinded = self._cipher.blind(named)
        if label is not None:
            label = _number(self._cipher.blind(b"label" + y))
        sealed = self._cipher.seal(x + y, _about(now, label))
        return now, None if key is None else blinded.hex(), sealed, b"", label, _number(blinded)

    def _check_shape(self, path: Path) -> None:
        text = ",".join(map(str, self._shape))
        row = self._database.execute("SELECT x, targets, proof FROM shape").fetchone()
        if row is None:
            proof = None if self._cipher is None else self._cipher.proof()
            self._database.execute(
                "INSERT INTO shape VALUES (1, ?, ?, ?)", (text, self._targets, proof)
            )
            return
        if row[:2] != (text, self._targets):
            raise OperatorError(
                f"{path} holds samples of shape [{row[0]}] with {row[1]} targets, this device "
                f"gives [{text}] with {self._targets}: move the file away to begin anew"
            )
        if (row[2] is None) != (self._cipher is None):
            seen = "in the clear" if row[2] is None else "encrypted"
            raise OperatorError(
                f"{path} holds samples {seen}, and `encrypt` says otherwise: set it back, or move "
                "the file away to begin anew"
            )
        if self._cipher is not None and not self._cipher.proves(row[2]):
            raise OperatorError(
                f"{path} is encrypted with another key: put that key back, or move the file away "
                "to begin anew"
            )

    def _packed_x(self, x: Floats) -> bytes:
        values = np.ascontiguousarray(x, "<f4")
        if values.shape != self._shape:
            raise BadSample(f"sample of shape {values.shape}, expected {self._shape}")
        if not (np.isfinite(values) | (self._gaps & np.isnan(values))).all():
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


def _about(when: float, label: int | None) -> bytes:
    """What stands in the clear beside a sealed row, and must not be moved to another."""
    return struct.pack(">dq", when, 0 if label is None else label)


def _number(digest: bytes) -> int:
    """Its first eight bytes as SQLite's integer, at least 0."""
    return int.from_bytes(digest[:8]) >> 1
