import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgechoir.errors import BadModel, LocalError
from edgechoir.store.versions import ModelVersions
from edgechoir.types import Floats


def params(n: int) -> Floats:
    return np.arange(10, dtype=np.float32) * n


def test_a_version_comes_back_as_it_was_put(tmp_path: Path) -> None:
    store = ModelVersions(tmp_path / "v")
    digest = store.put(3, params(3), {"accuracy": 0.5, "loss": 1.25}, 1000.0)
    store.close()
    store = ModelVersions(tmp_path / "v")
    model = store.latest()
    assert model is not None
    assert (model.version, model.created) == (3, 1000.0)
    assert model.metrics == {"accuracy": 0.5, "loss": 1.25}
    assert model.digest == digest == hashlib.sha256(params(3).tobytes()).digest()
    np.testing.assert_array_equal(model.params, params(3))
    assert not model.params.flags.writeable
    store.close()


def test_putting_a_version_again_changes_nothing_and_another_hash_is_refused(
    tmp_path: Path,
) -> None:
    store = ModelVersions(tmp_path / "v")
    store.put(1, params(1), {"accuracy": 0.5}, 0.0)
    store.put(1, params(1), {"accuracy": 0.9}, 9.0)
    with pytest.raises(BadModel, match="version 1 is stored with hash"):
        store.put(1, params(2), {"accuracy": 0.9}, 9.0)
    model = store.get(1)
    assert model is not None
    assert model.metrics == {"accuracy": 0.5}
    store.close()


@given(
    st.lists(st.one_of(st.none(), st.floats(0, 1, width=16)), min_size=1, max_size=12),
    st.integers(1, 4),
    st.booleans(),
)
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_the_best_and_the_last_few_are_kept(
    tmp_path: Path, scores: list[float | None], keep: int, higher: bool
) -> None:
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    store = ModelVersions(path, metric="m", higher_is_better=higher, keep=keep)
    for version, score in enumerate(scores, 1):
        store.put(version, params(version), {} if score is None else {"m": score}, 0.0)
    numbered = [(s, v) for v, s in enumerate(scores, 1) if s is not None]
    expected = set(range(max(1, len(scores) - keep + 1), len(scores) + 1))
    best = store.best()
    if numbered:
        _, version = max(numbered, key=lambda sv: (sv[0] if higher else -sv[0], sv[1]))
        assert best is not None
        assert best.version == version
        expected.add(version)
    else:
        assert best is None
    assert set(store.versions()) == expected
    latest = store.latest()
    assert latest is not None
    assert latest.version == len(scores)
    store.close()


def test_a_metric_that_is_not_finite_is_never_the_best(tmp_path: Path) -> None:
    store = ModelVersions(tmp_path / "v")
    store.put(1, params(1), {"accuracy": float("nan")}, 0.0)
    assert store.best() is None
    assert store.latest() is not None
    store.close()


def test_a_version_with_a_flipped_bit_is_dropped_and_the_one_before_used(tmp_path: Path) -> None:
    store = ModelVersions(tmp_path / "v")
    for n in (1, 2):
        store.put(n, params(n), {"accuracy": n / 10}, 0.0)
    editor = sqlite3.connect(tmp_path / "v")
    editor.execute("UPDATE versions SET params = zeroblob(40) WHERE version = 2")
    editor.commit()
    editor.close()
    for model in (store.latest(), store.best()):
        assert model is not None
        assert model.version == 1
    assert store.versions() == [1]
    store.close()


def test_keeping_no_version_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(LocalError):
        ModelVersions(tmp_path / "v", keep=0)


def test_how_versions_did_is_remembered_when_they_are_gone(tmp_path: Path) -> None:
    """And the best of those kept stays, though it was measured only after it was kept."""
    with closing(ModelVersions(tmp_path / "m.db", keep=2)) as models:
        for version in range(6):
            models.put(version, np.full(3, version, np.float32), {}, 1.0)
            models.measured(version, {"accuracy": 0.9 if version == 1 else 0.1 * version}, 2.0)
    with closing(ModelVersions(tmp_path / "m.db", keep=2)) as models:
        assert models.versions() == [1, 4, 5]
        best = models.best()
        assert best is not None
        assert (best.version, best.metrics) == (1, {"accuracy": 0.9})
        history = models.history()
        assert [version for version, _, _ in history] == list(range(6))
        assert history[3][1]["accuracy"] == pytest.approx(0.3)


def test_a_version_that_is_not_sound_is_not_the_best(tmp_path: Path) -> None:
    with closing(ModelVersions(tmp_path / "m.db")) as models:
        for version, accuracy, sound in ((0, 0.5, True), (1, 0.9, False)):
            models.put(version, np.ones(3, np.float32), {}, 1.0)
            models.measured(version, {"accuracy": accuracy}, 2.0, sound=sound)
        best = models.best()
        assert best is not None
        assert best.version == 0
        assert models.history()[1][1] == {"accuracy": 0.9}


def test_a_measure_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    with closing(ModelVersions(tmp_path / "m.db", metric="rmse", higher_is_better=False)) as models:
        models.put(0, np.ones(3, np.float32), {}, 1.0)
        models.measured(0, {"rmse": float("inf"), "loss": 1.0}, 2.0)
        assert models.history() == [(0, {"loss": 1.0}, 2.0)]
        assert models.best() is None
