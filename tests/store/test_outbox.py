import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError
from edgechoir.store.outbox import RECORD_COST, Outbox, Record

WRITER = """
import sys
from pathlib import Path
from edgechoir.store.outbox import Outbox, Record
outbox = Outbox(Path(sys.argv[1]), 1 << 26)
for start in range(0, 100_000, 10):
    outbox.add([Record("t", b"%d" % n, 1e12) for n in range(start, start + 10)], 0.0)
    print(start + 10, flush=True)
"""


def record(n: int, size: int = 100, expires: float = 1e9) -> Record:
    return Record("t", n.to_bytes(4, "big") + bytes(size - 5 - RECORD_COST), expires)


def numbers(outbox: Outbox, now: float = 0.0) -> list[int]:
    return [int.from_bytes(r.payload[:4], "big") for r in outbox.first(10**6, now)]


def test_records_are_there_after_reopening_in_order(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", 10_000)
    outbox.add([record(n) for n in range(5)], 0.0)
    outbox.close()
    outbox = Outbox(tmp_path / "o", 10_000)
    assert numbers(outbox) == [0, 1, 2, 3, 4]
    assert (len(outbox), outbox.bytes) == (5, 500)
    outbox.remove([r.id for r in outbox.first(2, 0.0)], 0.0)
    assert numbers(outbox) == [2, 3, 4]
    assert (len(outbox), outbox.bytes, outbox.dropped) == (3, 300, 0)
    outbox.close()


def test_the_oldest_make_room_and_are_counted(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", 1000)
    outbox.add([record(n) for n in range(8)], 0.0)
    outbox.add([record(8), record(9, 250)], 0.0)
    assert numbers(outbox) == [2, 3, 4, 5, 6, 7, 8, 9]
    outbox.add([record(n) for n in range(20, 40)], 0.0)
    assert numbers(outbox) == list(range(30, 40))
    assert (outbox.dropped, outbox.bytes) == (20, 1000)
    with pytest.raises(LocalError, match="larger"):
        outbox.add([record(0, 1001)], 0.0)
    outbox.close()


def test_what_has_expired_is_neither_given_nor_kept(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", 1000)
    outbox.add([record(1, expires=10.0), record(2, expires=20.0)], 0.0)
    assert numbers(outbox, 10.0) == [2]
    outbox.remove([], 10.0)
    assert (len(outbox), outbox.bytes, outbox.expired) == (1, 100, 1)
    outbox.add([record(3)], 30.0)
    assert (len(outbox), outbox.expired, outbox.dropped) == (1, 2, 0)
    outbox.close()


def test_a_batch_is_one_write(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o", 100_000)
    outbox.add([record(n) for n in range(64)], 0.0)
    assert (outbox.commits, outbox.bytes_written) == (1, 6400)
    outbox.close()


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(100, 400)),
        max_size=12,
    )
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_bound_holds_and_every_record_is_accounted_for(
    tmp_path: Path, steps: list[tuple[int, int, int]]
) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    outbox = Outbox(path, 1000)
    given = removed = 0
    for added, taken, size in steps:
        outbox.add([record(given + n, size) for n in range(added)], 0.0)
        given += added
        assert outbox.bytes <= 1000
        ids = [r.id for r in outbox.first(taken, 0.0)]
        outbox.remove(ids, 0.0)
        removed += len(ids)
        assert len(outbox) == given - removed - outbox.dropped
    kept = numbers(outbox)
    assert kept == list(range(given - len(kept), given))
    outbox.close()


@pytest.mark.e2e
@pytest.mark.parametrize("batches", [1, 7, 23])
def test_what_was_accepted_survives_kill_9(tmp_path: Path, batches: int) -> None:
    path = tmp_path / "o"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
    ) as writer:
        assert writer.stdout is not None
        for _ in range(batches):
            last = int(writer.stdout.readline())
        writer.kill()
        rest = writer.stdout.read().split()
    accepted = int(rest[-1]) if rest else last
    outbox = Outbox(path, 1 << 26)
    found = [int(r.payload) for r in outbox.first(10**6, 0.0)]
    assert found == list(range(len(found)))
    assert len(found) in (accepted, accepted + 10)
    outbox.close()


def test_a_broken_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "o").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    outbox = Outbox(tmp_path / "o", 1000)
    assert len(outbox) == 0
    assert (tmp_path / "o.broken").exists()
    outbox.close()
