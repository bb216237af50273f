"""Lines from a serial port, through the terminal interface of the operating system: no library.

A line is numbers ("20.5, 1.2" or "20.5 1.2"; an empty field is missing) or a JSON sample
(`message.py`). A line of another form is counted and dropped; one longer than `MAX_PAYLOAD` too.
"""

import asyncio
import os
import termios
import tty
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError, SourceError
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.sources.message import MAX_PAYLOAD, read

READ: Final = 4096


def speeds() -> list[int]:
    """The bit rates that this system knows."""
    return sorted(int(name[1:]) for name in dir(termios) if name[0] == "B" and name[1:].isdigit())


class SerialSource:
    """Samples from `port` at `baud` bits a second, 8N1.

    A port that says nothing for `silence` seconds is closed and opened again: a USB adapter that
    was pulled out and put back is another file under the same name.
    """

    def __init__(
        self,
        port: Path,
        baud: int = 115_200,
        *,
        silence: float = 60.0,
        key: str = "serial",
        clock: Clock | None = None,
    ) -> None:
        """Raises OperatorError: a speed that this system does not know."""
        if baud not in speeds():
            raise OperatorError(f"baud is {baud}: use one of {', '.join(map(str, speeds()))}")
        self._port, self._speed = port, getattr(termios, f"B{baud}")
        self._silence, self._key = silence, key
        self._clock = Clock() if clock is None else clock
        self._file: int | None = None
        self._malformed = 0

    @property
    def counts(self) -> Mapping[str, int]:
        return {"malformed": self._malformed} if self._malformed else {}

    async def __aenter__(self) -> "SerialSource":
        """Raises SourceError: the port is not there now, or is no terminal."""
        try:
            self._file = os.open(self._port, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
            tty.setraw(self._file)
            attributes = termios.tcgetattr(self._file)
            attributes[2] |= termios.CLOCAL | termios.CREAD
            attributes[4] = attributes[5] = self._speed
            termios.tcsetattr(self._file, termios.TCSANOW, attributes)
        except (OSError, termios.error) as error:
            await self.__aexit__()
            raise SourceError(f"{self._port} cannot be opened: {error}") from error
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    async def __aiter__(self) -> AsyncIterator[Sample]:
        rest, skipping = b"", False
        while True:
            rest += await self._read()
            *lines, rest = rest.split(b"\n")
            for line in lines:
                sample = None if skipping else self._sample(line.strip())
                if sample is not None:
                    yield sample
                elif skipping or line.strip():
                    self._malformed += 1
                skipping = False
            if len(rest) > MAX_PAYLOAD:
                rest, skipping = b"", True

    async def _read(self) -> bytes:
        """Raises SourceError: the port is gone, or says nothing."""
        loop, file = asyncio.get_running_loop(), self._file
        if file is None:
            raise OperatorError("the port is not open: use 'async with'")
        ready = asyncio.Event()
        loop.add_reader(file, ready.set)
        try:
            async with asyncio.timeout(self._silence):
                await ready.wait()
            data = os.read(file, READ)
        except TimeoutError:
            raise SourceError(f"{self._port} said nothing for {self._silence:g} s") from None
        except OSError as error:
            raise SourceError(f"{self._port} cannot be read: {error}") from error
        finally:
            loop.remove_reader(file)
        if not data:
            raise SourceError(f"{self._port} was closed")
        return data

    def _sample(self, line: bytes) -> Sample | None:
        if line.startswith(b"{"):
            return read(line, self._key, self._clock.now)
        fields = line.split(b",") if b"," in line else line.split()
        try:
            x = as_values([float(field.strip() or b"nan") for field in fields])
        except ValueError:
            return None
        return Sample(self._key, self._clock.now(), x) if fields else None
