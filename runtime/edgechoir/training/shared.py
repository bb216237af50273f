"""Memory that trainer and worker both have: the arrays of a job lie there and cross no pipe.

A file without a name, which the worker inherits and which is gone with the two of them. One side
writes, says so through the pipe, and leaves the memory alone until the other has said something: so
there is never more than one writer.
"""

import mmap
import os
import tempfile
import threading
from collections.abc import Sequence
from typing import Final, Self

from edgechoir.errors import TrainingError

_PIECE: Final = 16 << 20
"""Bytes written in one go; closing waits for no more than that."""


class Shared:
    """The memory behind a file descriptor, which it owns. Safe to close while another thread
    writes."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._open = True
        self._lock = threading.Lock()

    @classmethod
    def make(cls) -> Self:
        """New memory. Raises TrainingError."""
        try:
            if hasattr(os, "memfd_create"):
                return cls(os.memfd_create("edgechoir-training"))
            with tempfile.TemporaryFile() as file:
                return cls(os.dup(file.fileno()))
        except OSError as error:
            raise TrainingError(f"no memory to share with the worker: {error.strerror}") from error

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def put(self, parts: Sequence[bytes | memoryview]) -> None:
        """Write the parts one after another, in the place of what was there.

        Raises TrainingError: out of memory, or closed meanwhile.
        """
        at = 0
        try:
            for part in parts:
                rest = memoryview(part)
                while rest:
                    with self._lock:
                        self._check_open()
                        count = os.pwrite(self._descriptor, rest[:_PIECE], at)
                    rest, at = rest[count:], at + count
            self._cut(at)
        except OSError as error:
            raise TrainingError(
                f"no room for {sum(map(len, parts))} bytes shared with the worker: "
                f"{error.strerror}; train on fewer samples at a time"
            ) from error

    def take(self, length: int) -> bytearray:
        """A copy of the first `length` bytes; the memory is given back. Raises TrainingError."""
        data = bytearray(length)
        with self._lock:
            self._check_open()
            read = os.preadv(self._descriptor, [data], 0) if length else 0
        self._check_length(read, length)
        self._cut(0)
        return data

    def view(self, length: int) -> bytes | mmap.mmap:
        """The first `length` bytes, not copied and not to be written to. Raises TrainingError."""
        self._check_length(os.fstat(self._descriptor).st_size, length)
        return mmap.mmap(self._descriptor, length, access=mmap.ACCESS_READ) if length else b""

    def close(self) -> None:
        """Do so again, and nothing happens."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._descriptor)

    def _cut(self, length: int) -> None:
        with self._lock:
            self._check_open()
            os.ftruncate(self._descriptor, length)

    def _check_open(self) -> None:
        if not self._open:
            raise TrainingError("the memory shared with the worker was closed")

    @staticmethod
    def _check_length(found: int, expected: int) -> None:
        if found < expected:
            raise TrainingError(f"{found} bytes are shared with the worker, expected {expected}")
