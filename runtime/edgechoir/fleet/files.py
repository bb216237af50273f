"""Files that are whole or absent, and private where they hold a key.

A file is written beside its place, flushed to the disk and renamed over it: a reader, or a power
cut, meets the old content or the new one.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgechoir.errors import InUse, OperatorError

PRIVATE: Final = 0o600
PUBLIC: Final = 0o644
DIRECTORY: Final = 0o700
MAX_BYTES: Final = 1 << 24
"""No key, certificate or registry is larger: about 50,000 members."""


def write_atomic(path: Path, data: bytes, mode: int) -> None:
    """Put `data` at `path` with permissions `mode`. Raises OperatorError."""
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(file.fileno(), mode)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
            raise
        _sync_directory(path.parent)
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror}") from None


def read_file(path: Path, hint: str) -> bytes:
    """The content of a file. Raises OperatorError, which adds `hint`: how to come by the file."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise OperatorError(f"{path} is missing: {hint}") from None
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_BYTES:
        raise OperatorError(f"{path} is larger than {MAX_BYTES} bytes, that is not ours")
    return data


def make_directory(path: Path) -> None:
    """A directory for its owner alone; one that exists is left as it is. Raises OperatorError."""
    try:
        path.mkdir(mode=DIRECTORY, parents=True, exist_ok=True)
    except OSError as error:
        raise OperatorError(f"cannot make the directory {path}: {error.strerror}") from None


def refuse_existing(*paths: Path) -> None:
    """Raises OperatorError where one of the files is there already: nothing is overwritten."""
    for path in paths:
        if path.exists():
            raise OperatorError(f"{path} exists already and is not overwritten: move it away first")


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Keep other commands out of a directory meanwhile. Raises InUse if one is inside."""
    try:
        descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT, PRIVATE)
    except OSError as error:
        raise OperatorError(f"cannot work in {directory}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise InUse(f"another command is at work in {directory}: try again") from None
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
