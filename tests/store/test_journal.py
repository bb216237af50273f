import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError, OperatorError
from edgechoir.store.journal import MAX_NOTE, MAX_NOTES, RoundJournal

WRITER = """
import sys
from pathlib import Path
from edgechoir.store.journal import RoundJournal
journal = RoundJournal(Path(sys.argv[1]))
for number in range(1, 100_000):
    journal.mark_round_used("f", 1, number, 0, number.to_bytes(4, "big") * 2500)
    print(number, flush=True)
"""


def test_a_marked_round_is_there_after_reopening(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "j")
    assert (journal.last_round("f"), journal.last_epoch("f")) == (0, 0)
    journal.mark_round_used("f", 2, 5, 0, b"upload")
    journal.close()
    journal = RoundJournal(tmp_path / "j")
    assert (journal.last_round("f"), journal.last_epoch("f")) == (5, 2)
    assert journal.last_round("g") == 0
    assert journal.stored_upload("f", 2, 5, 0) == b"upload"
    assert journal.stored_upload("f", 2, 5, 1) is None
    journal.close()


def test_other_bytes_for_a_marked_round_are_refused(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "j")
    journal.mark_round_used("f", 1, 1, 0, b"one")
    journal.mark_round_used("f", 1, 1, 0, b"one")
    with pytest.raises(LocalError, match="another upload"):
        journal.mark_round_used("f", 1, 1, 0, b"two")
    assert journal.stored_upload("f", 1, 1, 0) == b"one"
    journal.close()


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.integers(0, 2)), max_size=20),
    st.integers(1, 4),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_rounds_only_go_up_however_many_are_forgotten(
    tmp_path: Path, places: list[tuple[int, int, int]], keep: int
) -> None:
    journal = RoundJournal(tmp_path / f"{len(list(tmp_path.iterdir()))}", keep)
    taken: list[tuple[int, int, int]] = []
    for place in places:
        higher = not taken or (place > taken[-1] and place[1] >= taken[-1][1])
        if higher:
            journal.mark_round_used("f", *place, repr(place).encode())
            taken.append(place)
        else:
            with pytest.raises(LocalError):
                journal.mark_round_used("f", *place, b"other bytes")
    kept = taken[-keep:]
    for place in taken:
        expected = repr(place).encode() if place in kept else None
        assert journal.stored_upload("f", *place) == expected
    assert journal.last_round("f") == (taken[-1][1] if taken else 0)
    journal.close()


@pytest.mark.e2e
@pytest.mark.parametrize("acknowledged", [1, 7, 23])
def test_what_was_acknowledged_survives_kill_9(tmp_path: Path, acknowledged: int) -> None:
    path = tmp_path / "j"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        for _ in range(acknowledged):
            assert writer.stdout.readline()
        writer.kill()
        rest = writer.stdout.read().split()
    last = int(rest[-1]) if rest else acknowledged
    journal = RoundJournal(path)
    assert last <= journal.last_round("f") <= last + 1
    assert journal.stored_upload("f", 1, last, 0) == last.to_bytes(4, "big") * 2500
    journal.close()


def test_a_second_process_is_kept_out(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "j")
    second = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path / "j")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "OperatorError" in second.stderr
    assert "running already" in second.stderr
    assert second.stdout == ""
    journal.close()


def test_a_broken_journal_stops_the_member_and_says_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "j"
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    before = path.read_bytes()
    with pytest.raises(OperatorError, match=r"move .* away and start it again"):
        RoundJournal(path)
    assert path.read_bytes() == before
    assert not path.with_name("j.broken").exists()


def test_notes_are_kept_and_bounded(tmp_path: Path) -> None:
    journal = RoundJournal(tmp_path / "j")
    journal.note("f", "state", b"1")
    journal.note("f", "state", b"2")
    assert journal.noted("f", "state") == b"2"
    assert journal.noted("f", "other") is None
    assert journal.noted("g", "state") is None
    with pytest.raises(LocalError):
        journal.note("f", "big", bytes(MAX_NOTE + 1))
    for n in range(MAX_NOTES - 1):
        journal.note("f", f"n{n}", b"x")
    with pytest.raises(LocalError, match="one more"):
        journal.note("f", "last straw", b"x")
    assert journal.noted("f", "last straw") is None
    journal.close()


def test_a_journal_that_keeps_nothing_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(LocalError):
        RoundJournal(tmp_path / "j", keep=0)
