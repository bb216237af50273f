import os

import numpy as np
import pytest

from edgechoir.errors import TrainingError
from edgechoir.training.shared import Shared


@pytest.mark.parametrize("named", [True, False])
def test_both_sides_see_what_was_put(named: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not named:  # as where there is no memfd
        monkeypatch.delattr(os, "memfd_create", raising=False)
    here = Shared.make()
    there = Shared(os.dup(here.descriptor))
    array = np.arange(10, dtype=np.float32)
    here.put([b"head", array.data.cast("B")])
    view = there.view(44)
    assert bytes(view[:4]) == b"head"
    np.testing.assert_array_equal(np.frombuffer(view, np.float32, 10, 4), array)
    there.put([b"answer"])
    assert here.take(6) == b"answer"
    assert os.fstat(here.descriptor).st_size == 0  # the memory is given back
    assert (len(there.view(0)), len(here.take(0))) == (0, 0)
    here.close()
    there.close()


def test_what_was_put_last_is_all_there_is() -> None:
    shared = Shared.make()
    shared.put([b"long and longer"])
    shared.put([b"short"])
    with pytest.raises(TrainingError, match="5 bytes are shared with the worker, expected 6"):
        shared.view(6)
    with pytest.raises(TrainingError, match="5 bytes"):
        shared.take(6)
    shared.close()


def test_closed_memory_is_not_written_to() -> None:
    shared = Shared.make()
    shared.close()
    shared.close()
    with pytest.raises(TrainingError, match="closed"):
        shared.put([b"x"])
    with pytest.raises(TrainingError, match="closed"):
        shared.take(1)


def test_what_does_not_fit_is_explained() -> None:
    read_only = Shared(os.open("/dev/null", os.O_RDONLY))
    with pytest.raises(TrainingError, match="no room for 3 bytes"):
        read_only.put([b"abc"])
    read_only.close()
