"""What this machine's processor can do that a tier's settings depend on."""

from pathlib import Path
from typing import Final

from edgechoir.secagg.pads import Keystream

CPUINFO: Final = Path("/proc/cpuinfo")
_KEYS: Final = ("flags", "features")
"""As x86 and Arm call the line."""


def processor_features(cpuinfo: Path = CPUINFO) -> frozenset[str] | None:
    """The features that Linux lists of the first processor; None where none are listed."""
    try:
        with cpuinfo.open(errors="replace") as lines:
            for line in lines:
                key, _, value = line.partition(":")
                if key.strip().lower() in _KEYS:
                    return frozenset(value.lower().split())
    except OSError:
        pass
    return None


def keystream_of(setting: str, features: frozenset[str] | None) -> Keystream:
    """The cipher for the masks of an aggregator's members.

    "auto" is AES unless the processor is known to have no instructions for it: there ChaCha20 is
    several times faster, and no table lookup leaks a key through the cache.
    """
    if setting != "auto":
        return Keystream(setting)
    return Keystream.AES if features is None or "aes" in features else Keystream.CHACHA
