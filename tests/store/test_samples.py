import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechoir.errors import BadSample, OperatorError
from edgechoir.store.cipher import RowCipher
from edgechoir.store.retention import Keep
from edgechoir.store.samples import HOLD_OUT, SampleStore
from edgechoir.types import Floats


def sample(n: int) -> Floats:
    return np.full(3, n, np.float32)


def everything(store: SampleStore) -> list[tuple[float, int]]:
    """(first value, label) of all rows on both sides, in the order of their values."""
    found = []
    for x, y in (store.training_arrays(), store.hold_out_arrays()):
        found += [(float(row[0]), int(label)) for row, label in zip(x, y, strict=True)]
    return sorted(found)


def test_what_was_flushed_is_there_after_reopening(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", (3,))
    for n in range(50):
        store.add(sample(n), n % 10, float(n))
    store.flush(50.0)
    before = store.training_arrays()
    store.close()
    again = SampleStore(tmp_path / "s", (3,))
    assert len(again) == 50
    after = again.training_arrays()
    np.testing.assert_array_equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    assert after[0].dtype == np.float32
    assert after[1].dtype == np.int64
    again.close()


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=8),
    capacity=st.integers(1, 60),
    batch=st.integers(1, 20),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_newest_rows_within_the_bound_are_kept(
    tmp_path: Path, counts: list[int], capacity: int, batch: int
) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.db"
    n = 0
    store = SampleStore(path, (3,), max_rows=capacity, batch_rows=batch)
    for count in counts:
        for _ in range(count):
            store.add(sample(n), n, float(n))
            n += 1
        store.flush(float(n))
        assert len(store) == min(n, capacity)
    kept = range(max(0, n - capacity), n)
    assert everything(store) == [(float(k), k) for k in kept]
    assert store.dropped == n - len(kept)
    store.close()


def test_a_row_stays_on_its_side_and_about_one_in_five_is_held_out(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", (3,), max_rows=1000)
    held: set[int] = set()
    for n in range(2000):
        store.add(sample(n), n, float(n))
        if n % 250 == 249:
            x, labels = store.hold_out_arrays()
            now_held = set(labels.tolist())
            oldest = max(0, n + 1 - 1000)
            assert {label for label in held if label >= oldest} <= now_held
            assert not now_held & set(store.training_arrays()[1].tolist())
            held |= now_held
            assert len(x) == pytest.approx(min(n + 1, 1000) / HOLD_OUT, rel=0.35)
    store.close()


def test_vector_labels_come_back_as_vectors(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", (2, 2), targets=2)
    for n in range(20):
        store.add(np.full((2, 2), n, np.float32), np.array([n, -n], np.float32), 0.0)
    x, y = store.training_arrays()
    assert x.shape[1:] == (2, 2)
    assert y.shape == (len(x), 2)
    np.testing.assert_array_equal(y[:, 0], -y[:, 1])
    np.testing.assert_array_equal(x[:, 0, 0], y[:, 0])
    store.close()


def test_an_empty_store_gives_empty_arrays(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", (3,))
    x, y = store.training_arrays()
    assert x.shape == (0, 3)
    assert y.shape == (0,)
    store.close()


def test_a_flush_is_due_after_enough_rows_or_enough_time(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", (3,), batch_rows=3, batch_seconds=5.0)
    assert [store.add(sample(n), 0, 100.0) for n in range(3)] == [False, False, True]
    store.flush(100.0)
    assert store.add(sample(9), 0, 104.9) is False
    assert store.add(sample(9), 0, 105.0) is True
    store.flush(105.0)
    assert store.add(sample(9), 0, 50.0) is True  # the clock went back
    store.close()


def test_neglected_flushing_does_not_grow_memory(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", (3,), batch_rows=10)
    for n in range(40):
        store.add(sample(n), 0, 0.0)
    reader = sqlite3.connect(tmp_path / "s")
    assert reader.execute("SELECT count(*) FROM samples").fetchone() == (40,)
    reader.close()
    store.close()


def test_a_key_is_stored_once(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", (3,))
    for n, key in enumerate(["a", "b", "a", None, None]):
        store.add(sample(n), n, 0.0, key)
    assert everything(store) == [(0.0, 0), (1.0, 1), (3.0, 3), (4.0, 4)]
    assert store.duplicates == 1
    assert len(store) == 4
    store.close()


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros(4, np.float32), 0),
        (np.array([0, np.nan, 0], np.float32), 0),
        (np.array([0, np.inf, 0], np.float32), 0),
        (np.zeros(3, np.float32), -1),
        (np.zeros(3, np.float32), 2**40),
        (np.zeros(3, np.float32), np.zeros(2, np.float32)),
    ],
)
def test_a_bad_sample_is_refused_and_nothing_is_kept(
    tmp_path: Path, x: Floats, y: int | Floats
) -> None:
    store = SampleStore(tmp_path / "s", (3,))
    with pytest.raises(BadSample):
        store.add(x, y, 0.0)
    with pytest.raises(BadSample):
        store.add(np.zeros(3, np.float32), 0, 0.0, key="k" * 1000)
    assert len(store) == 0
    store.close()


def test_a_file_of_another_shape_is_not_touched(tmp_path: Path) -> None:
    SampleStore(tmp_path / "s", (3,)).close()
    with pytest.raises(OperatorError, match=r"shape \[3\] with 0 targets"):
        SampleStore(tmp_path / "s", (4,))


def test_a_bound_below_one_sample_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no room"):
        SampleStore(tmp_path / "s", (1000,), max_bytes=1000)


def test_the_file_stays_near_the_bound_in_bytes(tmp_path: Path) -> None:
    store = SampleStore(tmp_path / "s", (64,), max_bytes=300_000)
    for n in range(5000):
        if store.add(np.full(64, n, np.float32), 0, 0.0):
            store.flush(0.0)
    store.close()
    assert store.capacity < 1100
    assert (tmp_path / "s").stat().st_size < 600_000


def test_rows_that_are_too_old_go_at_a_flush_and_before_they_are_read(tmp_path: Path) -> None:
    now = 0.0
    store = SampleStore(tmp_path / "s", (3,), max_age=100.0, clock=lambda: now)
    for n in range(50):
        store.add(sample(n), n, float(n))
    store.flush(120.0)
    assert everything(store) == [(float(n), n) for n in range(20, 50)]
    now = 145.0  # no sample came meanwhile
    assert everything(store) == [(float(n), n) for n in range(45, 50)]
    assert (store.expired, store.dropped, len(store)) == (45, 0, 5)
    store.close()


def chosen(path: Path, order: list[int], capacity: int, batch: int) -> list[int]:
    store = SampleStore(path, (3,), max_rows=capacity, batch_rows=batch, keep="reservoir")
    for n in order:
        if store.add(sample(n), n, 0.0, key=str(n)):
            store.flush(0.0)
    found = [label for _, label in everything(store)]
    store.close()
    return found


def test_a_reservoir_is_a_fair_choice_whatever_the_order_and_the_repetitions(
    tmp_path: Path,
) -> None:
    order = list(range(2000))
    one = chosen(tmp_path / "1", order, 300, 7)
    assert len(one) == 300
    assert one == chosen(tmp_path / "2", order[::-1], 300, 50)
    assert one == chosen(tmp_path / "3", order + order[:500], 300, 64)
    # Uniform over all that came: 300 of 2000 have a mean of 1000 and a deviation of 33.
    assert abs(np.mean(one) - 1000) < 100
    assert [sum(q * 500 <= n < (q + 1) * 500 for n in one) for q in range(4)] == pytest.approx(
        [75] * 4, abs=30
    )


@pytest.mark.parametrize("keep", ["recent", "reservoir"])
def test_a_balanced_store_keeps_the_rare_class(tmp_path: Path, keep: Keep) -> None:
    store = SampleStore(tmp_path / "s", (3,), max_rows=90, keep=keep, balanced=True)
    for n in range(1000):
        store.add(sample(n), 7 if n < 10 else n % 2, float(n))
        if n % 100 == 99:
            store.flush(float(n))
    labels = [label for _, label in everything(store)]
    assert [labels.count(label) for label in (0, 1, 7)] == [40, 40, 10]
    assert store.dropped == 910
    if keep == "recent":
        assert [x for x, label in everything(store) if label != 7] == list(range(920, 1000))
    store.close()


def test_vectors_have_no_classes_to_balance(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="classes to balance"):
        SampleStore(tmp_path / "s", (3,), targets=2, balanced=True)


def test_an_encrypted_store_gives_back_what_it_was_given_and_shows_nothing(tmp_path: Path) -> None:
    cipher = RowCipher(b"k" * 32)
    x = np.array([1.5, -2.25, 3.125], np.float32)
    store = SampleStore(tmp_path / "s", (3,), cipher=cipher, max_rows=20, balanced=True)
    for n in range(60):
        store.add(x * (n + 1), n % 3, float(n), key=f"secret-{n}")
    store.add(x * 60, 2, 99.0, key="secret-59")
    store.flush(60.0)
    assert (store.dropped, store.duplicates, len(store)) == (40, 1, 20)
    before = everything(store)
    store.close()
    files = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"secret-59" not in files
    assert not any((x * (n + 1)).tobytes() in files for n in range(60))
    again = SampleStore(tmp_path / "s", (3,), cipher=cipher, max_rows=20)
    assert everything(again) == before
    again.close()


def test_an_encrypted_store_needs_its_key(tmp_path: Path) -> None:
    SampleStore(tmp_path / "sealed", (3,), cipher=RowCipher(b"k" * 32)).close()
    SampleStore(tmp_path / "clear", (3,)).close()
    with pytest.raises(OperatorError, match="another key"):
        SampleStore(tmp_path / "sealed", (3,), cipher=RowCipher(b"l" * 32))
    with pytest.raises(OperatorError, match="holds samples encrypted"):
        SampleStore(tmp_path / "sealed", (3,))
    with pytest.raises(OperatorError, match="holds samples in the clear"):
        SampleStore(tmp_path / "clear", (3,), cipher=RowCipher(b"k" * 32))


def test_a_damaged_row_is_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SampleStore(tmp_path / "s", (3,), cipher=RowCipher(b"k" * 32))
    for n in range(20):
        store.add(sample(n), n, float(n))
    store.flush(20.0)
    with sqlite3.connect(tmp_path / "s") as database:
        database.execute("UPDATE samples SET time = time + 1 WHERE id = 3")
        database.execute("UPDATE samples SET x = zeroblob(5) WHERE id = 5")
    database.close()
    assert [label for _, label in everything(store)] == [n for n in range(20) if n not in (2, 4)]
    assert store.damaged == 2
    assert "cannot be deciphered" in caplog.text
    store.close()


def test_a_store_of_the_first_version_is_taken_on(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s") as old:
        old.executescript(
            "CREATE TABLE shape (one INTEGER PRIMARY KEY CHECK (one = 1), x TEXT, targets INTEGER);"
            "CREATE TABLE samples (id INTEGER PRIMARY KEY, time REAL NOT NULL, key TEXT,"
            " x BLOB NOT NULL, y BLOB NOT NULL);"
            "CREATE UNIQUE INDEX by_key ON samples (key) WHERE key IS NOT NULL;"
            "INSERT INTO shape VALUES (1, '3', 0); PRAGMA user_version = 1;"
        )
        for n in range(20):
            old.execute(
                "INSERT INTO samples (time, x, y) VALUES (0, ?, ?)",
                (sample(n).tobytes(), n.to_bytes(8, "little")),
            )
    old.close()
    store = SampleStore(tmp_path / "s", (3,), max_rows=12, keep="reservoir", balanced=True)
    for n in range(20, 26):
        store.add(sample(n), n, 1.0)
    store.flush(1.0)
    assert [label for _, label in everything(store)][-6:] == list(range(20, 26))
    store.close()


def test_a_value_may_be_missing_only_where_that_is_declared(tmp_path: Path) -> None:
    x = np.array([1, np.nan], np.float32)
    strict = SampleStore(tmp_path / "strict.db", (2,))
    with pytest.raises(BadSample):
        strict.add(x, 0, 1.0)
    strict.close()
    store = SampleStore(tmp_path / "gaps.db", (2,), gaps=True)
    for i in range(20):
        store.add(x, i, 1.0)
    with pytest.raises(BadSample):
        store.add(np.array([1, np.inf], np.float32), 0, 1.0)
    store.flush(1.0)
    rows, _ = store.training_arrays()
    store.close()
    assert np.array_equal(rows, np.repeat(x[None], len(rows), 0), equal_nan=True)
    assert len(rows) > 5
