import sqlite3
from pathlib import Path

import numpy as np
import pytest

from edgechoir.errors import OperatorError
from edgechoir.store.personal import PersonalLayers

HERE, OTHER = b"h" * 32, b"o" * 32
LAYERS = np.arange(5, dtype=np.float32)


def test_the_latest_layers_are_there_after_reopening(tmp_path: Path) -> None:
    layers = PersonalLayers(tmp_path / "p.db")
    assert layers.get(HERE) is None
    layers.put(HERE, LAYERS * 2, 1.0)
    layers.put(HERE, LAYERS, 2.0)
    layers.close()
    layers = PersonalLayers(tmp_path / "p.db")
    found = layers.get(HERE)
    assert found is not None
    np.testing.assert_array_equal(found, LAYERS)
    layers.close()


def test_layers_of_another_model_are_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    layers = PersonalLayers(tmp_path / "p.db")
    layers.put(OTHER, LAYERS, 1.0)
    assert layers.get(HERE) is None
    assert "of another model" in caplog.text
    layers.close()


def test_damaged_layers_are_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layers = PersonalLayers(tmp_path / "p.db")
    layers.put(HERE, LAYERS, 1.0)
    with sqlite3.connect(tmp_path / "p.db") as database:
        database.execute("UPDATE layers SET params = zeroblob(20)")
    database.close()
    assert layers.get(HERE) is None
    assert "do not have their hash" in caplog.text
    layers.close()


def test_layers_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    layers = PersonalLayers(tmp_path / "p.db")
    layers.close()
    with pytest.raises(OperatorError, match="cannot be kept"):
        layers.put(HERE, LAYERS, 1.0)
