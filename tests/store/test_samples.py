import sqlite3
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechoir.errors import BadSample, OperatorError
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
