"""The data is shared out without loss, skewed, and the same for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.demo.split import MIN_ROWS, TEST_SHARE, Rows, digits, shared_out
from edgechoir.errors import OperatorError


def rows(count: int) -> Rows:
    """Rows that can be told apart by their first value."""
    x = np.zeros((count, 64), np.float32)
    x[:, 0] = np.arange(count)
    return Rows(x, np.arange(count) % 10)


@settings(max_examples=20)
@given(st.integers(1, 8), st.integers(0, 2**32))
def test_every_row_goes_to_one_device_or_to_the_test(devices: int, seed: int) -> None:
    parts, test = shared_out(rows(1000), devices, seed)
    assert len(parts) == devices
    assert len(test.y) == 1000 // TEST_SHARE
    assert min(len(part.y) for part in parts) >= MIN_ROWS
    given_out = np.concatenate([test.x, *(part.x for part in parts)])[:, 0]
    assert sorted(given_out.tolist()) == list(range(1000))
    for part in (test, *parts):
        np.testing.assert_array_equal(part.y, part.x[:, 0] % 10)


def test_the_same_seed_gives_the_same_parts_and_another_one_others() -> None:
    first, again, other = (shared_out(rows(500), 4, seed)[0] for seed in (7, 7, 8))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.x, two.x)
    assert [len(part.y) for part in first] != [len(part.y) for part in other]


def test_devices_see_other_classes_than_their_neighbours() -> None:
    parts, _ = shared_out(rows(2000), 8, 0)
    shares = [np.bincount(part.y, minlength=10) / len(part.y) for part in parts]
    assert max(float(share.max()) for share in shares) > 0.25  # 0.1 if it were even


@pytest.mark.parametrize(("count", "devices"), [(100, 8), (260, 8)])
def test_rows_that_cannot_do_are_refused_instead_of_drawn_for_ever(
    count: int, devices: int
) -> None:
    with pytest.raises(OperatorError, match=f"each of {devices} devices has {MIN_ROWS}"):
        shared_out(rows(count), devices, 0)


def test_the_digits_are_those_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    found = digits()
    assert found.x.shape == (1797, 64)
    assert (found.x.min(), found.x.max()) == (0, 16)
    assert set(found.y.tolist()) == set(range(10))
