"""Samples and answers in a table that keeps the newest: to be looked at with any SQLite tool."""

import asyncio
import json
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sinks.document import document
from edgechoir.store.database import open_or_replace

_MIGRATIONS: Final = (
    """CREATE TABLE answers (
        id INTEGER PRIMARY KEY, time REAL NOT NULL, key TEXT NOT NULL, label INTEGER,
        confidence REAL, "values" TEXT NOT NULL, version INTEGER, seconds REAL, y REAL);
    CREATE INDEX answers_by_time ON answers (time)""",
)


class SqliteSink:
    """Table `answers` of `path`, at most `rows` of them: the oldest go. One commit a batch.

    `values` is a JSON array: the model's output, or the sample's own values where no model was
    passed.
    """

    def __init__(self, path: Path, rows: int = 100_000, name: str = "sqlite") -> None:
        """Raises OperatorError: fewer than one row, or no such folder."""
        if rows < 1:
            raise OperatorError(f"rows is {rows}: use 1 or more")
        if not path.parent.is_dir():
            raise OperatorError(f"{path.parent} is not a folder: create it first")
        self.name = name
        self._path, self._rows = path, rows
        self._database: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    async def write(self, samples: Sequence[Sample]) -> None:
        """Raises OSError or sqlite3.Error: the disk is full or gone; the batch is lost."""
        await asyncio.to_thread(self._insert, [_row(sample) for sample in samples])

    async def close(self) -> None:
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._lock:
            if self._database is not None:
                self._database.close()
                self._database = None

    def _insert(self, rows: list[tuple[object, ...]]) -> None:
        # A write given up at its deadline goes on in its thread: the next one waits for it.
        with self._lock:
            if self._database is None:
                self._database = open_or_replace(self._path, _MIGRATIONS)
            database = self._database
            database.execute("BEGIN IMMEDIATE")
            with database:
                database.executemany(
                    'INSERT INTO answers (time, key, label, confidence, "values", version, '
                    "seconds, y) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
                database.execute(
                    "DELETE FROM answers WHERE id <= (SELECT max(id) FROM answers) - ?",
                    (self._rows,),
                )


def _row(sample: Sample) -> tuple[object, ...]:
    said = document(sample)
    values = json.dumps(said.get("values", said.get("x")), separators=(",", ":"))
    columns = ("time", "key", "label", "confidence", None, "version", "seconds", "y")
    return tuple(values if name is None else said.get(name) for name in columns)
