"""Samples and answers as lines of JSON in a file that is rotated and so never fills the disk."""

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path

from edgechoir.errors import OperatorError
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sinks.document import line


class JsonlSink:
    """Appends to `path`; at `max_bytes` it becomes `path.1`, that `path.2` and so on up to `keep`.

    At most about (keep + 1) * max_bytes on disk. An old file is kept when the process starts again.
    """

    def __init__(
        self, path: Path, max_bytes: int = 10_000_000, keep: int = 2, name: str = "jsonl"
    ) -> None:
        """Raises OperatorError: no such folder, or a size or number out of range."""
        if max_bytes < 1 or keep < 0:
            raise OperatorError(f"max_bytes {max_bytes}, keep {keep}: use 1 or more, 0 or more")
        if not path.parent.is_dir():
            raise OperatorError(f"{path.parent} is not a folder: create it first")
        self.name = name
        self._path, self._max_bytes, self._keep = path, max_bytes, keep
        self._writing = threading.Lock()

    async def write(self, samples: Sequence[Sample]) -> None:
        """Raises OSError: the disk is full or gone; they are lost, the next are tried."""
        await asyncio.to_thread(self._locked, [line(sample) for sample in samples])

    async def close(self) -> None:
        return None

    def _locked(self, lines: Sequence[bytes]) -> None:
        # A write given up at its deadline goes on in its thread: the next one waits for it.
        with self._writing:
            self._append(lines)

    def _append(self, lines: Sequence[bytes]) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        room: list[bytes] = []
        for text in lines:
            if size and size + len(text) > self._max_bytes:
                self._flush(room)
                self._rotate()
                room, size = [], 0
            room.append(text)
            size += len(text)
        self._flush(room)

    def _flush(self, lines: Sequence[bytes]) -> None:
        if lines:
            with self._path.open("ab") as file:
                file.write(b"".join(lines))

    def _rotate(self) -> None:
        for n in range(self._keep, 0, -1):
            newer = self._numbered(n - 1)
            if newer.exists():
                newer.replace(self._numbered(n))
        if not self._keep:
            self._path.unlink(missing_ok=True)

    def _numbered(self, n: int) -> Path:
        return self._path if n == 0 else self._path.with_name(f"{self._path.name}.{n}")
