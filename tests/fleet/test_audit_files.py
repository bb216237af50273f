"""The files of an audit log: rotation, what a killed process leaves, what a thief takes away."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechoir.errors import OperatorError
from edgechoir.fleet.audit_check import Verdict, records, verify_log
from edgechoir.fleet.audit_files import AuditFiles, Bounds, Entry, log_files
from edgechoir.fleet.enrolment import Member
from edgechoir.identity.chain import Line

NOW = 1_800_000_000.0


def write(directory: Path, member: Member, *batches: int, bounds: Bounds | None = None) -> str:
    """Open, add batches of so many records, close; the head."""
    files = AuditFiles(directory, member.key, member.certificate, bounds or Bounds(), NOW)
    for size in batches:
        files.append([Entry(NOW, "round", {"round": n, "pad": "x" * 50}) for n in range(size)])
    files.close()
    return files.head.hash.hex()


def verdict(directory: Path, member: Member, head: str | None = None) -> Verdict:
    return verify_log(directory, member.root, head)


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def test_a_log_goes_on_over_restarts_and_holds(tmp_path: Path, member: Member) -> None:
    head = write(tmp_path, member, 2, 3)
    later = write(tmp_path, member, 1)
    found = verdict(tmp_path, member, head)
    assert (found.wrong, found.notes, found.files) == ([], [], 1)
    assert found.records == 2 + 3 + 2 + 2 + 1 + 3
    assert found.head == later
    assert found.signer == member.certificate
    (file,) = log_files(tmp_path)
    assert file.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_full_is_followed_by_the_next_and_the_oldest_go(
    tmp_path: Path, member: Member
) -> None:
    write(tmp_path, member, *([5] * 40), bounds=Bounds(file_bytes=4000, files=3))
    found = verdict(tmp_path, member)
    assert found.wrong == []
    assert (found.files, found.first > 0) == (3, True)
    assert found.notes == [f"records 0 to {found.first - 1} were dropped by age, as it says"]


def test_a_file_taken_away_is_missed(tmp_path: Path, member: Member) -> None:
    write(tmp_path, member, *([5] * 12), bounds=Bounds(file_bytes=4000, files=100))
    first, second, *_ = log_files(tmp_path)
    assert verdict(tmp_path, member).wrong == []
    kept = second.read_bytes()
    second.unlink()
    assert "records were removed" in verdict(tmp_path, member).wrong[0]
    second.write_bytes(kept)
    first.unlink()
    assert "are missing, and nothing in the log says" in verdict(tmp_path, member).wrong[0]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_line_changed_removed_or_moved_is_named(
    data: st.DataObject, member: Member, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("log")
    write(directory, member, *([2] * 6), bounds=Bounds(file_bytes=2500, files=100))
    path = data.draw(st.sampled_from(log_files(directory)))
    lines = lines_of(path)
    last = path == log_files(directory)[-1]
    at = data.draw(st.integers(0, len(lines) - (3 if last else 1)))
    match data.draw(st.sampled_from(["change", "remove", "swap", "cut"])):
        case "change":
            lines[at] = lines[at].replace(b'"at":18', b'"at":17')
        case "remove":
            del lines[at]
        case "swap":
            other = (at + 1) % len(lines)
            lines[at], lines[other] = lines[other], lines[at]
        case "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at]) - 2))]
    path.write_bytes(b"".join(lines))
    wrong = verdict(directory, member).wrong
    assert wrong
    assert ":" in wrong[0]


def test_the_end_taken_off_is_seen_by_who_kept_a_head(tmp_path: Path, member: Member) -> None:
    head = write(tmp_path, member, 2, 2)
    (path,) = log_files(tmp_path)
    lines = lines_of(path)
    path.write_bytes(b"".join(lines[:-3]))
    assert verdict(tmp_path, member).wrong == []
    assert "no record has the hash" in verdict(tmp_path, member, head).wrong[0]


def test_records_behind_the_last_seal_are_said_to_be_unsealed(
    tmp_path: Path, member: Member
) -> None:
    write(tmp_path, member, 2, 2)
    (path,) = log_files(tmp_path)
    path.write_bytes(b"".join(lines_of(path)[:-1]))
    found = verdict(tmp_path, member)
    assert found.wrong == []
    assert "the last 2 records carry no seal" in found.notes[0]
    write(tmp_path, member, 1)
    found = verdict(tmp_path, member)
    assert found.wrong == []
    assert "2 records were found without a seal and 0 torn bytes" in found.notes[0]


@pytest.mark.parametrize("torn", [b"", b"\0" * 100, b"00" * 32 + b' {"n":', b"garbage\n\0\0"])
def test_a_torn_last_line_is_said_to_be_one_and_repaired_at_the_next_start(
    tmp_path: Path, member: Member, torn: bytes
) -> None:
    write(tmp_path, member, 2)
    (path,) = log_files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + torn)
    write(tmp_path, member, 1)
    assert path.read_bytes().startswith(whole)
    found = verdict(tmp_path, member)
    assert found.wrong == []
    assert [f"{len(torn)} torn bytes" in note for note in found.notes] == [True] * bool(torn)


def test_a_file_torn_at_its_very_beginning_is_begun_again(tmp_path: Path, member: Member) -> None:
    write(tmp_path, member, 2)
    (tmp_path / "000000000099.log").write_bytes(b"\0" * 10)
    write(tmp_path, member, 1)
    assert verdict(tmp_path, member).wrong == []


def test_a_break_in_the_middle_stays_in_the_log_for_all_time(
    tmp_path: Path, member: Member
) -> None:
    write(tmp_path, member, 2, 2)
    (path,) = log_files(tmp_path)
    path.write_bytes(path.read_bytes().replace(b'"round":1', b'"round":7', 1))
    write(tmp_path, member, 1)
    assert verdict(tmp_path, member).wrong == [
        "000000000000.log:4: record 3 ('round') was changed: its hash does not fit"
    ]


def test_one_process_writes_a_log(tmp_path: Path, member: Member) -> None:
    files = AuditFiles(tmp_path, member.key, member.certificate, Bounds(), NOW)
    with pytest.raises(OperatorError, match="another process writes"):
        AuditFiles(tmp_path, member.key, member.certificate, Bounds(), NOW)
    files.close()


def test_what_cannot_be_written_is_recorded_as_such(tmp_path: Path, member: Member) -> None:
    files = AuditFiles(tmp_path, member.key, member.certificate, Bounds(), NOW)
    files.append([Entry(NOW, "odd", {"value": float("nan")}), Entry(NOW, "set", {"value": {1}})])
    files.close()
    kinds = [line.kind for _, _, line in records(tmp_path) if isinstance(line, Line)]
    assert kinds == ["signer", "seal", "unwritable", "unwritable", "seal"]
    assert verdict(tmp_path, member).wrong == []


WRITER = """
import sys, time
from pathlib import Path
from edgechoir.fleet.audit_files import AuditFiles, Bounds, Entry
from edgechoir.fleet.enrolment import load_member
member = load_member(Path(sys.argv[1]), 1_800_000_000.0)
bounds = Bounds(file_bytes=20_000, files=4)
files = AuditFiles(Path(sys.argv[2]), member.key, member.certificate, bounds, 1_800_000_000.0)
print("ready", flush=True)
number = 0
while True:
    number += 1
    entry = Entry(1_800_000_000.0, "round", {"round": number, "pad": "x" * 3000})
    files.append([entry] * 5)
    print(number, flush=True)
"""


def test_a_process_killed_as_it_writes_leaves_a_log_that_holds(
    tmp_path: Path, member: Member
) -> None:
    log = tmp_path / "log"
    for stop in (1, 2, 3, 5):
        home = str(member.paths.directory)
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, home, str(log)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            said = [process.stdout.readline() for _ in range(stop + 1)]
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        assert said[-1] == f"{stop}\n"
        found = verdict(log, member)
        assert found.wrong == []
        written = [
            line.fields["round"]
            for _, _, line in records(log)
            if isinstance(line, Line) and line.kind == "round"
        ]
        assert written.count(stop) >= 5
    write(log, member, 1)
    assert verdict(log, member).wrong == []


def test_where_there_is_no_log_the_operator_is_told(tmp_path: Path, member: Member) -> None:
    with pytest.raises(OperatorError, match="holds no audit log"):
        verdict(tmp_path, member)
