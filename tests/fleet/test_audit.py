"""The log of a running process: recording never waits, and a peer cannot fill it."""

import errno
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from edgechoir.fleet.audit import MAX_WAITING, Audit
from edgechoir.fleet.audit_check import records, verify_log
from edgechoir.fleet.audit_files import AuditFiles, Bounds, Entry
from edgechoir.fleet.enrolment import Member
from edgechoir.identity.chain import Line

NOW = 1_800_000_000.0


class FullDisk(AuditFiles):
    """A disk without room until `mended`."""

    full = True

    def append(self, entries: Sequence[Entry]) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().append(entries)


def files(directory: Path, member: Member, kind: type[AuditFiles] = AuditFiles) -> AuditFiles:
    return kind(directory, member.key, member.certificate, Bounds(), NOW)


def audit(directory: Path, member: Member) -> Audit:
    return Audit(files(directory, member), lambda: NOW, linger=0.01)


def said(directory: Path) -> list[tuple[str, dict[str, Any]]]:
    return [
        (line.kind, dict(line.fields))
        for _, _, line in records(directory)
        if isinstance(line, Line) and line.kind not in ("signer", "seal")
    ]


def test_what_is_recorded_is_on_the_disk_after_a_flush(tmp_path: Path, member: Member) -> None:
    log = audit(tmp_path, member)
    log.record("joined", member="device/dev-2")
    log.record("left", member="device/dev-2")
    assert log.flush(10)
    assert said(tmp_path) == [
        ("joined", {"member": "device/dev-2"}),
        ("left", {"member": "device/dev-2"}),
    ]
    figures = log.figures()
    log.close()
    assert verify_log(tmp_path, member.root, figures["head"]).wrong == []


def test_closing_writes_what_waits(tmp_path: Path, member: Member) -> None:
    log = Audit(files(tmp_path, member), lambda: NOW, linger=60)
    log.record("stopped")
    log.close()
    assert said(tmp_path) == [("stopped", {})]


def test_a_flood_of_refusals_is_counted_and_not_written_out(tmp_path: Path, member: Member) -> None:
    log = audit(tmp_path, member)
    for number in range(5000):
        log.record_limited("refused", f"replayed dev-{number % 3}", reason="replayed", n=number)
    assert log.flush(10)
    log.close()
    written = said(tmp_path)
    assert [kind for kind, _ in written] == ["refused"] * 64 + ["unwritten"]
    summary = written[-1][1]
    assert (summary["of"], summary["total"]) == ("refused", 5000 - 64)
    assert set(summary["counts"]) == {"replayed dev-0", "replayed dev-1", "replayed dev-2"}


def test_text_of_a_peer_is_cut(tmp_path: Path, member: Member) -> None:
    log = audit(tmp_path, member)
    log.record_limited("refused", "malformed", why="x" * 100_000)
    log.close()
    assert said(tmp_path) == [("refused", {"why": "x" * 500})]


def test_a_full_disk_holds_nobody_up_and_what_waited_is_written_later(
    tmp_path: Path, member: Member, caplog: pytest.LogCaptureFixture
) -> None:
    disk = FullDisk(tmp_path, member.key, member.certificate, Bounds(), NOW)
    log = Audit(disk, lambda: NOW, linger=0.01)
    with caplog.at_level(logging.ERROR, "edgechoir"):
        log.record("first")
        assert not log.flush(1)
        for _ in range(MAX_WAITING + 10):
            log.record("more")
    assert [r.message for r in caplog.records] == [
        "the audit log cannot be written: [Errno 28] No space left on device; it is tried again"
    ]
    figures = log.figures()
    assert (figures["failing"], figures["lost"]) == (True, 11)
    disk.full = False
    log.close()
    written = said(tmp_path)
    assert written[0] == ("first", {})
    assert written[-1] == ("unwritten", {"of": "lost", "total": 11, "counts": {"more": 11}})
    assert len(written) == MAX_WAITING + 1
    assert verify_log(tmp_path, member.root).wrong == []


def test_a_renewed_certificate_signs_from_then_on(tmp_path: Path, member: Member) -> None:
    log = audit(tmp_path, member)
    log.record("before")
    log.change_signer(member.key, member.certificate)
    log.record("after")
    assert log.flush(10)
    log.close()
    verdict = verify_log(tmp_path, member.root)
    assert (verdict.wrong, verdict.signer) == ([], member.certificate)
    kinds = [line.kind for _, _, line in records(tmp_path) if isinstance(line, Line)]
    assert kinds.count("signer") == 2
