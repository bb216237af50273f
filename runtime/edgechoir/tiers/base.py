"""The state that trials begin at, on the disk while they run.

A process that ends in the middle of a trial has the trial's model as its newest version. The next
one finds this file and goes on from what is in it, as a version of its own.
"""

import os
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np

from edgechoir.errors import OperatorError
from edgechoir.learning.rules.choose import MEMORY
from edgechoir.learning.state import State
from edgechoir.store.versions import ModelVersions
from edgechoir.types import Floats

NAME: Final = "tune-base.npz"
_WEIGHTS: Final = "weights"


def save_base(state_dir: Path, state: State, memory: Mapping[str, Floats]) -> None:
    """Write it for good. Raises OperatorError (a full disk)."""
    vectors = {_WEIGHTS: state.weights, **{f"aux:{n}": v for n, v in state.aux.items()}}
    vectors |= {MEMORY + name: vector for name, vector in memory.items()}
    part = state_dir / (NAME + ".part")
    try:
        with part.open("wb") as file:
            np.savez(file, allow_pickle=False, **vectors)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, state_dir / NAME)
    except OSError as error:
        raise OperatorError(
            f"the state to go back to cannot be kept: {error}; check the disk"
        ) from error


def drop_base(state_dir: Path) -> None:
    """The run is back where it was."""
    (state_dir / NAME).unlink(missing_ok=True)


def recover(state_dir: Path, versions: ModelVersions) -> None:
    """Make what trials began at the newest version, if a process ended before it was.

    What has been spent of privacy since stays spent. Raises OperatorError for a damaged file.
    """
    path = state_dir / NAME
    if not path.exists():
        return
    try:
        with np.load(path, allow_pickle=False) as found:
            vectors = {name: found[name] for name in found.files}
        weights = vectors.pop(_WEIGHTS)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise OperatorError(
            f"{path} cannot be read ({error}): it held the model before `edgechoir tune`; remove "
            "it to go on from the newest version"
        ) from None
    newest = versions.latest()
    extra = {name.removeprefix("aux:"): vector for name, vector in vectors.items()}
    spent = None if newest is None else newest.extra.get(MEMORY + "privacy")
    if spent is not None and MEMORY + "privacy" in extra:
        bound = extra[MEMORY + "privacy"][0]
        extra[MEMORY + "privacy"] = np.array([bound, spent[1]], np.float32)
    version = 0 if newest is None else newest.version + 1
    versions.put(version, weights, {}, time.time(), extra)
    drop_base(state_dir)
