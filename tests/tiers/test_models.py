"""A model is taken only as a whole, only finite, and never backwards."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir import wire
from edgechoir.errors import BadModel, Replayed
from edgechoir.store.versions import ModelVersions
from edgechoir.tiers.models import Held, keep, latest, read_model
from edgechoir.types import Floats

WEIGHTS = np.linspace(-1, 1, 12, dtype=np.float32)


def message(version: int, weights: Floats = WEIGHTS) -> wire.Model:
    params = weights.astype("<f4").tobytes()
    return wire.Model(version, version, hashlib.sha256(params).digest(), params, (), 2, 20, 0)


def held(version: int, weights: Floats = WEIGHTS) -> Held:
    found = read_model(message(version, weights), None)
    assert found is not None
    return found


def test_a_first_model_is_taken_as_it_comes() -> None:
    found = held(7)
    assert found.version == 7
    np.testing.assert_array_equal(found.weights, WEIGHTS)
    with pytest.raises(ValueError, match="read-only"):
        found.weights[0] = 0


def test_a_newer_version_replaces_the_one_in_use() -> None:
    newer = read_model(message(8, WEIGHTS * 2), held(7))
    assert newer is not None
    np.testing.assert_array_equal(newer.weights, WEIGHTS * 2)


def test_the_version_in_use_coming_again_is_nothing_new() -> None:
    assert read_model(message(7), held(7)) is None


@pytest.mark.parametrize("version", [0, 6])
def test_an_older_version_is_a_replay(version: int) -> None:
    with pytest.raises(Replayed, match=f"version {version}, version 7 is in use"):
        read_model(message(version), held(7))


def test_another_model_under_the_version_in_use_is_refused() -> None:
    with pytest.raises(Replayed):
        read_model(message(7, WEIGHTS * 2), held(7))


@given(st.integers(0, 4 * len(WEIGHTS) - 1), st.integers(1, 255))
def test_a_single_changed_byte_is_refused(at: int, change: int) -> None:
    good = message(8)
    params = bytearray(good.params)
    params[at] ^= change
    with pytest.raises(BadModel, match="does not have the hash it claims"):
        read_model(replace(good, params=bytes(params)), held(7))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    weights = WEIGHTS.copy()
    weights[3] = bad
    with pytest.raises(BadModel, match="not finite"):
        read_model(message(8, weights), held(7))
    with pytest.raises(BadModel, match="not finite"):
        read_model(message(8, weights), None)


@pytest.mark.parametrize("length", [1, 11, 13])
def test_another_length_than_the_model_in_use_is_refused(length: int) -> None:
    with pytest.raises(BadModel, match=f"{length} weights, expected 12"):
        read_model(message(8, np.ones(length, np.float32)), held(7))


@pytest.mark.parametrize("params", [b"", b"\0\0\0", bytes(49)])
def test_bytes_that_are_no_vector_are_refused(params: bytes) -> None:
    model = wire.Model(8, 8, hashlib.sha256(params).digest(), params, (), 2, 20, 0)
    with pytest.raises(BadModel, match="bytes of float32"):
        read_model(model, None)


def test_a_kept_version_is_there_at_the_next_start(tmp_path: Path) -> None:
    versions = ModelVersions(tmp_path / "models.db")
    assert latest(versions) is None
    for version in (3, 5):
        keep(versions, held(version, WEIGHTS * version), {})
    versions.close()
    again = ModelVersions(tmp_path / "models.db")
    found = latest(again)
    again.close()
    assert found is not None
    assert (found.version, found.digest) == (5, held(5, WEIGHTS * 5).digest)
    np.testing.assert_array_equal(found.weights, WEIGHTS * 5)
