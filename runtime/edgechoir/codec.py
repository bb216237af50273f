"""Values to bytes and back: the one codec of everything binary.

Numbers are big-endian; text is UTF-8; text, bytes and lists carry a u32 length. Reading accepts
exactly the bytes that writing makes: a short, long, oversized or non-canonical value is Malformed,
never another error.
"""

import math
import struct
from dataclasses import dataclass
from typing import Any, Protocol

from edgechoir.errors import LocalError, Malformed

Buffer = bytes | memoryview
"""Bytes; a memoryview of them has items of one byte."""


class Codec(Protocol):
    """Writes one value into parts, and reads it back from a cursor."""

    def write(self, value: Any, parts: list[Buffer]) -> None: ...
    def read(self, cursor: "Cursor") -> Any: ...


class Cursor:
    """A position in received bytes; every read is checked against what is left."""

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = memoryview(data)
        self.at = 0

    def take(self, n: int, what: str) -> memoryview:
        left = len(self.data) - self.at
        if n > left:
            raise Malformed(f"{what}: expected {n} bytes, {left} are left")
        self.at += n
        return self.data[self.at - n : self.at]


@dataclass(frozen=True, slots=True)
class Number:
    """A fixed-width number, `layout` as in `struct`, within [low, high]."""

    layout: str
    low: float
    high: float

    def write(self, value: float, parts: list[Buffer]) -> None:
        if not self.low <= value <= self.high:
            raise LocalError(f"{value} does not fit the field {self.layout}")
        parts.append(struct.pack(">" + self.layout, value))

    def read(self, cursor: Cursor) -> int | float:
        raw = cursor.take(struct.calcsize(">" + self.layout), "number")
        value: int | float = struct.unpack(">" + self.layout, raw)[0]
        if not (math.isfinite(value) and self.low <= value <= self.high):
            raise Malformed(f"number {value} is outside {self.low}..{self.high}")
        return value


@dataclass(frozen=True, slots=True)
class Raw:
    """Bytes with a length prefix; `exact` gives the only allowed length.

    They are read as a copy, or with `view` as a part of what was received.
    """

    limit: int
    exact: int | None = None
    view: bool = False

    def write(self, value: Buffer, parts: list[Buffer]) -> None:
        parts.append(self.prefix(len(value)))
        parts.append(value)

    def prefix(self, n: int) -> bytes:
        """What stands before a value of `n` bytes."""
        self._check(n, LocalError)
        return struct.pack(">I", n)

    def read(self, cursor: Cursor) -> Buffer:
        n = struct.unpack(">I", cursor.take(4, "length"))[0]
        self._check(n, Malformed)
        taken = cursor.take(n, "bytes")
        return taken if self.view else bytes(taken)

    def _check(self, n: int, error: type[LocalError] | type[Malformed]) -> None:
        if self.exact is not None and n != self.exact:
            raise error(f"expected {self.exact} bytes, saw {n}")
        if n > self.limit:
            raise error(f"expected at most {self.limit} bytes, saw {n}")


@dataclass(frozen=True, slots=True)
class Text:
    """UTF-8 text of at most `limit` bytes."""

    limit: int

    def write(self, value: str, parts: list[Buffer]) -> None:
        try:
            raw = value.encode()
        except UnicodeEncodeError as error:
            raise LocalError(f"text has no UTF-8 form: {error.reason}") from None
        Raw(self.limit).write(raw, parts)

    def read(self, cursor: Cursor) -> str:
        try:
            return bytes(Raw(self.limit).read(cursor)).decode()
        except UnicodeDecodeError as error:
            raise Malformed(f"text is not UTF-8: {error.reason}") from None


@dataclass(frozen=True, slots=True)
class Many:
    """A list of at most `limit` values, read back as a tuple."""

    each: Codec
    limit: int

    def write(self, value: tuple[Any, ...], parts: list[Buffer]) -> None:
        if len(value) > self.limit:
            raise LocalError(f"expected at most {self.limit} entries, saw {len(value)}")
        parts.append(struct.pack(">I", len(value)))
        for one in value:
            self.each.write(one, parts)

    def read(self, cursor: Cursor) -> tuple[Any, ...]:
        n = struct.unpack(">I", cursor.take(4, "count"))[0]
        if n > self.limit:
            raise Malformed(f"expected at most {self.limit} entries, saw {n}")
        return tuple(self.each.read(cursor) for _ in range(n))


@dataclass(frozen=True, slots=True)
class Pair:
    """Two values side by side, read back as a tuple."""

    first: Codec
    second: Codec

    def write(self, value: tuple[Any, Any], parts: list[Buffer]) -> None:
        self.first.write(value[0], parts)
        self.second.write(value[1], parts)

    def read(self, cursor: Cursor) -> tuple[Any, Any]:
        return self.first.read(cursor), self.second.read(cursor)
