"""Versions of the global model: the best by one metric, and the last few."""

import hashlib
import io
import json
import logging
import math
import sqlite3
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from edgechoir.errors import BadModel, LocalError, OperatorError
from edgechoir.store.database import open_or_replace
from edgechoir.types import Floats

log: Final = logging.getLogger(__name__)

_MIGRATIONS: Final = (
    """CREATE TABLE versions (
        version INTEGER PRIMARY KEY, sha256 BLOB NOT NULL, params BLOB NOT NULL,
        metrics TEXT NOT NULL, score REAL, created REAL NOT NULL)""",
    "ALTER TABLE versions ADD COLUMN extra BLOB NOT NULL DEFAULT x''",
    """CREATE TABLE history (
        version INTEGER PRIMARY KEY, metrics TEXT NOT NULL, created REAL NOT NULL)""",
)
HISTORY: Final = 10_000
"""Versions whose measures are remembered; the oldest go first."""
_COLUMNS: Final = "version, sha256, params, metrics, created, extra"


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One version: params [d], read-only; `digest` is the SHA-256 of its little-endian bytes;
    `created` in unix seconds; `extra` holds vectors that go with it, by name."""

    version: int
    digest: bytes
    params: Floats
    metrics: Mapping[str, float]
    created: float
    extra: Mapping[str, Floats] = field(default_factory=dict)


class ModelVersions:
    """Keeps the version with the best `metric` and the `keep` highest; others are dropped."""

    def __init__(
        self, path: Path, *, metric: str = "accuracy", higher_is_better: bool = True, keep: int = 5
    ) -> None:
        if keep < 1:
            raise LocalError(f"keep at least one version, got {keep}")
        self._metric = metric
        self._sign = 1.0 if higher_is_better else -1.0
        self._keep = keep
        self._lock = threading.Lock()
        self._database = open_or_replace(path, _MIGRATIONS)

    def put(
        self,
        version: int,
        params: Floats,
        metrics: Mapping[str, float],
        created: float,
        extra: Mapping[str, Floats] | None = None,
    ) -> bytes:
        """Store a version and give its digest. Doing so again changes nothing.

        Raises BadModel: the version is stored with other parameters.
        """
        blob = np.ascontiguousarray(params, "<f4").tobytes()
        digest = hashlib.sha256(blob).digest()
        text, score = json.dumps(dict(metrics)), self._score(metrics)
        with self._lock:
            row = self._database.execute(
                "SELECT sha256 FROM versions WHERE version = ?", (version,)
            ).fetchone()
            if row is not None:
                if row[0] != digest:
                    raise BadModel(
                        f"model version {version} is stored with hash {row[0].hex()[:16]}, "
                        f"now came {digest.hex()[:16]}"
                    )
                return digest
            self._database.execute("BEGIN IMMEDIATE")
            with self._database:
                self._database.execute(
                    "INSERT INTO versions VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        *(version, digest, blob, text, score, created),
                        _pack(extra or {}),
                    ),
                )
                self._database.execute(
                    "DELETE FROM versions WHERE version NOT IN "
                    "(SELECT version FROM versions ORDER BY version DESC LIMIT ?) "
                    "AND version IS NOT (SELECT version FROM versions WHERE score IS NOT NULL "
                    "ORDER BY score DESC, version DESC LIMIT 1)",
                    (self._keep,),
                )
        return digest

    def measured(
        self, version: int, metrics: Mapping[str, float], at: float, *, sound: bool = True
    ) -> None:
        """Remember how a version did, kept or not; the best of those kept stays, which one that is
        not `sound` never is. Raises OperatorError (a full disk)."""
        score = self._score(metrics) if sound else None
        text = json.dumps({name: value for name, value in metrics.items() if math.isfinite(value)})
        try:
            with self._lock:
                self._database.execute("BEGIN IMMEDIATE")
                with self._database:
                    self._database.execute(
                        "INSERT OR REPLACE INTO history VALUES (?, ?, ?)", (version, text, at)
                    )
                    self._database.execute(
                        "DELETE FROM history WHERE version NOT IN "
                        "(SELECT version FROM history ORDER BY version DESC LIMIT ?)",
                        (HISTORY,),
                    )
                    self._database.execute(
                        "UPDATE versions SET metrics = ?, score = ? WHERE version = ?",
                        (text, score, version),
                    )
        except sqlite3.Error as error:
            raise OperatorError(
                f"how version {version} did cannot be kept: {error}; check the disk"
            ) from error

    def history(self) -> list[tuple[int, dict[str, float], float]]:
        """(version, metrics, when it was measured), ascending, whether it is kept or not."""
        rows = self._database.execute("SELECT * FROM history ORDER BY version").fetchall()
        return [(version, json.loads(text), at) for version, text, at in rows]

    def _score(self, metrics: Mapping[str, float]) -> float | None:
        value = metrics.get(self._metric, math.nan)
        return self._sign * value if math.isfinite(value) else None

    def versions(self) -> list[int]:
        """The version numbers kept, ascending."""
        rows = self._database.execute("SELECT version FROM versions ORDER BY version").fetchall()
        return [row[0] for row in rows]

    def get(self, version: int) -> StoredModel | None:
        """One version; None when it is not kept."""
        return self._first("WHERE version = ?", (version,))

    def latest(self) -> StoredModel | None:
        """The highest version that is whole."""
        return self._first("ORDER BY version DESC")

    def best(self) -> StoredModel | None:
        """The version with the best metric, the newer of equals; None when none has it."""
        return self._first("WHERE score IS NOT NULL ORDER BY score DESC, version DESC")

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _first(self, condition: str, values: tuple[int, ...] = ()) -> StoredModel | None:
        """The first row that fits and whose hash is right; a damaged one is dropped with a line."""
        with self._lock:
            while True:
                row = self._database.execute(
                    f"SELECT {_COLUMNS} FROM versions {condition}",  # noqa: S608 - our own words
                    values,
                ).fetchone()
                if row is None:
                    return None
                version, digest, blob, metrics, created, extra = row
                if hashlib.sha256(blob).digest() == digest:
                    params = np.frombuffer(blob, "<f4")
                    figures = json.loads(metrics)
                    return StoredModel(version, digest, params, figures, created, _unpack(extra))
                log.error("stored model version %d does not have its hash; it is dropped", version)
                self._database.execute("DELETE FROM versions WHERE version = ?", (version,))


def _pack(vectors: Mapping[str, Floats]) -> bytes:
    """Named vectors as bytes; nothing for none."""
    if not vectors:
        return b""
    file = io.BytesIO()
    np.savez(
        file, allow_pickle=False, **{name: np.asarray(v, "<f4") for name, v in vectors.items()}
    )
    return file.getvalue()


def _unpack(blob: bytes) -> dict[str, Floats]:
    if not blob:
        return {}
    with np.load(io.BytesIO(blob), allow_pickle=False) as vectors:
        return {name: vectors[name] for name in vectors.files}
