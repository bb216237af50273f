"""Samples encrypted at rest: AES-256-GCM, a row at a time, under a key that lies elsewhere.

What it protects: the samples in a copy of the state directory, or in a part of a disk that is given
away, as long as the key is not there too. What it does not: anything from one who can read the key
file or the memory of the process. The times of rows, how many there are and how many share a label
stay visible; labels and keys themselves do not.
"""

import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError

KEY_FILE: Final = "samples.key"
"""Its name, beside the identity: that may lie on another disk than the samples."""
KEY_BYTES: Final = 32
NONCE: Final = 12
OVERHEAD: Final = NONCE + 16
"""Bytes that a sealed row is longer."""
_KNOWN: Final = b"edgechoir samples"
_MODE: Final = 0o600


class RowCipher:
    """Seals rows, and blinds what rows are found by. One random nonce a row: good for 2^32 rows."""

    def __init__(self, key: bytes) -> None:
        # Costs 10 MB of memory, so only a device that encrypts pays for it.
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self._invalid = InvalidTag
        self._gcm = AESGCM(_derived(key, b"rows"))
        self._names = _derived(key, b"names")

    def seal(self, row: bytes, about: bytes) -> bytes:
        """`row` enciphered, bound to `about`, which stays in the clear beside it."""
        nonce = os.urandom(NONCE)
        return nonce + self._gcm.encrypt(nonce, row, about)

    def unseal(self, sealed: bytes, about: bytes) -> bytes | None:
        """The row; None for one that is damaged, or sealed with another key."""
        try:
            return self._gcm.decrypt(sealed[:NONCE], sealed[NONCE:], about)
        except (self._invalid, ValueError):
            return None

    def blind(self, name: bytes) -> bytes:
        """16 bytes that are the same for the same name, and say nothing about it."""
        return hmac.digest(self._names, name, hashlib.sha256)[:16]

    def proof(self) -> bytes:
        """To be kept with the rows, so that another key is noticed at once."""
        return self.seal(_KNOWN, b"")

    def proves(self, proof: bytes) -> bool:
        return self.unseal(proof, b"") == _KNOWN


def load_key(path: Path, *, make: bool) -> bytes:
    """The key in the file `path`, made there if there is none and `make` says so.

    Raises OperatorError: it cannot be read or made, others can read it, or it is no key.
    """
    try:
        if make and not path.exists():
            _write_new(path)
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            mode = os.fstat(handle).st_mode & 0o777
            data = file.read(3 * KEY_BYTES)
    except OSError as error:
        raise OperatorError(
            f"the key for stored samples, {path}: {error.strerror}; put the key back, or move "
            "samples.db away to begin anew"
        ) from error
    if mode & 0o077:
        raise OperatorError(f"{path} has mode {mode:04o}: others can read it; chmod 600 it")
    try:
        key = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise OperatorError(f"{path} is no key: expected {2 * KEY_BYTES} hex digits")
    return key


def _write_new(path: Path) -> None:
    """Whole or not at all: written beside, then linked, so that a power cut leaves no half key."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _MODE)
        with os.fdopen(handle, "w") as file:
            file.write(os.urandom(KEY_BYTES).hex() + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _derived(key: bytes, use: bytes) -> bytes:
    return hmac.digest(key, b"edgechoir samples " + use, hashlib.sha256)
