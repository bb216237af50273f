"""A model on trial: built, verified and timed beside the one that answers."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np

from edgechoir.errors import BadModel, InferenceError
from edgechoir.inference.prediction import Output, read_row
from edgechoir.inference.session import Session, open_session
from edgechoir.types import Floats

_PROBE_RUNS: Final = 15
_PROBE_SECONDS: Final = 0.1
_WORTH: Final = 0.9
"""A batch must save a tenth of the time of its samples one by one, or it is not made."""


Prepare = Callable[[Floats], Floats]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A verified model. `width` is the length of one output row, `probe` its p50 in seconds for one
    sample and `row` what one more in the same batch adds; `prepare` makes of raw samples what the
    session takes."""

    version: int
    sha256: bytes
    session: Session
    width: int
    probe: float
    row: float
    prepare: Prepare

    def rows_within(self, seconds: float, most: int) -> int:
        """How many samples a batch may have to take no longer: 1 to `most`. 1 where a batch of
        this model takes as long as its samples do one by one."""
        if self.row >= _WORTH * self.probe:
            return 1
        room = seconds - (self.probe - self.row)
        return max(1, min(most, int(room / self.row))) if self.row > 0 else most


def as_it_is(batch: Floats) -> Floats:
    """No preparation."""
    return batch


def fingerprint(params: Floats) -> bytes:
    """SHA-256 of the weights [d] as they stand in `params.bin`: little-endian float32."""
    return hashlib.sha256(np.ascontiguousarray(params, dtype="<f4").data).digest()


def canary_batch(shape: tuple[int, ...]) -> Floats:
    """Four samples [4, *shape]: zeros, ones, and a rising and a falling ramp in [-3, 3]."""
    ramp = np.linspace(-3.0, 3.0, int(np.prod(shape, dtype=np.int64)), dtype=np.float32)
    ramp = ramp.reshape(shape)
    return np.stack([np.zeros_like(ramp), np.ones_like(ramp), ramp, -ramp])


def build(
    onnx: bytes,
    params: Floats,
    version: int,
    sha256: bytes,
    *,
    output: Output,
    canary: Floats,
    prepare: Prepare = as_it_is,
    providers: Sequence[str] | None,
    clock: Callable[[], float] = time.perf_counter,
) -> Candidate:
    """Verify the weights [d] and let the model answer the raw canary batch [n, *shape].

    Raises BadModel: wrong hash, a weight that is not finite, a model that cannot be built, or an
    answer that is not finite or not one row of numbers for each canary sample.
    """
    if params.dtype != np.float32 or params.ndim != 1:
        raise BadModel(f"weights are {params.dtype}{list(params.shape)}, expected float32 [d]")
    found = fingerprint(params)
    if found != sha256:
        raise BadModel(f"weights hash to {found.hex()[:16]}, expected {sha256.hex()[:16]}")
    if not np.isfinite(params).all():
        raise BadModel("a weight is not a finite number")
    session = open_session(onnx, params, canary.shape[1:], providers)
    canary = prepare(canary)
    try:
        rows = session.run(canary)
    except InferenceError as error:
        raise BadModel(f"the canary batch failed: {error}") from error
    if rows.dtype != np.float32 or rows.ndim != 2 or len(rows) != len(canary) or not rows.size:
        raise BadModel(
            f"the canary batch gives {rows.dtype}{list(rows.shape)}, "
            f"expected float32 [{len(canary)}, classes or values]"
        )
    try:
        for row in rows:
            read_row(row.tolist(), output)
    except InferenceError as error:
        raise BadModel(f"the canary batch failed: {error}") from error
    one, all_ = _p50(session, canary[:1], clock), _p50(session, canary, clock)
    row = max(0.0, (all_ - one) / (len(canary) - 1)) if len(canary) > 1 else one
    return Candidate(version, sha256, session, rows.shape[1], one, row, prepare)


def _p50(session: Session, one: Floats, clock: Callable[[], float]) -> float:
    times: list[float] = []
    while len(times) < _PROBE_RUNS and sum(times) < _PROBE_SECONDS:
        started = clock()
        session.run(one)
        times.append(clock() - started)
    return median(times)
