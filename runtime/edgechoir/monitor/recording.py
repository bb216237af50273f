"""A recording of what a monitor reads: status and metrics documents as they come, one a line.

A line is {"at": unix seconds, "channel": "status" or "metrics", "document": {...}}. At half the
bound the file goes to FILE.1, in the place of the one before, so that the newest half is always
there. Only documents that a monitor would show are written.
"""

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Final

from edgechoir.errors import Malformed, OperatorError, RemoteError
from edgechoir.monitor.document import MAX_BYTES
from edgechoir.monitor.records import Metrics
from edgechoir.monitor.status import Status, parse_at
from edgechoir.transport.link import Message
from edgechoir.transport.topics import Topic, parse

log: Final = logging.getLogger(__name__)

CHANNELS: Final = ("status", "metrics")
Recorded = Status | Metrics


def read_message(message: Message, federation: str) -> Recorded | None:
    """The document of a message; None for what is not worth recording."""
    try:
        topic = parse(message.topic)
        if topic.federation != federation or topic.channel not in CHANNELS or not message.payload:
            return None
        if topic.channel == "status":
            return parse_at(topic, message.payload)
        return _metrics_at(topic, message.payload)
    except RemoteError:
        return None


def _metrics_at(topic: Topic, payload: bytes) -> Metrics:
    metrics = Metrics.from_json(payload)
    said = (metrics.federation, metrics.tier, metrics.member)
    if said != (topic.federation, topic.tier, topic.member):
        raise Malformed(f"metrics at {topic} say that they are of {'/'.join(said)}")
    return metrics


class Recording:
    """Writes to a file that only its owner may read; all its methods may block."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """Goes on at the end of a file that is there. Raises OperatorError."""
        self._path, self._half = path, max_bytes // 2
        self._file = self._open()

    def write(self, at: float, document: Recorded) -> None:
        """Add a document. Raises OperatorError (a full disk)."""
        channel = "status" if isinstance(document, Status) else "metrics"
        head = f'{{"at":{at:.3f},"channel":"{channel}","document":'.encode()
        line = head + document.to_json() + b"}\n"
        try:
            size = os.fstat(self._file).st_size
            if size and size + len(line) > self._half:
                os.replace(self._path, older(self._path))
                os.close(self._file)
                self._file = self._open()
            os.write(self._file, line)
        except OSError as error:
            raise OperatorError(
                f"the recording {self._path} cannot be written: {error.strerror}; check the disk"
            ) from error

    def close(self) -> None:
        os.close(self._file)

    def _open(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            return os.open(self._path, flags, 0o600)
        except OSError as error:
            raise OperatorError(
                f"the recording {self._path} cannot be made: {error.strerror}"
            ) from error


async def recorded(
    messages: AsyncIterator[Message],
    federation: str,
    recording: Recording,
    clock: Callable[[], float],
    *,
    metrics: bool = False,
) -> AsyncIterator[Message]:
    """Record what is worth it on the way, and pass on all, or all but the metrics.

    A disk that takes no more is said once, and the messages go on.
    """
    failing = False
    async for message in messages:
        document = read_message(message, federation)
        if document is not None:
            try:
                await asyncio.to_thread(recording.write, clock(), document)
                failing = False
            except OperatorError as error:
                if not failing:
                    log.error("%s", error)
                failing = True
        if metrics or not isinstance(document, Metrics):
            yield message


def older(path: Path) -> Path:
    """Where the first half of a long recording is."""
    return path.with_name(path.name + ".1")


def read_recording(path: Path) -> Iterator[tuple[float, Recorded]]:
    """All documents, the oldest first; lines that are none of ours are passed over.

    Raises OperatorError for a file that cannot be read.
    """
    for part in (older(path), path):
        if part == path or part.exists():
            yield from _read(part)


def _read(path: Path) -> Iterator[tuple[float, Recorded]]:
    try:
        with path.open("rb") as lines:
            while line := lines.readline(2 * MAX_BYTES):
                found = _document(line)
                if found is not None:
                    yield found
    except OSError as error:
        raise OperatorError(f"the recording {path} cannot be read: {error.strerror}") from error


def _document(line: bytes) -> tuple[float, Recorded] | None:
    try:
        entry = json.loads(line)
        payload = json.dumps(entry["document"]).encode()
        at = float(entry["at"])
        if entry["channel"] == "status":
            return at, Status.from_json(payload)
        return at, Metrics.from_json(payload)
    except (ValueError, KeyError, TypeError, RecursionError, Malformed):
        return None  # cut off by a crash, or no recording at all
