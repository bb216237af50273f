"""Verifying an audit log: every file, every line, and what is missing at either end."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgechoir.errors import Malformed, OperatorError
from edgechoir.fleet.audit_files import log_files
from edgechoir.identity.certificate import Certified, Root
from edgechoir.identity.chain import MAX_LINE, NOTHING, Auditor, Line, read_line

MAX_WRONG: Final = 100
"""Findings of one verification; a log that has more is lost anyway."""


@dataclass(slots=True)
class Verdict:
    """What came of a verification. `wrong` and `notes` name file and line where there is one."""

    files: int = 0
    records: int = 0
    first: int = 0
    """Number of the oldest record that is there."""
    next: int = 0
    head: str = ""
    """The hash of the last record."""
    signer: Certified | None = None
    seals: int = 0
    wrong: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def records(directory: Path) -> Iterator[tuple[str, int, Line | Malformed]]:
    """(file, line from 1, record) of all files, oldest first. Raises OperatorError."""
    paths = log_files(directory)
    if not paths:
        raise OperatorError(f"{directory} holds no audit log: name a member's state directory")
    for path in paths:
        try:
            with path.open("rb") as file:
                number = 0
                while data := file.readline(MAX_LINE + 1):
                    number += 1
                    try:
                        if not data.endswith(b"\n"):
                            raise Malformed("it is cut off")
                        line: Line | Malformed = read_line(data[:-1])
                    except Malformed as error:
                        line = error
                    yield path.name, number, line
        except OSError as error:
            raise OperatorError(f"cannot read {path}: {error.strerror}") from None


def verify_log(directory: Path, root: Root | None, head: str | None = None) -> Verdict:
    """Verify the log in a directory; with `root` its signers' certificates too.

    `head` is the hash of a record that must be in it, from a status seen earlier: whoever took the
    end of the log off took that record too. Raises OperatorError: there is no log, or it cannot be
    read.
    """
    verdict = Verdict(files=len(log_files(directory)))
    auditor = Auditor(root)
    torn = ""
    seen = head is None
    where = ""
    for name, number, line in records(directory):
        if torn:
            _add(verdict.wrong, torn)
            torn = ""
        where = f"{name}:{number}"
        if isinstance(line, Malformed):
            torn = f"{where}: {line}"
            continue
        verdict.records += 1
        seen = seen or line.hash.hex() == head
        if number == 1 and line.kind != "signer":
            _add(verdict.wrong, f"{where}: a file begins with its signer, the first lines are gone")
        for what in auditor.read(line):
            _add(verdict.wrong, f"{where}: {what}")
        if line.kind == "repaired":
            fields = line.fields
            verdict.notes.append(
                f"{where}: after a process was killed, {fields.get('unsealed')} records were found "
                f"without a seal and {fields.get('torn_bytes')} torn bytes taken off"
            )
    if torn:
        verdict.notes.append(f"{torn}: a write was cut short; it is repaired at the next start")
    _ends(verdict, auditor, where)
    if not seen:
        _add(
            verdict.wrong,
            f"{where}: no record has the hash {head}: the log was cut off before it, or is another",
        )
    return verdict


def _ends(verdict: Verdict, auditor: Auditor, where: str) -> None:
    """The beginning, which may have been dropped, and the end, which may lack its seal."""
    if auditor.head is None or auditor.started is None or auditor.first is None:
        _add(verdict.wrong, "there is not one record")
        return
    verdict.first, verdict.next = auditor.first, auditor.head.next
    verdict.head = auditor.head.hash.hex()
    verdict.signer, verdict.seals = auditor.signer, auditor.seals
    if auditor.first == 0:
        if auditor.started.hash != NOTHING:
            _add(verdict.wrong, "the first record says that it follows another")
    elif not _was_dropped(auditor.first, auditor.started.hash.hex(), auditor.dropped):
        _add(
            verdict.wrong,
            f"records 0 to {auditor.first - 1} are missing, and nothing in the log says that they "
            "were dropped",
        )
    else:
        verdict.notes.append(f"records 0 to {auditor.first - 1} were dropped by age, as it says")
    unsealed = auditor.head.next - 1 - auditor.sealed
    if not auditor.seals or unsealed:
        verdict.notes.append(
            f"{where}: the last {unsealed} records carry no seal: a write was cut short, or "
            "somebody has added or taken away"
        )


def _was_dropped(first: int, before: str, dropped: tuple[int, str] | None) -> bool:
    """Whether the log itself says that all before `first` may be missing.

    A process killed as it dropped files may have left some of them.
    """
    if dropped is None:
        return False
    records, hash = dropped
    return first < records or (first == records and before == hash)


def _add(found: list[str], what: str) -> None:
    if len(found) < MAX_WRONG:
        found.append(what)
