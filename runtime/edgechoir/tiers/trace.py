"""Off by default: an update before and after masking, written on this machine only.

A device writes its own vector in clear; its aggregator writes what it can read of the same device
after opening the sealed upload, which is the masked vector.
"""

from pathlib import Path

import numpy as np

from edgechoir import wire
from edgechoir.errors import RemoteError
from edgechoir.identity.envelope import Verifier
from edgechoir.learning.fixed_point import Encoding
from edgechoir.rounds.cohort import masked_vector, open_upload
from edgechoir.secagg.sealing import KemKey
from edgechoir.types import Ring


class Trace:
    """Writes `<directory>/<what>-<member>.npy`, the latest round over the one before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def write(self, what: str, member: str, vector: Ring) -> None:
        """Replace the file in one step, so that a reader never sees half of it."""
        self._directory.mkdir(parents=True, exist_ok=True)
        part = self._directory / f".{what}-{member}.npy"
        np.save(part, vector)
        part.replace(self._directory / f"{what}-{member}.npy")

    def write_masked(
        self, envelope: bytes, verifier: Verifier, kem: KemKey, encoding: Encoding, now: float
    ) -> None:
        """What the aggregator can read of an upload: all it ever learns of that one member."""
        try:
            opened = verifier.open(envelope, now)
            message = wire.decode(opened.kind, opened.body)
            if isinstance(message, wire.Upload):
                member = str(opened.sender.member)
                contents = open_upload(kem, message, member)
                self.write("masked", member, masked_vector(contents, encoding, member))
        except RemoteError:
            return  # refused already where it matters
