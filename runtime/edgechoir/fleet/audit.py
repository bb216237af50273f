"""The audit log of a running process: `audit.record("joined", member="device/dev-1")`.

Recording puts into a bounded queue and returns; one thread writes what has gathered every
`LINGER_S` seconds, in one batch with one wait for the disk. A full disk loses nothing until the
queue is full, and what is lost then is counted in the log itself.

What a peer can bring about at will goes through `record_limited`: written while its budget lasts,
counted beyond it, so that nobody fills the log to have its old part dropped.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any, Final

from edgechoir.fleet.audit_files import AuditFiles, Entry
from edgechoir.fleet.budget import Budget
from edgechoir.identity.certificate import Certified
from edgechoir.identity.keys import SigningKey

log: Final = logging.getLogger(__name__)

LINGER_S: Final = 2.0
MAX_WAITING: Final = 4096
RETRY_S: Final = 10.0
SUM_UP_S: Final = 60.0
LIMITED: Final = (64, 300.0)
"""Records of one limited kind: at once, and the seconds in which one more may follow."""
MAX_KINDS: Final = 32
MAX_COUNTED: Final = 64
MAX_TEXT: Final = 500
CLOSE_S: Final = 5.0


class Audit:
    """One log, written by a thread of its own until `close`."""

    def __init__(
        self, files: AuditFiles, now: Callable[[], float], linger: float = LINGER_S
    ) -> None:
        self._files = files
        self._now = now
        self._linger = linger
        self._waiting: deque[Entry] = deque()
        self._lost = 0
        self._budgets: dict[str, Budget] = {}
        self._unwritten: dict[str, Counter[str]] = {}
        self._signer: tuple[SigningKey, Certified] | None = None
        self._wake = threading.Condition()
        self._closing = False
        self._flushing = 0
        self._head = (files.head.next, files.head.hash.hex())
        self._writes = files.writes
        self._broken = False
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def record(self, kind: str, **fields: Any) -> None:
        """Add a record. Never blocks on the disk, never raises."""
        entry = Entry(self._now(), kind, {name: _bounded(value) for name, value in fields.items()})
        with self._wake:
            self._put(entry)
            self._wake.notify()

    def record_limited(self, kind: str, counted_as: str, **fields: Any) -> None:
        """Add a record of something that a peer can repeat at will, while its budget lasts.

        Beyond it, it is counted under `counted_as` and summed up in a record `unwritten`.
        """
        now = self._now()
        entry = Entry(now, kind, {name: _bounded(value) for name, value in fields.items()})
        with self._wake:
            if kind not in self._budgets and len(self._budgets) >= MAX_KINDS:
                kind = "other"
            budget = self._budgets.setdefault(kind, Budget(*LIMITED))
            if budget.take(time.monotonic()):
                self._put(entry)
            else:
                counts = self._unwritten.setdefault(kind, Counter())
                room = counted_as in counts or len(counts) < MAX_COUNTED
                counts[counted_as if room else "other"] += 1
            self._wake.notify()

    def change_signer(self, key: SigningKey, certificate: Certified) -> None:
        """Seal under this certificate, once what waits is written."""
        with self._wake:
            self._signer = (key, certificate)
            self._wake.notify()

    def figures(self) -> dict[str, Any]:
        """For the status: anyone who keeps it can later tell that the log's end was taken off."""
        with self._wake:
            records, head = self._head
            return {
                "records": records,
                "head": head,
                "commits": self._writes,
                "lost": self._lost,
                "failing": self._broken,
            }

    def flush(self, timeout: float) -> bool:
        """Have everything recorded so far on the disk; whether that was done in time."""
        with self._wake:
            if not self._thread.is_alive():
                return False
            self._flushing += 1
            self._wake.notify()
            done = self._wake.wait_for(lambda: self._idle() or not self._thread.is_alive(), timeout)
            self._flushing -= 1
            return done and self._idle()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(CLOSE_S)
        if not self._thread.is_alive():
            self._files.close()

    def _idle(self) -> bool:
        return not self._waiting and self._signer is None

    def _put(self, entry: Entry) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._lost += 1
            self._unwritten.setdefault("lost", Counter())[entry.kind] += 1
            return
        self._waiting.append(entry)

    def _run(self) -> None:
        try:
            self._serve()
        except Exception:  # the edge of this thread: the member goes on without its log
            log.exception("the audit log is not written any more")
            self._broken = True

    def _serve(self) -> None:
        while True:
            with self._wake:
                timeout = SUM_UP_S if self._unwritten else None
                self._wake.wait_for(lambda: self._closing or not self._idle(), timeout)
                if not self._closing:  # let a batch gather
                    self._wake.wait_for(lambda: self._closing or self._flushing > 0, self._linger)
                self._sum_up()
                entries, signer, closing = tuple(self._waiting), self._signer, self._closing
            good = not entries or self._try(self._files.append, entries)
            with self._wake:
                for _ in entries if good else ():
                    self._waiting.popleft()
            if good and signer is not None:
                good = self._try(self._files.change_signer, *signer, self._now())
            with self._wake:
                if good and self._signer is signer:
                    self._signer = None
                self._head = (self._files.head.next, self._files.head.hash.hex())
                self._writes = self._files.writes
                self._wake.notify_all()
                if closing and (not good or self._idle()):
                    return
                if not good:
                    self._wake.wait_for(lambda: self._closing, RETRY_S)

    def _sum_up(self) -> None:
        """Turn what was only counted into records, as the budget allows or at the end."""
        for kind in tuple(self._unwritten):
            budget = self._budgets.get(kind)
            if self._closing or budget is None or budget.take(time.monotonic()):
                counts = dict(self._unwritten.pop(kind))
                fields = {"of": kind, "total": sum(counts.values()), "counts": counts}
                self._waiting.append(Entry(self._now(), "unwritten", fields))

    def _try(self, write: Callable[..., None], *given: Any) -> bool:
        try:
            write(*given)
        except OSError as error:
            if not self._broken:
                log.error("the audit log cannot be written: %s; it is tried again", error)
            self._broken = True
            return False
        if self._broken:
            log.info("the audit log is written again")
        self._broken = False
        return True


def _bounded(value: Any) -> Any:
    """Text from outside is cut: a record has a bound, and so has the log."""
    return value[:MAX_TEXT] if isinstance(value, str) else value
