"""The files of an audit log: `<state>/audit/<number of its first record>.log`.

Records are added in batches: one write, one seal, one wait for the disk. A file that has grown to
its bound is left as it is and the next one follows its last hash. When there are too many, the
oldest go; before that the log itself says how many records are gone and what the last one's hash
was, so that nobody else can take a file away unnoticed.

A process killed while it writes leaves at most one incomplete line, or records without their seal.
Both are put right, and written down, when the log is opened again.
"""

import fcntl
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edgechoir.errors import Malformed, OperatorError
from edgechoir.fleet.files import PRIVATE, make_directory
from edgechoir.identity.certificate import Certified
from edgechoir.identity.chain import Head, Line, extend, introduce, read_line, seal
from edgechoir.identity.keys import SigningKey

DIRECTORY: Final = "audit"
SUFFIX: Final = ".log"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be recorded, and when it happened (unix seconds)."""

    at: float
    kind: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Bounds:
    """`files` of about `file_bytes` each are kept."""

    file_bytes: int = 4_000_000
    files: int = 8


def log_files(directory: Path) -> list[Path]:
    """The log's files, oldest first."""
    return sorted(p for p in directory.glob(f"*{SUFFIX}") if p.stem.isdigit())


class AuditFiles:
    """The log of one member, open for writing. Raises OperatorError where it cannot be had."""

    def __init__(
        self, directory: Path, key: SigningKey, certificate: Certified, bounds: Bounds, now: float
    ) -> None:
        make_directory(directory)
        self._directory = directory
        self._key, self._certificate = key, certificate
        self._bounds = bounds
        self._lock = _lock(directory)
        self._file = -1
        self._size = 0
        self.head = Head()
        self.writes = 0
        """Batches written since the start; each waits for the disk once."""
        try:
            path, found = self._resume(now)
            self._begin_at(path or self._next_path())
            self._introduce(now, found)
        except OSError as error:
            self.close()
            raise OperatorError(f"cannot write {directory}: {error.strerror}") from None

    def append(self, entries: Sequence[Entry]) -> None:
        """Add records and seal them; the disk has them when this returns.

        Raises OSError, and none of them is there.
        """
        now = entries[-1].at
        if self._size >= self._bounds.file_bytes:
            self._begin_at(self._next_path())
        if not self._size:
            gone = log_files(self._directory)[: -self._bounds.files]
            self._introduce(now, _dropping(gone, now))
            for path in gone:
                path.unlink()
        head, lines = self.head, []
        for entry in entries:
            head, line = _extend(head, entry)
            lines.append(line)
        head, line = seal(head, now, self._key)
        self._write(b"".join((*lines, line)), head)

    def change_signer(self, key: SigningKey, certificate: Certified, now: float) -> None:
        """Seal with another key, or under another certificate, from here on. Raises OSError."""
        self._key, self._certificate = key, certificate
        self._introduce(now, None)

    def close(self) -> None:
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    def _introduce(self, now: float, found: Entry | None) -> None:
        head, lines = introduce(self.head, now, self._certificate)
        if found is not None:
            head, more = _extend(head, found)
            lines += more
        head, sealing = seal(head, now, self._key)
        self._write(lines + sealing, head)

    def _resume(self, now: float) -> tuple[Path | None, Entry | None]:
        """Find the end of what is there: the newest file, and what had to be put right in it."""
        torn = 0
        for path in reversed(log_files(self._directory)):
            data = path.read_bytes()
            sound, last, unsealed = _sound(data)
            torn += len(data) - sound
            if last is None:
                path.unlink()
                continue
            if sound < len(data):
                os.truncate(path, sound)
            self.head = Head(last.number + 1, last.hash)
            return path, _repaired(now, torn, unsealed)
        return None, _repaired(now, torn, 0)

    def _next_path(self) -> Path:
        return self._directory / f"{self.head.next:012d}{SUFFIX}"

    def _begin_at(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        fresh = os.open(path, flags, PRIVATE)
        if self._file >= 0:
            os.close(self._file)
        self._file = fresh
        self._size = os.fstat(fresh).st_size
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _write(self, data: bytes, head: Head) -> None:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
            os.fdatasync(self._file)
        except OSError:
            os.ftruncate(self._file, self._size)
            raise
        self._size += len(data)
        self.head = head
        self.writes += 1


def _extend(head: Head, entry: Entry) -> tuple[Head, bytes]:
    """A record, or where it is too long or no JSON, one that says so: none is left out."""
    try:
        return extend(head, entry.at, entry.kind, entry.fields)
    except (Malformed, ValueError, TypeError) as error:
        return extend(
            head, entry.at, "unwritable", {"of": entry.kind[:64], "why": str(error)[:200]}
        )


def _sound(data: bytes) -> tuple[int, Line | None, int]:
    """How many bytes of a file are whole lines up to the last record, that record, and how many
    stand behind the last seal."""
    end, sound, unsealed = len(data), 0, 0
    last: Line | None = None
    while end:
        newline = data.rfind(b"\n", 0, end)
        if newline < 0:
            break
        start = data.rfind(b"\n", 0, newline) + 1
        try:
            line = read_line(data[start:newline])
        except Malformed:
            if last is not None:
                break  # somebody has changed it: for whoever verifies the log to name
            end = start
            continue
        if last is None:
            last, sound = line, newline + 1
        if line.kind == "seal":
            break
        unsealed += 1
        end = start
    return sound, last, unsealed


def _repaired(now: float, torn: int, unsealed: int) -> Entry | None:
    """The record that says what a process has left that was killed, or somebody put there."""
    if not torn and not unsealed:
        return None
    return Entry(now, "repaired", {"torn_bytes": torn, "unsealed": unsealed})


def _dropping(paths: Sequence[Path], now: float) -> Entry | None:
    """The record that says which files are about to go."""
    if not paths:
        return None
    _, last, _ = _sound(paths[-1].read_bytes())
    if last is None:
        return None
    fields = {"records": last.number + 1, "hash": last.hash.hex()}
    return Entry(now, "dropped", fields)


def _lock(directory: Path) -> int:
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, PRIVATE)
    except OSError as error:
        raise OperatorError(f"cannot write {directory}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise OperatorError(f"another process writes the log in {directory}") from None
    return descriptor
