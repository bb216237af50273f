"""The list of revoked certificates that a member goes by.

It comes from the parent, from `ca.crl` in the identity directory, or from the enrolment endpoint,
and is kept in the journal: a process that starts again goes back behind none that it has seen.
"""

import asyncio
import logging
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError, RemoteError
from edgechoir.identity.certificate import Root
from edgechoir.identity.revocation import MAX_BYTES, Revocations, newest, read_revocations
from edgechoir.store.journal import RoundJournal

log: Final = logging.getLogger(__name__)

NOTE: Final = "revoked"
FILE: Final = "ca.crl"


class Revoked:
    """`held` is the newest list seen, None before there was any."""

    def __init__(self, root: Root, federation: str, journal: RoundJournal) -> None:
        self._root = root
        self._federation = federation
        self._journal = journal
        self.held: Revocations | None = None
        kept = journal.noted(federation, NOTE)
        if kept is not None:
            try:
                self.held = read_revocations(kept, root)
            except RemoteError as error:
                log.error("the kept list of revoked certificates is of no use: %s", error)

    def take(self, data: bytes) -> Revocations | None:
        """The list, if it is newer than the one held. Raises RemoteError."""
        given = read_revocations(data, self._root)
        if not newest(self.held, given):
            return None
        self.held = given
        return given

    async def keep(self) -> None:
        """Write the list down for the next start."""
        if self.held is None:
            return
        try:
            await asyncio.to_thread(self._journal.note, self._federation, NOTE, self.held.der)
        except OperatorError as error:  # it is in force all the same
            log.error("%s", error)


class CrlFile:
    """Notices when the operator has put another list in the identity directory."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._stamp: tuple[int, int, int] | None = None

    def changed(self) -> bytes | None:
        """The file's bytes, if it is another than the last time. Blocks on the disk."""
        try:
            stat = self._path.stat()
            stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            if stamp == self._stamp:
                return None
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.error("cannot read %s: %s", self._path, error.strerror)
            return None
        self._stamp = stamp
        return data
