"""Industrial I/O sensors and GPIO lines as Linux shows them in sysfs: files, no library.

An IIO channel "voltage0" is `in_voltage0_raw`; its value in the channel's unit is
(raw + offset) * scale (Linux, Documentation/ABI/testing/sysfs-bus-iio), with `in_voltage0_offset`
and `in_voltage0_scale`, or those that all channels of the type share: `in_voltage_scale`. A channel
that has `in_voltage0_input` gives that, which the driver has processed already.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError

IIO: Final = Path("/sys/bus/iio/devices")
GPIO: Final = Path("/sys/class/gpio")


class IioReading:
    """One reading a call: the `channels` of the device, which is a name ("bme280") or a folder.

    Offset and scale are read each time: a driver changes them with the range.
    """

    def __init__(self, device: str, channels: Sequence[str], root: Path = IIO) -> None:
        """Raises OperatorError: a channel that is no name. The device may be plugged in later."""
        for channel in channels:
            if not re.fullmatch(r"[a-z0-9_-]{1,64}", channel):
                raise OperatorError(f"{channel!r} is no channel: use a name like voltage0")
        if not channels:
            raise OperatorError("no channels: name one or more, like voltage0")
        self._device, self._channels, self._root = device, list(channels), root

    def __call__(self) -> list[float]:
        """Raises OSError: there is no such device or channel now; ValueError: no number."""
        folder = self._folder()
        return [_channel(folder, channel) for channel in self._channels]

    def _folder(self) -> Path:
        for folder in sorted(self._root.glob("iio:device*")):
            if self._device == folder.name or _text(folder / "name") == self._device:
                return folder
        raise FileNotFoundError(f"no device {self._device!r} in {self._root}")


def _channel(folder: Path, channel: str) -> float:
    processed = folder / f"in_{channel}_input"
    if processed.exists():
        return float(processed.read_text())
    raw = float((folder / f"in_{channel}_raw").read_text())
    return (raw + _factor(folder, channel, "offset", 0.0)) * _factor(folder, channel, "scale", 1.0)


def _factor(folder: Path, channel: str, what: str, default: float) -> float:
    shared = re.sub(r"[0-9]+$", "", re.sub(r"_[xyz]$", "", channel))
    for name in (channel, shared):
        text = _text(folder / f"in_{name}_{what}")
        if text is not None:
            return float(text)
    return default


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return None


class GpioReading:
    """One reading a call: the levels of exported `lines`, 0 or 1 each, from `gpio17/value`."""

    def __init__(self, lines: Sequence[int], root: Path = GPIO) -> None:
        """Raises OperatorError: no lines, or a negative one."""
        if not lines or min(lines) < 0:
            raise OperatorError(f"lines are {list(lines)}: give one or more numbers from 0 on")
        self._files = [root / f"gpio{line}" / "value" for line in lines]

    def __call__(self) -> list[float]:
        """Raises OSError: a line is not exported; ValueError: no number."""
        return [float(file.read_text()) for file in self._files]
