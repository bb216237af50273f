"""Vectors outlive the process; a damaged one is not given out."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from edgechoir.errors import LocalError, OperatorError
from edgechoir.store.vectors import MOST, KeptVectors

VECTOR = np.arange(5, dtype=np.float32)


def test_the_latest_vector_of_a_name_is_there_after_a_restart(tmp_path: Path) -> None:
    with closing(KeptVectors(tmp_path / "v.db")) as kept:
        assert kept.get("control") is None
        kept.put("control", VECTOR, 3)
        kept.put("control", VECTOR + 1, 4)
        kept.put("other", VECTOR[:2], 1)
    with closing(KeptVectors(tmp_path / "v.db")) as kept:
        found = kept.get("control")
        assert found is not None
        assert found[1] == 4
        assert np.array_equal(found[0], VECTOR + 1)
        kept.drop("control")
        assert kept.get("control") is None
        assert kept.get("other") is not None


def test_a_damaged_vector_is_as_if_it_had_never_been_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with closing(KeptVectors(tmp_path / "v.db")) as kept:
        kept.put("control", VECTOR, 3)
        with closing(sqlite3.connect(tmp_path / "v.db")) as other, other:
            other.execute("UPDATE vectors SET data = zeroblob(20)")
        assert kept.get("control") is None
        assert "does not have its hash" in caplog.text
        caplog.clear()
        assert kept.get("control") is None
        assert not caplog.text


def test_names_are_bounded(tmp_path: Path) -> None:
    with closing(KeptVectors(tmp_path / "v.db")) as kept:
        for i in range(MOST):
            kept.put(f"v{i}", VECTOR, 1)
        kept.put("v0", VECTOR, 2)
        with pytest.raises(LocalError, match="one too many"):
            kept.put("another", VECTOR, 1)


def test_a_full_disk_is_said_so(tmp_path: Path) -> None:
    with closing(KeptVectors(tmp_path / "v.db")) as kept:
        kept._database.execute("PRAGMA busy_timeout = 10")
        with closing(sqlite3.connect(tmp_path / "v.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(OperatorError, match=r"control cannot be kept: .*check the disk"):
                kept.put("control", VECTOR, 1)
